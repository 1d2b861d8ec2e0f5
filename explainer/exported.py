"""An exported model, TorchScript or ONNX, seen by the methods that need predictions alone."""

from collections.abc import Iterable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from explainer.errors import UsageError
from explainer.methods import needs_layers, predictions_alone
from explainer.network import PREDICTIONS, Level, Network, Recording
from explainer.settings import Settings
from utils.general import check_img_size

# Strides that the inputs of a head can have; a head has some that follow each other, and a few anchors at each.
STRIDES = (4, 8, 16, 32, 64, 128)
MOST_ANCHORS = 9
# More raw predictions than any model gives.
ALL = 1 << 40
# The names that a backend makes up where the model brings none.
PLACEHOLDERS = 999


class Exported:
    """A model that gives predictions and nothing else. Where no layer is read it takes the place of a `Network`.

    names        the class names by index
    stride       an input's height and width are multiples of it
    levels       where the raw predictions come from: one level without a stride where that cannot be told
    weight       an empty tensor, which knows the device and the precision
    rectangular  whether it takes inputs of any height and width
    batched      whether it takes several images at once
    """

    heads = grids = ()

    def __init__(self, backend: nn.Module, imgsz: tuple[int, int]):
        """Look at the predictions for an empty image. imgsz: the (height, width) that is asked for.

        UsageError for a model that does not take images of that size, or that is no YOLOv5 detector.
        """
        self.model, self.stride = backend, int(backend.stride)
        self.modules, self.parameters = tuple(backend.modules()), tuple(backend.parameters())
        self.weight = torch.empty(0, device=backend.device, dtype=torch.half if backend.fp16 else torch.float32)
        shape = declared_shape(backend)
        self.batched = backend.jit if shape is None else not isinstance(shape[0], int)
        self.rectangular = shape is not None and not any(isinstance(side, int) for side in shape[2:])
        height, width = size = self.input_size(imgsz)
        check_size(shape, size)
        outputs = self._try(torch.zeros(1, 3, height, width).to(self.weight))
        self.columns = 5 + class_count(outputs, backend.names)
        self.names = {index: backend.names[index] for index in range(self.columns - 5)}
        self.levels = levels_of(outputs[0][0].float(), size)

    def input_size(self, imgsz: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of an input: multiples of the stride."""
        return tuple(check_img_size(list(imgsz), s=self.stride))

    def predict(self, images: Tensor) -> Tensor:
        """Return the raw predictions (B, N, 5 + classes), float32, of images (B, 3, h, w)."""
        parts = [images] if self.batched else images.split(1)
        return torch.cat([self._outputs(part)[0][..., : self.columns].float() for part in parts])

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of an image. Of the head's inputs nothing but their size is known."""
        height, width = image.shape[2:]
        cells = [(height // level.stride, width // level.stride) if level.stride else (1, 1) for level in self.levels]
        return Recording(image, self.predict(image)[0], tuple(torch.empty(1, 0, *size) for size in cells), {})

    @torch.no_grad()
    def _outputs(self, images: Tensor) -> list[Tensor]:
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


def network_of(model: nn.Module, ways: Iterable[Settings]) -> Network | Exported:
    """Return the network inside a model that is explained in some ways; of an exported one what can be seen of it.

    UsageError where one of the ways needs more than that.
    """
    backend = exported_backend(model)
    if backend is None:
        return Network(model)
    for way in ways:
        if needs_layers(way.method):
            raise UsageError(predictions_alone("an exported model", way.method))
        exported = Exported(backend, way.imgsz)
        if way.scales and exported.levels[0].stride is None:
            raise UsageError("--scales: where each prediction comes from cannot be told of this exported model")
    return exported


def exported_backend(model: nn.Module) -> nn.Module | None:
    """Return the backend that runs an exported model, unwrapped; None for a model whose layers can be read."""
    from models.common import DetectMultiBackend

    inner = model
    while isinstance(inner, nn.Module):
        if isinstance(inner, DetectMultiBackend):
            return None if inner.pt else inner
        inner = getattr(inner, "model", None)
    return None


def declared_shape(backend: nn.Module) -> list | None:
    """Return the shape (B, 3, h, w) of what an ONNX model takes, a side of any length by its name; None if unknown."""
    for owner in (backend, backend.model):
        session = getattr(owner, "session", None)
        if session is not None:
            return session.get_inputs()[0].shape
    return None


def check_size(shape: list | None, size: tuple[int, int]) -> None:
    """Raise UsageError where a model takes images of another size (height, width), or several images and no single one."""
    if shape is None:
        return
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
    if predictions.ndim != 3 or classes < 1 or len(names) not in (classes, PLACEHOLDERS):
        raise UsageError(
            f"the exported model gives {tuple(predictions.shape)} for {len(names)} class names, and a YOLOv5 detector "
            "gives (1, predictions, 5 + classes); export it without --nms, and name its classes by --data"
        )
    return classes


def levels_of(raw: Tensor, input_size: tuple[int, int]) -> list[Level]:
    """Return the head inputs that raw predictions (N, 5 + classes) come from, told by their number and where they lie.

    Raw predictions are ordered by head input, then anchor, then y, then x, and their centres lie near their cells.
    """
    for strides in runs(STRIDES):
        if all(side % stride == 0 for side in input_size for stride in strides):
            cells = cell_centres(strides, input_size)
            anchors, rest = divmod(len(raw), sum(map(len, cells)))
            if not rest and anchors <= MOST_ANCHORS and near_cells(raw, strides, cells, anchors):
                head = SimpleNamespace(na=anchors)
                return [Level(head, index, PREDICTIONS, stride) for index, stride in enumerate(strides)]
    return [Level(SimpleNamespace(na=ALL), 0, PREDICTIONS, None)]


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
    """Return whether the centre of each raw prediction lies within one stride of the centre of its cell."""
    first = 0
    for stride, centres in zip(strides, cells, strict=True):
        expected = centres.repeat(anchors, 1).to(raw)
        here = raw[first : first + len(expected), :2]
        # The small rest is for half precision.
        if ((here - expected).abs() > stride * 1.05).any():
            return False
        first += len(expected)
    return True
