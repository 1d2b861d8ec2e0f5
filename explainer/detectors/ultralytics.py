"""Detectors of the ultralytics package that predict at cells: YOLOv8 and what followed, YOLOv5u and YOLOv3u.

Their predictions have no objectness: how sure they are of an object is the probability of its class. A Detect head predicts
one box at each cell of each of its inputs, as distances of its sides from the cell's centre. Boxes and classes come from
branches of their own, each with a few 3x3 convolutions, so that a prediction depends on some cells around its own.
Dual heads have a second pair of branches that give each object one prediction and need no suppression; which pair counts is
what the model itself says (`model.end2end`).

This module imports nothing of that package: a model brings its own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from explainer.checkpoints.repair import names_by_index
from explainer.detectors.detector import FINE_AND_DEEP, IMAGE, NECK, Layers, Place, Scores, Suppression
from explainer.detectors.head import HeadScores
from explainer.detectors.layers import Structure
from explainer.detectors.local import (
    Found,
    LocalScores,
    PyramidRecording,
    PyramidScores,
    Windows,
    looks_at_all,
    reach,
)
from explainer.detectors.numbered import Numbered
from explainer.detectors.predictions import Detection, Kept, Predictions, Recording, Target
from explainer.detectors.prototypes import LatePrototypes, ReadsMasks, has_prototypes
from explainer.detectors.pyramid import corners_to_centres
from explainer.detectors.white_box import (
    Twin,
    adds_bias,
    in_full,
)
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox

# An input's sides are multiples of so many pixels, though a head's strides may all be smaller.
SMALLEST_STRIDE = 32
# Classes are moved apart by so many pixels, so that boxes suppress those of their own class alone.
BETWEEN_CLASSES = 7680
MOST_CANDIDATES = 30_000
NO_MASKS_INSIDE = (
    "this method reads layers inside the head, where masks are not followed; leave --backprop-array mask out, or take "
    "another --method, such as GradCAM"
)

# Predictions (R,) int64, their confidences and their classes int64, most confident first.
Candidates = tuple[Tensor, Tensor, Tensor]


class Ultralytics(Numbered):
    """A model whose head predicts at cells: Detect, with a distribution for each side or without, dual or not.

    structure  of the numbered layers
    head       the last of them
    norms      the normalisations of the model; most are fused with what is before them
    """

    # A detection stands for its own prediction alone.
    own_rows = True

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self._find_structure()
        self.names = names_by_index(getattr(self.model, "names", None), self.head.nc)
        self.strides = self._strides()
        self.stride = max(SMALLEST_STRIDE, *(stride or 0 for stride in self.strides))
        self.predicts_masks = has_prototypes(self.head)
        self.anchors_per_cell = (1,) * len(self.strides)
        # Whether windows give what the whole maps give; None until it was looked at.
        self._windows_are_exact = False if any(map(looks_at_all, self.head.modules())) else None

    def _find_structure(self) -> None:
        """Look at the layers of the model."""
        self.norms = tuple(module for module in self.modules if isinstance(module, nn.BatchNorm2d))
        self.structure = Structure(self.model)
        self.structures, self.head = [self.structure], self.structure.head
        # The forward pass of the model itself is never run.
        self.passes = (*self.structure.layers[:-1], *self._parts_of_head())

    def _parts_of_head(self) -> tuple[nn.Module, ...]:
        """Return the modules that the head is run by."""
        return tuple(branch for name in self.branches.values() for branch in getattr(self.head, name))

    def _strides(self) -> tuple[int | None, ...]:
        """Return the pixels of the input per cell of each level."""
        return tuple(int(stride) for stride in self.structure.strides)

    def forward(self, images: Tensor) -> Predictions:
        """Return the predictions (B, N), float32, for images (B, 3, h, w; 0..1), differentiable where gradients are on."""
        with plain_gradients(self.norms):
            return self.of_features(self.read_by_head(images), images.shape[2:])

    def read_by_head(self, images: Tensor) -> list[Tensor]:
        """Return the inputs of the head (B, C, h, w) for images (B, 3, h, w; 0..1)."""
        return self.head_inputs(images, list(range(len(self.structure.sources))))

    def of_features(self, features: list[Tensor], input_size: tuple[int, int]) -> Predictions:
        """Return the predictions (B, N) that the head makes of its inputs (B, C, h, w), for an image of this size.

        The head's own forward pass is left out: it decodes both branches of a dual head, and keeps its grid from the image
        before, which may stem from inference mode. What it predicts is the same.
        """
        return self._at_all_cells(features, squares_of_cells(features, self.strides))

    def _at_all_cells(self, features: list[Tensor], squares: Tensor) -> Predictions:
        """Return the predictions (B, N) that the head makes of its inputs (B, C, h, w) with cells at `squares` (N, 4)."""
        by_level = [self.head_at(level, tensor) for level, tensor in enumerate(features)]
        # Side by side as the branches give them: channels in front.
        together = {name: torch.cat([each[name].mT for each in by_level], dim=2).mT for name in by_level[0]}
        return self.read(together, squares)

    def head_at(self, level: int, maps: Tensor) -> dict[str, Tensor]:
        """Return what the branches make of one input of the head (B, C, h, w): (B, h w, columns) by what they give."""
        return {name: self.branch_at(name, level, maps) for name in self.branches}

    def branch_at(self, name: str, level: int, maps: Tensor) -> Tensor:
        """Return what one branch makes of one input of the head (B, C, h, w): (B, h w, columns)."""
        with plain_gradients(self.norms):
            return getattr(self.head, self.branches[name])[level](maps).flatten(2).mT

    def read(self, outputs: dict[str, Tensor], origins: Tensor) -> Predictions:
        """Return the predictions (B, ...) of what branches give, (B, ..., columns), at cells (..., 4) xyxy in pixels.

        Where the branch of the sides was not run the boxes are the cells.
        """
        probabilities, sides = in_full(outputs["logits"]).sigmoid(), outputs.get("sides")
        if sides is None:
            return Predictions(corners_to_centres(origins).expand(*probabilities.shape[:-1], 4), None, probabilities)
        distances = in_full(self.head.dfl(sides.flatten(1, -2).mT)).mT.unflatten(1, sides.shape[1:-1])
        # In cells, from the centre of the cell to the left, the top, the right and the bottom.
        top_left, bottom_right = distances.split(2, dim=-1)
        strides = origins[..., 2:] - origins[..., :2]
        middle = (origins[..., :2] + origins[..., 2:]) / 2 / strides + (bottom_right - top_left) / 2
        boxes_xywh = torch.cat((middle * strides, (top_left + bottom_right) * strides), dim=-1)
        return Predictions(boxes_xywh, None, probabilities)

    @property
    def end_to_end(self) -> bool:
        """Whether the model takes the branches that need no suppression."""
        return bool(getattr(self.head, "end2end", False))

    @property
    def prefix(self) -> str:
        """How the names of the branches that count begin."""
        return "one2one_" if self.end_to_end else ""

    @property
    def branches(self) -> dict[str, str]:
        """The attributes of the head that hold its branches, a list with one for each level, by what they give."""
        return {"sides": f"{self.prefix}cv2", "logits": f"{self.prefix}cv3"}

    def reads_windows(self, layers: tuple[str, ...]) -> bool:
        """Return whether scores can be taken from the head's inputs alone: no layer of the head is to be read."""
        return not any(name.startswith(f"{self.structure.head_name}.") for name in layers)

    def found(self, inputs: list[Tensor], image_size: tuple[int, int]) -> list[Found]:
        """Return what the head makes of its inputs (B, C, h, w), for images of this size: one entry for each."""
        squares = squares_of_cells(inputs, self.strides)
        ends = tuple(accumulate(tensor.shape[2] * tensor.shape[3] for tensor in inputs))
        return [Found(each, ends, squares) for each in self._at_all_cells(inputs, squares)]

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `PyramidRecording` lists of these layers.

        With a graph the first recorded layers are its leaves: nothing below them is recorded. It ends at the head, unless
        layers of the head are read themselves.
        """
        if not self.reads_windows(layers):
            return super().record(image, layers, with_graph)
        with plain_gradients(self.norms):
            image, activations, inputs = self.watched(self.read_by_head, image, layers, with_graph)
        with torch.no_grad():
            (found,) = self.found([tensor.detach() for tensor in inputs], tuple(image.shape[2:]))
        return PyramidRecording(
            image, found.predictions, activations, found.ends, head_inputs=tuple(inputs), found=found
        )

    def scores(self, recording: Recording, target: Target, *, at_head: bool = False) -> Scores:
        """Return the scores of a target: from windows around the cells that they depend on, or from all cells."""
        if target.reads_masks and self.predicts_masks:
            if not isinstance(recording, PyramidRecording):
                raise UsageError(NO_MASKS_INSIDE)
            return PrototypeScores(self, recording, target, at_head=at_head)
        if not isinstance(recording, PyramidRecording):
            return super().scores(recording, target, at_head=at_head)
        if target.rows is None or not self._are_windows_exact(recording, target.rows):
            return PyramidScores(self, recording, target, at_head=at_head)
        kind = Windows if target.reads_boxes else ClassWindows
        return WindowScores(self, recording, target, kind(self, recording, target.rows))

    def _are_windows_exact(self, recording: PyramidRecording, rows: Tensor) -> bool:
        """Return whether predictions depend on the cells around their own alone, seen once at predictions (D, k)."""
        if self._windows_are_exact is None:
            self._windows_are_exact = Windows(self, recording, rows).are_exact()
        return self._windows_are_exact

    def of_masks(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return coefficients (B, N, nm) and prototypes (B, nm, h', w') of masks, given the head's inputs (B, C, h, w)."""
        branches = getattr(self.head, f"{self.prefix}cv4")
        with plain_gradients(self.norms):
            parts = [branch(tensor).flatten(2) for branch, tensor in zip(branches, features, strict=True)]
            maps = self.head.proto(features if reads_all_levels(self.head.proto) else features[0])
        return torch.cat(parts, dim=2).mT, maps

    @torch.no_grad()
    def prototypes(self, recording: Recording) -> LatePrototypes:
        """Return what the masks of a recorded image are made of."""
        known = isinstance(recording, PyramidRecording)
        inputs = recording.head_inputs if known else self.read_by_head(recording.image)
        coefficients, maps = self.of_masks([tensor.detach() for tensor in inputs])
        return LatePrototypes(coefficients[0].float(), maps[0].float())

    def masks(self, recording: Recording, letterbox: Letterbox, detections: list[Detection]) -> list[np.ndarray | None]:
        """Return which pixels of the image each detection covers: bool (H, W), None where the model does not say."""
        from torchvision.ops import box_convert

        if not self.predicts_masks or not any(found.was_predicted for found in detections):
            return super().masks(recording, letterbox, detections)
        prototypes, rows = self.prototypes(recording), [found.row for found in detections]
        boxes = box_convert(recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy").float().cpu().numpy()
        return [
            prototypes.mask(found.row, box, letterbox) if found.was_predicted else None
            for found, box in zip(detections, boxes, strict=True)
        ]

    def levels_of(
        self, recording: Recording, detections: list[Detection], items: tuple[str, ...]
    ) -> list[tuple[int, ...]]:
        """Return the levels that the items of each detection are read from: of a mask also the finest, of the prototypes."""
        own = super().levels_of(recording, detections, items)
        return (
            [tuple(dict.fromkeys((*levels, 0))) for levels in own] if "mask" in items and self.predicts_masks else own
        )

    def radius(self, level: int) -> int:
        """Return how many cells around its own a prediction of a level depends on."""
        return max(reach(getattr(self.head, branches)[level]) for branches in self.branches.values())

    def level_ends(self, predictions: Predictions) -> tuple[int, ...]:
        """Return for each level the index after its last prediction.

        An input's sides are multiples of the largest stride, so that the numbers of cells are as the strides say.
        """
        count, shares = len(predictions.boxes_xywh), [stride**-2 for stride in self.strides]
        return tuple(round(count * share / sum(shares)) for share in accumulate(shares))

    def detect(
        self, recording: Recording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections, most confident first, and their boxes (D, 4) xyxy in input pixels, unclipped.

        They are those of the package's own predictor: of its suppression, or of the choice of an end-to-end head.
        """
        from torchvision.ops import box_convert, nms

        rows, confidences, classes = self.candidates(recording.predictions, suppression.conf_thres)
        chosen = confidences > suppression.conf_thres
        if suppression.classes:
            chosen &= torch.isin(classes, classes.new_tensor(suppression.classes))
        rows, confidences, classes = rows[chosen], confidences[chosen], classes[chosen]
        boxes = box_convert(recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy")
        best = slice(suppression.max_det)
        if not self.end_to_end:
            best = nms(boxes + classes[:, None] * BETWEEN_CLASSES, confidences, suppression.iou_thres)[best]
        kept = Kept(rows[best], confidences[best], classes[best], boxes[best])
        return kept.detections(recording, letterbox, self.names, self.strides), kept.boxes_xyxy

    def candidates(self, predictions: Predictions, threshold: float) -> Candidates:
        """Return what may become a detection by a threshold; of an end-to-end head, which counts, as many as it gives."""
        if self.end_to_end:
            return surest_pairs(predictions.probabilities, self.head.max_det)
        return surest(predictions.probabilities, threshold, MOST_CANDIDATES)

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place; at the head, too, a score is differentiated through the graph of the network.

        The head looks at some cells around each prediction's own, so that its input is no worse a place than the neck's
        first block, and with the finest layer of the backbone that the neck takes it makes the sharpest maps: on scenes
        where the evidence is known, deep layers blur them.
        """
        if place not in (NECK, FINE_AND_DEEP):
            return replace(super().layers_at(place), at_head=False)
        fine = self.structure.first_skip if place == FINE_AND_DEEP else ()
        named = [tuple(map(self.structure.name, (*fine, source))) for source in self.structure.sources]
        return Layers(tuple(named))

    def layers_with_bias(self) -> tuple[str, ...]:
        """Return the image and the names of all layers that add a bias to what the predictions depend on."""
        head = f"{self.structure.head_name}."
        read = tuple(f"{head}{name}." for name in self.branches.values())
        adding = (name for name, module in self.model.named_modules() if adds_bias(module))
        return (IMAGE, *(name for name in adding if not name.startswith(head) or name.startswith(read)))

    def twin(self) -> Twin:
        """Return a new twin, with a structure around its own modules."""
        twin = super().twin()
        twin.detector._find_structure()
        return twin


class ClassWindows(Windows):
    """Windows of which the classes alone are read."""

    def head_at(self, level: int, windows: Tensor) -> dict[str, Tensor]:
        """Return what the branch of the classes makes of windows (B', C, a, b) of one level."""
        return {"logits": self.detector.branch_at("logits", level, windows)}


class WindowScores(LocalScores):
    """Scores of cells, from windows around them; layers below the head are behind these in one graph."""

    def curvatures(self, index: int, layers: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient of one score at each layer, and the product of its Hessian and the activations."""
        return HeadScores.curvatures(self, index, layers)


class PrototypeScores(ReadsMasks, PyramidScores):
    """Scores that read masks, through the whole head."""

    @cached_property
    def prototypes(self) -> LatePrototypes:
        """What the masks of the recorded image are made of."""
        return self.detector.prototypes(self.recording)

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the head's inputs give."""
        batch = max(len(tensor) for tensor in features)
        maps = [tensor.expand(batch, -1, -1, -1) for tensor in features]
        predictions = self.detector.of_features(maps, tuple(self.recording.image.shape[2:]))
        return self.with_masks(predictions, *self.detector.of_masks(maps))


@contextmanager
def plain_gradients(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Have what normalisations give, for the time of the context, hand on gradients in plain order of memory.

    Where an attention reads a map as tokens, their gradient comes back with the channels of a cell side by side. Of one image
    torch (2.14 on a CPU) then takes the wrong numbers for that of a normalisation by fixed statistics.
    """

    def watch(module: nn.Module, args: tuple, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(Tensor.contiguous)

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_hook(watch).remove)
        yield


def reads_all_levels(proto: nn.Module) -> bool:
    """Return whether what makes the prototypes reads all inputs of the head, not the finest alone."""
    return hasattr(proto, "feat_refine")


def surest(probabilities: Tensor, threshold: float, most: int) -> Candidates:
    """Return the predictions that are surer than a threshold, the surest `most` of them, each with its best class.

    probabilities: (N, classes)
    """
    best = probabilities.amax(dim=1)
    rows = (best > threshold).nonzero()[:, 0]
    confidences, order = best[rows].sort(descending=True, stable=True)
    rows = rows[order[:most]]
    return rows, confidences[:most], probabilities[rows].argmax(dim=1)


def surest_pairs(probabilities: Tensor, most: int) -> Candidates:
    """Return the `most` pairs of a prediction and a class that are surest, as heads without suppression choose them.

    probabilities: (N, classes). Only the `most` predictions that are surest of any class are looked at; one can come with
    several classes.
    """
    rows = probabilities.amax(dim=1).topk(min(most, len(probabilities))).indices
    confidences, pairs = probabilities[rows].flatten().topk(len(rows))
    count = probabilities.shape[1]
    return rows[pairs // count], confidences, pairs % count


def squares_of_cells(features: list[Tensor], strides: tuple[int, ...]) -> Tensor:
    """Return where the cells of maps (B, C, h, w) lie: (N, 4) xyxy in input pixels, level by level and row by row."""
    squares = []
    for tensor, stride in zip(features, strides, strict=True):
        y, x = (torch.arange(side, dtype=in_full(tensor[:0]).dtype, device=tensor.device) for side in tensor.shape[2:])
        corners = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        squares.append(torch.cat((corners, corners + 1), dim=1) * stride)
    return torch.cat(squares)
