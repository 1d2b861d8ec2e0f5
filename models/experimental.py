"""Blocks of the experimental models, and names that old checkpoints look for here."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from models.common import C3 as C3
from models.common import CrossConv as CrossConv
from models.common import GhostBottleneck as GhostBottleneck
from models.common import GhostConv as GhostConv
from models.loading import Ensemble as Ensemble
from models.loading import attempt_load as attempt_load


class Sum(nn.Module):
    """Sum of `n` maps of one shape, with learned weights in 0..2 where `weight` (https://arxiv.org/abs/1911.09070)."""

    def __init__(self, n: int, weight: bool = False):
        super().__init__()
        self.weight = weight
        self.iter = range(n - 1)
        if weight:
            self.w = nn.Parameter(-torch.arange(1.0, n) / 2)

    def forward(self, x: list[Tensor]) -> Tensor:
        """Return x[0] + w[0]·x[1] + w[1]·x[2] + ..."""
        weights = 2 * torch.sigmoid(self.w) if self.weight else [1.0] * len(self.iter)
        return x[0] + sum(w * other for w, other in zip(weights, x[1:], strict=True))


class MixConv2d(nn.Module):
    """Convolutions of several kernel sizes `k` side by side, `c2` channels in all (https://arxiv.org/abs/1907.09595).

    With `equal_ch` each has as many channels, otherwise as many weights per input channel.
    """

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (1, 3), s: int = 1, equal_ch: bool = True):
        super().__init__()
        shares = np.ones(len(k)) if equal_ch else 1 / np.square(k, dtype=float)
        widths = _split_channels(c2, shares)
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, side, s, side // 2, groups=math.gcd(c1, width), bias=False)
            for side, width in zip(k, widths, strict=True)
        )
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        return self.act(self.bn(torch.cat([conv(x) for conv in self.m], dim=1)))


def _split_channels(total: int, shares: np.ndarray) -> list[int]:
    """Cut `total` channels in proportion to `shares`; the counts add up to `total`."""
    edges = np.rint(np.cumsum(shares) / shares.sum() * total).astype(int)
    return np.diff(edges, prepend=0).tolist()
