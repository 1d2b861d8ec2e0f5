"""Detection, segmentation and classification networks, and the heads that decode their predictions.

As a command it builds the network of a model YAML and says how large it is:
    python models/yolo.py --cfg yolov5n.yaml
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.building import build_layers, detecting, segmenting
from models.common import Classify, Conv, Proto
from models.parsing import load_spec
from utils.autoanchor import check_anchor_order, checked_anchors
from utils.base.command_line import OneLineParser, exit_code
from utils.base.devices import select_device, time_sync
from utils.base.logger import LOGGER
from utils.base.networks import fuse_conv_and_bn, initialize_weights, model_info, scale_img
from utils.base.paths import ROOT
from utils.plots import feature_visualization


class Detect(nn.Module):
    """Detection head: one 1x1 convolution per level, and the decoding of its output into boxes.

    Attributes: nc classes, no = nc + 5 outputs per anchor, nl levels, na anchors per level, `anchors` (nl, na, 2)
    width and height in cells, `stride` (nl,) pixels per cell, `grid` and `anchor_grid` the cached cell offsets and
    anchors in pixels of each level. `dynamic` switches the cache off; `export` drops the raw maps from the output.
    """

    stride: Tensor | None = None
    dynamic = False
    export = False
    inplace = True

    def __init__(self, nc: int = 80, anchors=(), ch=(), inplace: bool = True):
        super().__init__()
        self.nc = nc
        self.no = nc + 5
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(len(anchors), -1, 2))
        self.nl, self.na = self.anchors.shape[:2]
        self.inplace = inplace
        self._connect(ch)
        self._forget_grids()

    def _connect(self, ch) -> None:
        """Make the 1x1 convolutions from `ch` channels of each level, if given, to `no` outputs per anchor."""
        if len(ch) not in (0, self.nl):
            raise ValueError(f"it has {len(ch)} inputs and anchors for {self.nl}; give a list for each, or a number")
        self.m = nn.ModuleList([nn.Conv2d(channels, self.no * self.na, kernel_size=1) for channels in ch])

    def forward(self, x: list[Tensor]):
        """Read one map (B, C, ny, nx) per level.

        Training: the raw maps, a list of (B, na, ny, nx, no). Else (predictions, raw maps), or (predictions,) where
        `export`. Predictions are (B, N, no) with rows in the order level, anchor, y, x and columns x, y, w, h in
        pixels of the input, then objectness and class probabilities in 0..1.
        """
        raw = [self._per_anchor(conv(level)) for conv, level in zip(self.m, x, strict=True)]
        if self.training:
            return raw
        predictions = torch.cat([self._decode(i, level) for i, level in enumerate(raw)], dim=1)
        return (predictions,) if self.export else (predictions, raw)

    def _per_anchor(self, outputs: Tensor) -> Tensor:
        """(B, na·no, ny, nx) -> (B, na, ny, nx, no)."""
        # sizes spelled out rather than unflatten, which freezes them in an ONNX export
        images, _, ny, nx = outputs.shape
        return outputs.view(images, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()

    def _decode(self, i: int, raw: Tensor) -> Tensor:
        """Turn the raw map (B, na, ny, nx, no) of level `i` into rows (B, na·ny·nx, no).

        A centre lies up to half a cell outside its own cell, a side is up to four times the anchor's. Columns after
        the class probabilities (mask coefficients) stay raw.
        """
        grid, anchor_grid = self._cached_grid(i, raw.shape[2], raw.shape[3])
        scores = self.nc + 1
        xy, wh, probabilities = raw[..., : 4 + scores].sigmoid().split((2, 2, scores), dim=-1)
        parts = [(2 * xy + grid) * self.stride[i], (2 * wh) ** 2 * anchor_grid, probabilities]
        if self.no > 4 + scores:
            parts.append(raw[..., 4 + scores :])
        return torch.cat(parts, dim=-1).flatten(1, 3)

    def _cached_grid(self, i: int, ny: int, nx: int) -> tuple[Tensor, Tensor]:
        """Return the grids of level `i`, remade where the cached ones have another size, type or device."""
        # a trace must hold the making of the grid, or it would depend on what was cached before
        if self.dynamic or torch.jit.is_tracing():
            return self._make_grid(nx, ny, i)
        # another thread may replace both meanwhile: with the grid known first, its anchors are as new at least
        grid = self.grid[i]
        anchor_grid = self.anchor_grid[i]
        fits = grid.shape[2:4] == (ny, nx) and (grid.dtype, grid.device) == (self.anchors.dtype, self.anchors.device)
        if not fits or grid.is_inference():
            grid, anchor_grid = self._make_grid(nx, ny, i)
            self.anchor_grid[i], self.grid[i] = anchor_grid, grid
        return grid, anchor_grid

    def _make_grid(self, nx: int = 20, ny: int = 20, i: int = 0) -> tuple[Tensor, Tensor]:
        """Return (offset of each cell minus one half (1, 1, ny, nx, 2), anchors in pixels (1, na, 1, 1, 2))."""
        # a tensor made under inference_mode could not serve a later pass that records gradients
        with torch.inference_mode(False), torch.no_grad():
            like = {"dtype": self.anchors.dtype, "device": self.anchors.device}
            y, x = torch.meshgrid(torch.arange(ny, **like), torch.arange(nx, **like), indexing="ij")
            grid = torch.stack((x, y), dim=-1)[None, None] - 0.5
            anchor_grid = (self.anchors[i] * self.stride[i])[None, :, None, None]
        return grid, anchor_grid

    def _forget_grids(self) -> None:
        """Empty the caches of all levels."""
        self.grid = [torch.empty(0) for _ in range(self.nl)]
        self.anchor_grid = [torch.empty(0) for _ in range(self.nl)]

    def _apply(self, fn, *args, **kwargs):
        """Move what is no buffer along with the rest (`.to()`, `.half()`, `.cuda()`, ...)."""
        super()._apply(fn, *args, **kwargs)
        if self.stride is not None:
            self.stride = fn(self.stride)
        self._forget_grids()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cached grids out of pickles and copies: their offsets differ between versions of YOLOv5."""
        blank = [torch.empty(0) for _ in range(self.nl)]
        return {**self.__dict__, "grid": blank, "anchor_grid": list(blank)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickled head of any version; up to v5.0 anchor_grid was a buffer."""
        super().__setstate__(state)
        self._buffers.pop("anchor_grid", None)
        self._forget_grids()


class Segment(Detect):
    """Detection head with `nm` mask coefficients per prediction and as many prototype masks per image."""

    def __init__(self, nc: int = 80, anchors=(), nm: int = 32, npr: int = 256, ch=(), inplace: bool = True):
        super().__init__(nc, anchors, (), inplace)
        self.nm = nm
        self.npr = npr
        self.no = 5 + nc + nm
        self._connect(ch)
        self.proto = Proto(ch[0], npr, nm)
        # not used here: the published class reads it, so that pickles of this one work there
        self.detect = Detect.forward

    def forward(self, x: list[Tensor]):
        """Training: (raw maps, prototypes). Else (predictions (B, N, no), prototypes (B, nm, H/4, W/4), raw maps).

        The last `nm` columns of the predictions are raw mask coefficients. `export` drops the raw maps.
        """
        prototypes = self.proto(x[0])
        detected = super().forward(x)
        if self.training:
            return detected, prototypes
        predictions, *raw = detected
        return predictions, prototypes, *raw


HEADS = {"Detect": (Detect, detecting), "Segment": (Segment, segmenting)}


def parse_model(d: dict, ch: list[int]) -> tuple[nn.Sequential, list[int]]:
    """Build the layers that model description `d` lists, for images of ch[-1] channels.

    Returns (layers, sorted indices of those whose output is needed later). Raises ValueError for an unknown module.
    """
    return build_layers(load_spec(d), ch[-1], HEADS)


class BaseModel(nn.Module):
    """Layers in a row, where a layer may also read from earlier ones."""

    inplace = True

    def forward(self, x: Tensor, profile: bool = False, visualize: bool | str | Path = False):
        """Pass images (B, C, H, W) in 0..1 through all layers; see `_forward_once`."""
        return self._forward_once(x, profile, visualize)

    def _forward_once(self, x: Tensor, profile: bool = False, visualize: bool | str | Path = False):
        """Return the last layer's output. `profile` logs each layer's time, `visualize` is a folder for its maps."""
        kept: dict[int, Tensor] = {}
        for layer in self.model:
            inputs = self._inputs_of(layer, x, kept)
            if profile:
                self._profile_one_layer(layer, inputs)
            x = layer(inputs)
            if layer.i in self.save:
                kept[layer.i] = x
            if visualize:
                feature_visualization(x, layer.type, layer.i, save_dir=visualize)
        return x

    @staticmethod
    def _inputs_of(layer: nn.Module, previous: Tensor, kept: dict[int, Tensor]):
        """Return what a layer reads: the output before it, an earlier one, or a list of those."""

        def look_up(source: int) -> Tensor:
            return previous if source == -1 else kept[source % layer.i]

        return look_up(layer.f) if isinstance(layer.f, int) else [look_up(source) for source in layer.f]

    @staticmethod
    def _profile_one_layer(layer: nn.Module, inputs, runs: int = 10) -> None:
        """Log a layer's mean time over some runs, its parameters and its type."""
        start = time_sync()
        for _ in range(runs):
            layer(list(inputs) if isinstance(inputs, list) else inputs)
        milliseconds = (time_sync() - start) * 1000 / runs
        LOGGER.info("%4d %10.2f ms %10d parameters  %s", layer.i, milliseconds, layer.np, layer.type)

    def fuse(self):
        """Fold every Conv's BatchNorm into its convolution, in place; return the model."""
        LOGGER.info("Fusing layers... ")
        for module in self.model.modules():
            if isinstance(module, Conv) and hasattr(module, "bn"):
                module.conv = fuse_conv_and_bn(module.conv, module.bn)
                del module.bn
                module.forward = module.forward_fuse
        self.info()
        return self

    def info(self, verbose: bool = False, img_size: int = 640) -> None:
        """Log the model's layers, parameters, gradients and GFLOPs for images of `img_size`."""
        model_info(self, verbose, img_size)


class DetectionModel(BaseModel):
    """YOLOv5 detector, built from a model YAML.

    `cfg` is a path, the name of a file below models/, or the file's content as a dict; `ch`, `nc` and `anchors` take
    the place of what it says about image channels, classes and anchors. Attributes: model (layers), save, names
    {index: class name}, yaml, stride (nl,), inplace.
    """

    def __init__(self, cfg: str | Path | dict = "yolov5s.yaml", ch: int = 3, nc: int | None = None, anchors=None):
        super().__init__()
        self.yaml = self._described(cfg, ch, nc, anchors)
        if not isinstance(cfg, dict):
            self.yaml_file = Path(cfg).name
        self.model, self.save = parse_model(self.yaml, ch=[self.yaml["ch"]])
        self.names = {i: str(i) for i in range(self.yaml["nc"])}
        self.inplace = self.yaml.get("inplace", True)
        initialize_weights(self)
        if isinstance(self.model[-1], Detect):
            self._fit_head(self.model[-1])

    @staticmethod
    def _described(cfg: str | Path | dict, ch: int, nc: int | None, anchors) -> dict:
        """Return the description with the caller's overrides in place."""
        spec = load_spec(cfg)
        spec["ch"] = spec.get("ch", ch)
        if nc and nc != spec["nc"]:
            LOGGER.info(f"Overriding model.yaml nc={spec['nc']} with nc={nc}")
            spec["nc"] = nc
        if anchors:
            LOGGER.info(f"Overriding model.yaml anchors with anchors={anchors}")
            spec["anchors"] = checked_anchors("the model", anchors)
        return spec

    def _fit_head(self, head: Detect) -> None:
        """Measure the strides, bring the anchors to cells, and start the biases."""
        head.inplace = self.inplace
        head.stride = self._measure_stride(head)
        check_anchor_order(head)
        head.anchors /= head.stride.to(head.anchors.device)[:, None, None]
        self.stride = head.stride
        self._initialize_biases()

    def _measure_stride(self, head: Detect, side: int = 256) -> Tensor:
        """Return pixels per cell of each level, from one pass of an empty image.

        ValueError where a layer does not take what the layers before it give.
        """
        self.eval()
        # in training mode a head needs no strides yet
        head.train()
        with torch.no_grad():
            maps = self._first_pass(torch.zeros(1, self.yaml["ch"], side, side))
        self.train()
        maps = maps[0] if isinstance(head, Segment) else maps
        # on the CPU even where the model is built on the meta device: strides are known without any weights
        return torch.tensor([side / level.shape[-2] for level in maps], device="cpu")

    def _first_pass(self, images: Tensor):
        try:
            return self._forward_once(images)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the layers of the model file do not fit each other ({reason})") from error

    def _initialize_biases(self, cf: Tensor | None = None) -> None:
        """Start with about 8 objects per 640-pixel image, of equally rare classes or of frequencies `cf` (nc,).

        See section 3.3 of https://arxiv.org/abs/1708.02002.
        """
        head = self.model[-1]
        classes = slice(5, 5 + head.nc)
        prior = math.log(0.6 / (head.nc - 0.99999)) if cf is None else torch.log(cf / cf.sum())
        with torch.no_grad():
            for conv, stride in zip(head.m, head.stride.tolist(), strict=True):
                bias = conv.bias.view(head.na, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, classes] += prior

    def forward(self, x: Tensor, augment: bool = False, profile: bool = False, visualize: bool | str | Path = False):
        """Detect in images (B, C, H, W) in 0..1; what comes back is described at Detect.forward.

        `augment` predicts at three sizes, one of them mirrored, and returns (all predictions, None).
        """
        if augment:
            return self._forward_augment(x)
        return self._forward_once(x, profile, visualize)

    def _forward_augment(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the predictions of the image at full size, mirrored at 0.83, and at 0.67, as rows of one tensor."""
        gs = int(self.stride.max())
        rows = []
        for scale, mirrored in ((1.0, False), (0.83, True), (0.67, False)):
            image = scale_img(x.flip(3) if mirrored else x, scale, gs=gs)
            rows.append(self._descale_pred(self._forward_once(image)[0], scale, x.shape[3] if mirrored else None))
        return torch.cat(self._clip_augmented(rows), dim=1), None

    @staticmethod
    def _descale_pred(p: Tensor, scale: float, mirror_width: int | None = None) -> Tensor:
        """Bring predictions (B, N, no) back to the original image; `mirror_width` undoes a left-right flip."""
        x, y, wh, rest = p.split((1, 1, 2, p.shape[-1] - 4), dim=-1)
        x = x / scale
        if mirror_width is not None:
            x = mirror_width - x
        return torch.cat((x, y / scale, wh / scale, rest), dim=-1)

    def _clip_augmented(self, y: list[Tensor]) -> list[Tensor]:
        """Drop the coarsest level of the largest image and the finest of the smallest: each has a better pass.

        The levels' shares of the rows are 1, 4, 16, ... from coarse to fine.
        """
        levels = self.model[-1].nl
        shares = sum(4**level for level in range(levels))
        coarsest = y[0].shape[1] // shares
        finest = y[-1].shape[1] // shares * 4 ** (levels - 1)
        return [y[0][:, :-coarsest], *y[1:-1], y[-1][:, finest:]]


# the name in checkpoints up to v6.1
Model = DetectionModel


class SegmentationModel(DetectionModel):
    """YOLOv5 detector with a mask per detection."""

    def __init__(self, cfg: str | Path | dict = "yolov5s-seg.yaml", ch: int = 3, nc: int | None = None, anchors=None):
        super().__init__(cfg, ch, nc, anchors)

    def _forward_augment(self, x: Tensor):
        raise ValueError("test-time augmentation is not defined for masks: leave augment off for segmentation models")


class ClassificationModel(BaseModel):
    """Image classifier on the backbone of a detector.

    `model` is a DetectionModel or something that holds one as its own `model`; the layers before `cutoff` are shared
    with it, but the last of them makes room for the classification head. Attributes: model, save, stride, nc, names.
    """

    def __init__(self, cfg=None, model: nn.Module | None = None, nc: int = 1000, cutoff: int = 10):
        super().__init__()
        if model is None:
            raise ValueError(f"a classifier cannot be built from a YAML ({cfg}): pass model=DetectionModel(...)")
        self._from_detection_model(model, nc, cutoff)

    def _from_detection_model(self, model: nn.Module, nc: int = 1000, cutoff: int = 10) -> None:
        """Take the layers before `cutoff` from a detector; the detector keeps its own list of layers."""
        while not isinstance(model, BaseModel):
            model = model.model
        *backbone, last = model.model[:cutoff]
        first = last.conv if hasattr(last, "conv") else last.cv1.conv
        head = Classify(first.in_channels, nc)
        head.i, head.f, head.type = last.i, last.f, "models.common.Classify"
        head.np = sum(p.numel() for p in head.parameters())
        self.model = nn.Sequential(*backbone, head)
        self.stride, self.save, self.nc = model.stride, [], nc
        self.names = {i: str(i) for i in range(nc)}


def main(arguments: list[str] | None = None) -> int:
    """Build the network of a model YAML, or of all of them, log its size, and return the exit code."""
    parser = OneLineParser(prog="yolo.py", description="Build the network of a model YAML and say how large it is.")
    parser.add_argument("--cfg", default="yolov5s.yaml", help="model YAML, a path or the name of one below models/")
    parser.add_argument("--batch-size", type=int, default=1, help="images to run with --profile and --line-profile")
    parser.add_argument("--device", default="", help="0 for a GPU, or cpu")
    parser.add_argument("--profile", action="store_true", help="also time a forward and a backward pass")
    parser.add_argument("--line-profile", action="store_true", help="also time each layer")
    parser.add_argument("--test", action="store_true", help="build every yolo*.yaml below models/ instead")
    opt = parser.parse_args(arguments)
    paths = sorted((ROOT / "models").rglob("yolo*.yaml")) if opt.test else [opt.cfg]
    return exit_code("yolo.py", lambda: [build_and_log(path, opt) for path in paths], lambda built: None)


def build_and_log(cfg: str | Path, opt: argparse.Namespace) -> None:
    """Build the network of a model YAML on the device asked for, log its layers and its size, and time it if asked to."""
    is_segmenting = load_spec(cfg)["head"][-1][2] == "Segment"
    model = (SegmentationModel if is_segmenting else DetectionModel)(cfg).to(select_device(opt.device))
    for layer in model.model:
        LOGGER.info("%3d %18s %10d  %s", layer.i, layer.f, layer.np, layer.type)
    model.info()
    images = torch.rand(opt.batch_size, model.yaml["ch"], 640, 640, device=next(model.parameters()).device)
    if opt.line_profile:
        with torch.no_grad():
            model.eval()(images, profile=True)
    if opt.profile:
        log_times(model.train(), images)


def log_times(model: nn.Module, images: Tensor, runs: int = 3) -> None:
    """Log the mean milliseconds of a forward and of a backward pass of images (B, C, h, w)."""
    forward = backward = 0.0
    for _ in range(runs):
        start = time_sync()
        maps = model(images)
        middle = time_sync()
        sum(level.sum() for level in (maps[0] if isinstance(maps, tuple) else maps)).backward()
        forward, backward = forward + middle - start, backward + time_sync() - middle
    times = (seconds * 1000 / runs for seconds in (forward, backward))
    LOGGER.info("forward %.1f ms, backward %.1f ms for images of shape %s", *times, tuple(images.shape))


if __name__ == "__main__":
    # Under its own name, so that the classes are those that checkpoints name.
    from models.yolo import main as run_command

    sys.exit(run_command())
