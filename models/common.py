"""Building blocks of YOLOv5, one small class each.

Attribute names (conv, bn, act, cv1, m, ...) are part of the checkpoint format: state dicts and pickles hold them.
Throughout, `c1`/`c2` are input/output channels, `k` kernel size, `s` stride, `p` padding, `g` groups, `d` dilation,
`n` repeats, `e` the width of the hidden channels relative to `c2`. Maps are (B, C, H, W).
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.autoshape import AutoShape as AutoShape
from models.autoshape import Detections as Detections
from models.backend import DetectMultiBackend as DetectMultiBackend

# one side for both, or (height, width)
Size = int | tuple[int, int]


def autopad(k: Size, p: Size | None = None, d: int = 1) -> Size:
    """Return `p` where it is given, else the padding that keeps a map's size at stride 1 with an odd kernel."""
    if p is not None:
        return p
    if isinstance(k, int):
        return d * (k - 1) // 2
    height, width = k
    return autopad(height, d=d), autopad(width, d=d)


def _activation(act: bool | nn.Module) -> nn.Module:
    """True is the default (a SiLU of its own), a module is itself, anything else is no activation."""
    if isinstance(act, nn.Module):
        return act
    return Conv.default_act() if act is True else nn.Identity()


class Conv(nn.Module):
    """Convolution, BatchNorm, activation: the brick of every other block."""

    default_act = nn.SiLU

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Size = 1,
        s: Size = 1,
        p: Size | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ):
        super().__init__()
        padding = autopad(k, p, d)
        self.conv = nn.Conv2d(c1, c2, kernel_size=k, stride=s, padding=padding, dilation=d, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(num_features=c2)
        self.act = _activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        normalised = self.bn(self.conv(x))
        return self.act(normalised)

    def forward_fuse(self, x: Tensor) -> Tensor:
        """`forward` once the BatchNorm has been folded into the convolution; `fuse()` puts it in its place."""
        return self.act(self.conv(x))


class DWConv(Conv):
    """Depth-wise convolution: as many groups as both channel counts allow (https://arxiv.org/abs/1704.04861)."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: bool | nn.Module = True):
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depth-wise transposed convolution; `p1` and `p2` are its padding and output padding."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0):
        super().__init__(c1, c2, k, stride=s, padding=p1, output_padding=p2, groups=math.gcd(c1, c2))


class TransformerLayer(nn.Module):
    """Self-attention and two linear layers without LayerNorm, both residual (https://arxiv.org/abs/2010.11929)."""

    def __init__(self, c: int, num_heads: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
        self.ma = nn.MultiheadAttention(c, num_heads)
        self.fc1, self.fc2 = (nn.Linear(c, c, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(cells, B, c) -> the same shape."""
        attended, _ = self.ma(self.q(x), self.k(x), self.v(x))
        x = x + attended
        return x + self.fc2(self.fc1(x))


class TransformerBlock(nn.Module):
    """Transformer layers over the cells of a map, with a learned position (https://arxiv.org/abs/2010.11929)."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int):
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*[TransformerLayer(c2, num_heads) for _ in range(num_layers)])
        self.c2 = c2

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        if self.conv is not None:
            x = self.conv(x)
        cells = x.flatten(2).permute(2, 0, 1)
        cells = self.tr(cells + self.linear(cells))
        return cells.permute(1, 2, 0).reshape(x.shape)


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution, added to the input where `shortcut` allows (https://arxiv.org/abs/1512.03385)."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5):
        super().__init__()
        hidden = int(e * c2)
        self.add = bool(shortcut) and c1 == c2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden, c2, k=3, g=g)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        change = self.cv2(self.cv1(x))
        return x + change if self.add else change


class CrossConv(nn.Module):
    """A kxk convolution as a 1xk and a kx1 one, added to the input where `shortcut` allows."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False):
        super().__init__()
        hidden = int(e * c2)
        self.add = bool(shortcut) and c1 == c2
        self.cv1 = Conv(c1, hidden, k=(1, k), s=(1, s))
        self.cv2 = Conv(hidden, c2, k=(k, 1), s=(s, 1), g=g)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        change = self.cv2(self.cv1(x))
        return x + change if self.add else change


class BottleneckCSP(nn.Module):
    """Cross-stage-partial block with bare 1x1 convolutions and a joint BatchNorm (https://arxiv.org/abs/1911.11929)."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5):
        super().__init__()
        hidden = int(e * c2)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = nn.Conv2d(c1, hidden, kernel_size=1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, kernel_size=1, bias=False)
        self.cv4 = Conv(2 * hidden, c2)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*[Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        branches = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), dim=1)
        return self.cv4(self.act(self.bn(branches)))


class C3(nn.Module):
    """Cross-stage-partial block of three convolutions: half the map passes `n` bottlenecks (1911.11929)."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5):
        super().__init__()
        hidden = int(e * c2)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = self._middle(hidden, n, shortcut, g)

    def _middle(self, hidden: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """Return what the first half of the map passes; it keeps `hidden` channels."""
        return nn.Sequential(*[Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        halves = self.m(self.cv1(x)), self.cv2(x)
        return self.cv3(torch.cat(halves, dim=1))


class C3x(C3):
    """C3 with cross convolutions in place of bottlenecks."""

    def _middle(self, hidden: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*[CrossConv(hidden, hidden, g=g, shortcut=shortcut) for _ in range(n)])


class C3TR(C3):
    """C3 with a transformer of `n` layers in place of bottlenecks."""

    def _middle(self, hidden: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return TransformerBlock(hidden, hidden, num_heads=4, num_layers=n)


class C3SPP(C3):
    """C3 with spatial pyramid pooling in place of bottlenecks; `k` are the pooling windows."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: tuple[int, ...] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ):
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(e * c2)
        self.m = SPP(hidden, hidden, k)


class C3Ghost(C3):
    """C3 with ghost bottlenecks."""

    def _middle(self, hidden: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*[GhostBottleneck(hidden, hidden) for _ in range(n)])


class SPP(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over windows `k` (https://arxiv.org/abs/1406.4729)."""

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13)):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden * (1 + len(k)), c2)
        self.m = nn.ModuleList([nn.MaxPool2d(window, stride=1, padding=window // 2) for window in k])

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        x = self.cv1(x)
        return self.cv2(torch.cat((x, *(pool(x) for pool in self.m)), dim=1))


class SPPF(nn.Module):
    """SPP, faster: three windows of `k` one after the other see as far as k, 2k-1 and 3k-2 side by side."""

    def __init__(self, c1: int, c2: int, k: int = 5):
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(4 * hidden, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H, W)."""
        maps = [self.cv1(x)]
        while len(maps) < 4:
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, dim=1))


class Focus(nn.Module):
    """Stem up to v5: every 2x2 square of pixels becomes four channel groups, then a convolution."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool | nn.Module = True
    ):
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/2, W/2); the squares are read down the columns."""
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(corners, dim=1))


class GhostConv(nn.Module):
    """Half the channels by convolution, the other half by a cheap 5x5 depth-wise one on it (1911.11907)."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool | nn.Module = True):
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, k=5, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        first = self.cv1(x)
        return torch.cat((first, self.cv2(first)), dim=1)


class GhostBottleneck(nn.Module):
    """Residual block of two ghost convolutions; at stride 2 a depth-wise one shrinks both paths (1911.11907)."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1):
        super().__init__()
        hidden, shrinks = c2 // 2, s == 2
        between = DWConv(hidden, hidden, k, s, act=False) if shrinks else nn.Identity()
        self.conv = nn.Sequential(GhostConv(c1, hidden), between, GhostConv(hidden, c2, act=False))
        self.shortcut = nn.Identity()
        if shrinks:
            self.shortcut = nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, H/s, W/s)."""
        return self.shortcut(x) + self.conv(x)


class Contract(nn.Module):
    """Move squares of `gain` x `gain` cells into the channels."""

    def __init__(self, gain: int = 2):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, gain²·C, H/gain, W/gain); channel order (row, column, channel)."""
        height, width = (side // self.gain for side in x.shape[2:])
        squares = x.unflatten(3, (width, self.gain)).unflatten(2, (height, self.gain))
        return squares.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


class Expand(nn.Module):
    """Move channels into squares of `gain` x `gain` cells: Contract undone."""

    def __init__(self, gain: int = 2):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C/gain², H·gain, W·gain); channel order (row, column, channel)."""
        squares = x.unflatten(1, (self.gain, self.gain, -1))
        return squares.permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3)


class Concat(nn.Module):
    """Join maps along one dimension, the channels as a rule."""

    def __init__(self, dimension: int = 1):
        super().__init__()
        self.d = dimension

    def forward(self, x: Iterable[Tensor]) -> Tensor:
        """Return the maps of `x` side by side."""
        return torch.cat(tuple(x), dim=self.d)


class Proto(nn.Module):
    """Mask prototypes of a segmentation head, at twice the map's size (YOLACT, https://arxiv.org/abs/1904.02689)."""

    def __init__(self, c1: int, c_: int = 256, c2: int = 32):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c_, k=3), Conv(c_, c_, k=3)
        self.cv3 = Conv(c_, c2)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) -> (B, c2, 2H, 2W)."""
        larger = self.upsample(self.cv1(x))
        return self.cv3(self.cv2(larger))


class Classify(nn.Module):
    """Classification head: map, or list of maps, to class logits."""

    hidden = 1280

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, dropout_p: float = 0.0
    ):
        super().__init__()
        self.conv = Conv(c1, self.hidden, k, s, p, g)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(dropout_p, inplace=True)
        self.linear = nn.Linear(self.hidden, c2)

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        """(B, c1, H, W) -> (B, c2)."""
        joined = torch.cat(x, dim=1) if isinstance(x, list) else x
        return self.linear(self.drop(self.pool(self.conv(joined)).flatten(1)))
