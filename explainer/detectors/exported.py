"""An exported YOLOv5, TorchScript or ONNX, for the methods that need predictions alone."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from explainer.checkpoints.repair import names_by_index
from explainer.detectors.detector import MADE_FROM, Suppression
from explainer.detectors.predictions import Detection, Predictions, Recording
from explainer.detectors.white_box import Letterboxing
from explainer.detectors.yolov5 import suppressed
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox

# Strides that the inputs of a head can have; a head has some that follow each other, and a few anchors at each.
STRIDES = (4, 8, 16, 32, 64, 128)
MOST_ANCHORS = 9
# The names that a backend makes up where the model brings none.
PLACEHOLDERS = 999
# One for each backend that is explained.
LOCKS: WeakKeyDictionary[nn.Module, Lock] = WeakKeyDictionary()
LOCKING = Lock()


class Exported(Letterboxing):
    """A model that gives predictions and nothing else.

    grids    where the predictions come from, told by their number and where they lie; one without a stride where that
             cannot be told
    batched  whether it takes several images at once
    """

    reads_layers = False
    called = "this exported model"
    layers_elsewhere = MADE_FROM

    def __init__(self, backend: nn.Module, imgsz: tuple[int, int] | None):
        """Look at the predictions for an empty image. imgsz: the (height, width) that is asked for, None for the usual.

        UsageError for a model that does not take images of that size, or that is no YOLOv5 detector.
        """
        self.model, self.stride, self._running = backend, int(backend.stride), lock_of(backend)
        self.modules = tuple(backend.modules())
        shape = declared_shape(backend)
        self.batched = backend.jit if shape is None else not isinstance(shape[0], int)
        self.rectangular = shape is not None and not any(isinstance(side, int) for side in shape[2:])
        height, width = size = self.input_size(imgsz)
        check_size(shape, size)
        outputs = self._try(torch.zeros(1, 3, height, width, device=self.device, dtype=self.dtype))
        classes = class_count(outputs, backend.names)
        self.columns = 5 + classes
        self.names = names_by_index(backend.names, classes)
        self.grids = grids_of(outputs[0][0].float(), size)
        self.strides = tuple(grid.stride for grid in self.grids)

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its inputs."""
        return torch.half if self.model.fp16 else torch.float32

    def predict(self, images: Tensor) -> Predictions:
        """Return the predictions (B, N), float32, for images (B, 3, h, w; 0..1)."""
        parts = [images] if self.batched else images.split(1)
        return Predictions.of_columns(
            torch.cat([self._outputs(part)[0][..., : self.columns].float() for part in parts])
        )

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of an image (1, 3, h, w); there are no layers to record."""
        predictions, ends = self.predict(image)[0], []
        for grid in self.grids:
            here = grid.count(image.shape[2:]) if grid.stride else len(predictions.boxes_xywh)
            ends.append((ends[-1] if ends else 0) + here)
        return Recording(image, predictions, {}, tuple(ends))

    def detect(
        self, recording: Recording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections of YOLOv5's non-maximum suppression and their boxes (D, 4) in input pixels, unclipped."""
        kept = suppressed(recording.predictions.columns(), suppression)
        return kept.detections(recording, letterbox, self.names, self.strides), kept.boxes_xyxy

    @torch.no_grad()
    def _outputs(self, images: Tensor) -> list[Tensor]:
        """Return what the model gives for images; some runtimes keep their input in the model."""
        with self._running:
            outputs = self.model(images)
        return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

    def _try(self, image: Tensor) -> list[Tensor]:
        """Return the outputs for a first image; UsageError where the model does not take it."""
        import cv2

        # Each runtime has a way of its own to refuse an image of the wrong size.
        try:
            return self._outputs(image)
        except (RuntimeError, ValueError, cv2.error) as error:
            sides = " ".join(map(str, image.shape[2:]))
            reason = str(error).strip().splitlines()[-1]
            raise UsageError(
                f"the exported model cannot read an image of --imgsz {sides} ({reason}); "
                "give --imgsz as it was when the model was exported"
            ) from error


class Grid(NamedTuple):
    """The cells of one input of a head: pixels per cell, None where it cannot be told, and predictions from each cell."""

    stride: int | None
    anchors: int

    def count(self, input_size: tuple[int, int]) -> int:
        """Return how many predictions come from an input of the network of this size."""
        height, width = (side // self.stride for side in input_size)
        return self.anchors * height * width


def exported_backend(model: nn.Module) -> nn.Module | None:
    """Return the backend that runs an exported model, unwrapped; None for a model whose layers can be read."""
    from models.common import DetectMultiBackend

    inner = model
    while isinstance(inner, nn.Module):
        if isinstance(inner, DetectMultiBackend):
            return None if inner.pt else inner
        inner = getattr(inner, "model", None)
    return None


def lock_of(backend: nn.Module) -> Lock:
    """Return what a thread holds while it runs a backend, the same for all that explain it."""
    with LOCKING:
        return LOCKS.setdefault(backend, Lock())


def declared_shape(backend: nn.Module) -> list | None:
    """Return the shape (B, 3, h, w) of what an ONNX model takes, a side of any length by its name; None if unknown."""
    # Stock YOLOv5 keeps the session itself, and no model around it.
    for owner in (backend, getattr(backend, "model", None)):
        session = getattr(owner, "session", None)
        if session is not None:
            return session.get_inputs()[0].shape
    return None


def check_size(shape: list | None, size: tuple[int, int]) -> None:
    """Raise UsageError where a model takes images of another size (height, width), or several images and no single one."""
    if shape is None:
        return
    if len(shape) != 4:
        raise UsageError(f"the exported model takes inputs of shape {shape}, and images have 4 sides; export it again")
    if isinstance(shape[0], int) and shape[0] > 1:
        raise UsageError(f"the exported model takes {shape[0]} images at once; export it for one, or with --dynamic")
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(shape[2:], size, strict=True)):
        taken = " ".join(map(str, shape[2:]))
        raise UsageError(f"the exported model takes images of {taken} pixels alone; give --imgsz {taken}")


def class_count(outputs: list[Tensor], names: dict[int, str]) -> int:
    """Return how many classes an exported detector has; UsageError where its output is not a YOLOv5 detector's.

    outputs: predictions (1, N, 5 + classes), and prototypes (1, M, h, w) where M coefficients of a mask follow the classes.
    """
    predictions = outputs[0]
    masks = outputs[1].shape[1] if len(outputs) > 1 and outputs[1].ndim == 4 else 0
    classes = predictions.shape[-1] - 5 - masks
    # Models of other families have more columns than rows; after --nms there are columns for one class.
    plausible = len(names) in (classes, PLACEHOLDERS) or 1 < classes < predictions.shape[1] - 5 - masks
    if predictions.ndim != 3 or classes < 1 or not plausible:
        raise UsageError(
            f"the exported model gives {tuple(predictions.shape)} for {len(names)} class names, and a YOLOv5 detector "
            "gives (1, predictions, 5 + classes); export it without --nms, and name its classes by --data"
        )
    return classes


def grids_of(raw: Tensor, input_size: tuple[int, int]) -> list[Grid]:
    """Return the grids that raw predictions (N, 5 + classes) come from, told by their number and where they lie.

    Predictions are ordered by head input, then anchor, then y, then x, and their centres lie near their cells.
    """
    for strides in runs(STRIDES):
        if all(side % stride == 0 for side in input_size for stride in strides):
            cells = cell_centres(strides, input_size)
            anchors, rest = divmod(len(raw), sum(map(len, cells)))
            if not rest and anchors <= MOST_ANCHORS and near_cells(raw, strides, cells, anchors):
                return [Grid(stride, anchors) for stride in strides]
    return [Grid(None, 0)]


def runs(entries: tuple) -> list[tuple]:
    """Return all runs of neighbouring entries, longer ones first."""
    lengths = range(len(entries), 0, -1)
    return [entries[start : start + length] for length in lengths for start in range(len(entries) - length + 1)]


def cell_centres(strides: tuple[int, ...], input_size: tuple[int, int]) -> list[Tensor]:
    """Return the centres (h * w, 2) of the cells of each head input as x, y in input pixels."""
    centres = []
    for stride in strides:
        y, x = (torch.arange(stride / 2, side, stride) for side in input_size)
        centres.append(torch.cartesian_prod(y, x).flip(1))
    return centres


def near_cells(raw: Tensor, strides: tuple[int, ...], cells: list[Tensor], anchors: int) -> bool:
    """Return whether the centre of each prediction lies within one stride of the centre of its cell."""
    first = 0
    for stride, centres in zip(strides, cells, strict=True):
        expected = centres.repeat(anchors, 1).to(raw)
        here = raw[first : first + len(expected), :2]
        # The small rest is for half precision.
        if ((here - expected).abs() > stride * 1.05).any():
            return False
        first += len(expected)
    return True
