"""Detectors in the form of torchvision: a backbone gives a pyramid of maps, and a head reads boxes and classes from it.

    TwoStage  regions of interest are cut out of the pyramid, and each is classified by itself: Faster R-CNN, Mask R-CNN
    Dense     each cell predicts, from the cells around it: RetinaNet, FCOS, SSD

A detection stands for the one region or cell that it came from, and its score depends on a small part of the pyramid: that
part alone is run again (`LocalScores`). The levels of the pyramid are called `pyramid.0`, `pyramid.1`, ... from fine to
coarse; the layers below it by the names of their modules. Classes are counted without the background, torchvision's label 0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from explainer.checkpoints.repair import names_by_index
from explainer.detectors.detector import (
    BACKBONE,
    COARSEST,
    FINE_AND_DEEP,
    PLACES,
    Layers,
    Place,
    Seen,
    Sight,
    Suppression,
)
from explainer.detectors.head import HeadScores
from explainer.detectors.local import (
    LEVEL,
    Found,
    Local,
    LocalScores,
    PyramidRecording,
    PyramidScores,
    as_batch,
    is_level,
)
from explainer.detectors.predictions import Detection, Kept, Predictions, Recording, Target
from explainer.detectors.white_box import WhiteBox, as_input, check_wide_enough, usable_activation
from explainer.errors import UsageError, unknown
from explainer.maps.heatmaps import Letterbox, Stretched

# A side of an input in pixels that every stride divides.
LARGE = 1024


class Pyramidal(WhiteBox):
    """A detector in the form of torchvision: what both kinds share.

    labels   (classes,) int64, torchvision's label of each class
    sides    the shorter and the longer side that an image is fitted into
    map_names  those of the maps of the pyramid, in the backbone
    narrowest  a box with a side of fewer pixels is none
    content  height and width of the image that is being explained within its input; None for all of it
    """

    own_rows = True
    narrowest = 0.0

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.transform, self.passes = self.model.transform, (self.model.backbone, *self.head_parts())
        self.labels, self.names = labels_and_names(self.model, self.count_labels())
        self.sides = (int(self.transform.min_size[-1]), int(self.transform.max_size))
        self.stride, self.content = int(self.transform.size_divisible), None
        self.map_names, cells, side = self._look_at_pyramid()
        self.strides = tuple(round(side / cells[level]) for level in self.levels_read())

    @abstractmethod
    def count_labels(self) -> int:
        """Return how many labels the head knows, with the background."""

    @abstractmethod
    def head_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that the head is run by, one after the other."""

    @abstractmethod
    def found(self, inputs: list[Tensor], image_size: tuple[int, int]) -> list[Found]:
        """Return what the head makes of pyramids (B, C, h, w) each, of inputs of this size: one entry for each image."""

    @abstractmethod
    def local(self, recording: PyramidRecording, rows: Tensor) -> Local | None:
        """Return the parts of the pyramid that predictions (D, k) depend on; None where they depend on all of it."""

    @abstractmethod
    def candidates(self, found: Found, confidences: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and classes that compete, (M,) each, given the confidences (N, classes) and which are enough."""

    def levels_read(self) -> tuple[int, ...]:
        """Return the numbers of the maps of the pyramid that detections come from."""
        return tuple(range(len(self.map_names)))

    # The image and the input

    def input_size(self, imgsz: tuple[int, int] | None) -> tuple[int, int]:
        """Return the shorter and the longer side that images are fitted into, whichever way they lie."""
        fixed = self.transform.fixed_size
        if fixed and imgsz not in (None, tuple(fixed[::-1])):
            raise UsageError(f"this model takes images of {fixed[1]} {fixed[0]} pixels alone; leave --imgsz out")
        return tuple(sorted(imgsz)) if imgsz else self.sides

    def prepare(self, image_rgb: np.ndarray, input_size: tuple[int, int]) -> tuple[Tensor, Letterbox]:
        """Return an image as the network's input, (1, 3, h, w), and how it lies in there, by the model's own transform.

        The values are 0..1, as they are before the mean of the training images is taken off; the padding is that mean.
        """
        check_wide_enough(image_rgb, max(input_size))
        resizing = copy(self.transform)
        resizing.min_size, resizing.max_size = (input_size[0],), input_size[1]
        batch, _ = resizing([as_input(image_rgb, self.device, torch.float32)[0]])
        mean, std = self._statistics(batch.tensors)
        size, content = tuple(batch.tensors.shape[2:]), tuple(map(int, batch.image_sizes[0]))
        pixels = (batch.tensors * std + mean).to(self.dtype)
        return pixels, Stretched(image_rgb.shape[:2], size, content, 0, 0)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation (3, 1, 1) of the images that the model was trained with."""
        values = (self.transform.image_mean, self.transform.image_std)
        return tuple(like.new_tensor(value)[:, None, None] for value in values)

    def see(self, image_rgb: np.ndarray, sight: Sight) -> Seen:
        """Prepare an image, uint8 (H, W, 3), and record its pass; of the detector that `borrowed` gives."""
        image, letterbox = self.prepare(image_rgb, sight.input_size)
        self.content = letterbox.content_size
        return Seen(self, self.record(image, sight.layers, sight.with_graph), letterbox)

    def content_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of what is no padding in an input of this size."""
        fits = self.content and all(part <= side for part, side in zip(self.content, image_size, strict=True))
        return self.content if fits else image_size

    # Forward

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Return the maps (B, C, h, w) that the backbone gives for images (B, 3, h, w; 0..1), from fine to coarse."""
        return list(self._maps(images).values())

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps that the backbone gives by their names; a single one is called 0."""
        mean, std = self._statistics(images)
        maps = self.model.backbone((images - mean) / std)
        return {"0": maps} if isinstance(maps, Tensor) else maps

    def forward(self, images: Tensor) -> Predictions:
        """Return the predictions (B, N), float32, for images (B, 3, h, w; 0..1); zeros where an image has fewer."""
        return as_batch([each.predictions for each in self.found(self.pyramid(images), tuple(images.shape[2:]))])

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> PyramidRecording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `PyramidRecording` lists of these layers.

        With a graph the first recorded layers are its leaves: nothing below them is recorded. It ends at the pyramid.
        """
        below = tuple(name for name in layers if not is_level(name))
        image, activations, inputs = self.watched(self.pyramid, image, below, with_graph)
        levels = [name for name in layers if is_level(name)]
        activations |= {name: usable_activation(name, inputs[int(name.removeprefix(LEVEL))]) for name in levels}
        with torch.no_grad():
            (found,) = self.found([tensor.detach() for tensor in inputs], tuple(image.shape[2:]))
        return PyramidRecording(
            image, found.predictions, activations, found.ends, head_inputs=tuple(inputs), found=found
        )

    def detect(
        self, recording: PyramidRecording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections, most confident first, and their boxes (D, 4) xyxy in input pixels, unclipped.

        As in torchvision one prediction may be several classes, and the boxes of each class, clipped to the image, suppress
        each other.
        """
        from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image, remove_small_boxes

        confidences = recording.predictions.confidences()
        chosen = confidences > suppression.conf_thres
        if suppression.classes:
            chosen &= torch.isin(torch.arange(chosen.shape[1]), torch.tensor(suppression.classes)).to(chosen.device)
        rows, classes = self.candidates(recording.found, confidences, chosen)
        boxes = box_convert(recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy")
        clipped = clip_boxes_to_image(boxes, letterbox.content_size)
        wide = remove_small_boxes(clipped, self.narrowest)
        rows, classes, boxes, clipped = rows[wide], classes[wide], boxes[wide], clipped[wide]
        sure = confidences[rows, classes]
        best = batched_nms(clipped, sure, classes, suppression.iou_thres)[: suppression.max_det]
        kept = Kept(rows[best], sure[best], classes[best], boxes[best])
        return kept.detections(recording, letterbox, self.names, self.strides), kept.boxes_xyxy

    # Scores

    def scores(self, recording: PyramidRecording, target: Target, *, at_head: bool = False) -> HeadScores:
        """Return the scores of a target, from the parts of the pyramid that they depend on, or from all of it."""
        parts = None if target.rows is None else self.local(recording, target.rows)
        if parts is not None:
            return LocalScores(self, recording, target, parts)
        return PyramidScores(self, recording, target, at_head=True)

    def head_inputs(self, images: Tensor, levels: list[int]) -> list[Tensor]:
        """Return the pyramid for images (B, 3, h, w)."""
        return self.pyramid(images)

    def above(self, recording: PyramidRecording, layer: str, levels: list[int]) -> Callable[[Tensor], list[Tensor]]:
        """Return how the pyramid follows from other activations (B, C, h, w) of a layer.

        The stages of the backbone before the one that holds the layer are not run: they give what was recorded of them.
        """
        stages = self.stages_before(layer)

        def pyramid(activations: Tensor) -> list[Tensor]:
            image = recording.image.detach().expand(len(activations), -1, -1, -1)
            lower = standing_in(self.model, stages, recording, len(activations))
            with lower, self.at_layer(layer, lambda output: activations):
                return self.pyramid(image)

        return pyramid

    # Layers

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The names of the parts of the backbone that are run one after the other, () where that is not known."""
        from torchvision.models._utils import IntermediateLayerGetter

        body = getattr(self.model.backbone, "body", None)
        return tuple(f"backbone.body.{name}" for name in body) if isinstance(body, IntermediateLayerGetter) else ()

    def stages_before(self, layer: str) -> tuple[str, ...]:
        """Return the stages that are run before the one that holds a layer."""
        own = [index for index, stage in enumerate(self.stages) if f"{layer}.".startswith(f"{stage}.")]
        return self.stages[: own[0]] if own else ()

    def needed_above(self, layer: str) -> tuple[str, ...]:
        """Return the stages below a layer whose outputs the pyramid is made of, and the one that it goes on from."""
        before = self.stages_before(layer)
        return tuple(stage for stage in before if stage in self.stages_read or stage == before[-1])

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place; at the head they stand for what the head alone makes of them.

        A level of the pyramid holds what is deep already, so that the neck is the level itself, and with the finest stage
        below the pyramid it makes the sharpest maps: on scenes where the evidence is known, deeper stages blur them.
        """
        own = [(f"{LEVEL}{level}",) for level in self.levels_read()]
        rules = {
            COARSEST: [own[-1]] * len(own),
            BACKBONE: [self.stages[-1:] or level for level in own],
            FINE_AND_DEEP: [(*self.stages_read[:1], *level) for level in own],
        }
        chosen = rules.get(place, own)
        return Layers(tuple(chosen), at_head=all(is_level(name) for names in chosen for name in names))

    @property
    def stages_read(self) -> tuple[str, ...]:
        """The stages that the pyramid is made of."""
        return tuple(f"backbone.body.{name}" for name in self.model.backbone.body.return_layers) if self.stages else ()

    def layers_called(self, requested: tuple[str | int, ...]) -> Layers:
        """Return the layers that a user names: levels of the pyramid, or modules below it."""
        levels = [f"{LEVEL}{level}" for level in range(len(self.map_names))]
        below = [name for name, _ in self.model.backbone.named_modules(prefix="backbone", remove_duplicate=False)]
        known = {name.replace(".", "_"): name for name in (*levels, *below)} | {
            name: name for name in (*levels, *below)
        }
        for entry in requested:
            if entry not in known:
                raise unknown("layer", entry, ("auto", *PLACES, *levels, f"module names such as {below[-1]}"))
        names = tuple(dict.fromkeys(known[entry] for entry in requested))
        return Layers((names,) * len(self.strides), at_head=all(map(is_level, names)))

    def layers_with_bias(self) -> tuple[str, ...]:
        """Refuse: the gradient behind the biases of a head that reads parts of the pyramid is not taken."""
        raise UsageError(
            "FullGrad reads the gradient behind every bias, and of this model only what lies below the pyramid is read; "
            "try --method LayerCAM"
        )

    def randomisable(self) -> dict[str, list[nn.Module]]:
        """Return the parts whose weights a sanity check shuffles, by stage: the heads, the pyramid, the backbone."""
        backbone = self.model.backbone
        heads = [module for name, module in self.model.named_children() if name not in ("backbone", "transform")]
        body, neck = getattr(backbone, "body", None), getattr(backbone, "fpn", None)
        stages = {
            "head": heads,
            "neck": [neck] if neck is not None else [],
            "all": [body if body is not None else backbone],
        }
        return {name: modules for name, modules in stages.items() if modules}

    @torch.no_grad()
    def _look_at_pyramid(self) -> tuple[tuple[str, ...], list[int], int]:
        """Return the names of the maps of the pyramid, and how many cells wide each is for an input of how many pixels.

        Nothing is computed: tensors without numbers go through a copy of the backbone.
        """
        side = max(self.transform.fixed_size or (LARGE,))
        skeleton = copy(self)
        skeleton.model = nn.Module()
        skeleton.model.backbone = deepcopy(self.model.backbone).eval().to("meta")
        maps = skeleton._maps(torch.zeros(1, 3, side, side, device="meta"))
        return tuple(maps), [each.shape[3] for each in maps.values()], side


@contextmanager
def standing_in(model: nn.Module, stages: tuple[str, ...], recording: Recording, batch: int) -> Iterator[None]:
    """Let stages of a backbone give what was recorded of them, for a whole batch, instead of being run."""
    modules = [model.get_submodule(name) for name in stages]
    for name, module in zip(stages, modules, strict=True):
        # What nothing reads is passed on as it came.
        known = recording.activations.get(name)
        module.forward = (lambda x: x) if known is None else repeated(known.detach(), batch)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def repeated(known: Tensor, batch: int) -> Callable[[Tensor], Tensor]:
    """Return a forward pass that gives the same for any input: a tensor (1, ...), for each image of a batch."""
    return lambda x: known.expand(batch, *known.shape[1:])


def labels_and_names(model: nn.Module, count: int) -> tuple[Tensor, dict[int, str]]:
    """Return torchvision's label of each class, without the background, and the names of the classes.

    The names are those that the model brings as `names`. A model that knows 91 labels, and no other names for 90 classes, is
    taken for one trained on COCO: of its labels, those that COCO gave up are left out, so that the classes are the usual 80.
    """
    given, usual = getattr(model, "names", None), coco_labels()
    if count == len(coco_categories()) and (given is None or len(given) == len(usual)):
        return torch.tensor(list(usual)), names_by_index(given or list(usual.values()), len(usual))
    return torch.arange(1, count), names_by_index(given, count - 1)


def coco_labels() -> dict[int, str]:
    """Return the labels that COCO's objects have, with their names."""
    return {label: name for label, name in enumerate(coco_categories()) if label and name != "N/A"}


def coco_categories() -> list[str]:
    """Return the names of COCO's labels, the background first, as torchvision's weights have them."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    return FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


def corners_to_centres(boxes_xyxy: Tensor) -> Tensor:
    """Return boxes (..., 4) by their centre and size, given by their corners."""
    low, high = boxes_xyxy.split(2, dim=-1)
    return torch.cat(((low + high) / 2, high - low), dim=-1)
