"""Activation functions that checkpoints and model files may name beyond those of torch.nn."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SiLU(nn.Module):
    """x·σ(x), for checkpoints older than torch.nn.SiLU (https://arxiv.org/abs/1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an activated tensor of the shape of `x`."""
        return F.silu(x)


class Hardswish(nn.Module):
    """x·relu6(x+3)/6, for checkpoints older than torch.nn.Hardswish (https://arxiv.org/abs/1905.02244)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an activated tensor of the shape of `x`."""
        return F.hardswish(x)


class Mish(nn.Module):
    """x·tanh(softplus(x)) (https://arxiv.org/abs/1908.08681)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an activated tensor of the shape of `x`."""
        return F.mish(x)


class MemoryEfficientMish(Mish):
    """Mish under the name of its former low-memory version; torch's own keeps nothing but the input."""


class MemoryEfficientSwish(SiLU):
    """SiLU under the name of its former low-memory version; torch's own keeps nothing but the input."""


class FReLU(nn.Module):
    """max(x, T(x)) with a depth-wise convolution T: an activation that sees its neighbours (2007.11824)."""

    def __init__(self, c1: int, k: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(c1, c1, k, padding=k // 2, groups=c1, bias=False)
        self.bn = nn.BatchNorm2d(c1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger of `x` (B, c1, H, W) and its filtered self."""
        return torch.maximum(x, self.bn(self.conv(x)))


def _acon(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    """Blend the lines p1·x and p2·x smoothly, with sharpness `beta`."""
    rise = (p1 - p2) * x
    return rise * torch.sigmoid(beta * rise) + p2 * x


class AconC(nn.Module):
    """ACON: a learned blend of two lines per channel (https://arxiv.org/abs/2009.04759)."""

    def __init__(self, c1: int):
        super().__init__()
        shape = (1, c1, 1, 1)
        self.p1, self.p2 = (nn.Parameter(torch.randn(shape)) for _ in range(2))
        self.beta = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return an activated tensor of the shape of `x` (B, c1, H, W)."""
        return _acon(x, self.p1, self.p2, self.beta)


class MetaAconC(nn.Module):
    """ACON whose sharpness is computed from the channel means (https://arxiv.org/abs/2009.04759)."""

    def __init__(self, c1: int, k: int = 1, s: int = 1, r: int = 16):
        super().__init__()
        squeezed = max(r, c1 // r)
        self.p1, self.p2 = (nn.Parameter(torch.randn(1, c1, 1, 1)) for _ in range(2))
        self.fc1 = nn.Conv2d(c1, squeezed, k, s)
        self.fc2 = nn.Conv2d(squeezed, c1, k, s)

    def forward(self, x: Tensor) -> Tensor:
        """Return an activated tensor of the shape of `x` (B, c1, H, W)."""
        beta = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True))))
        return _acon(x, self.p1, self.p2, beta)
