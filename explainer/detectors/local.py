"""Scores that follow from a pyramid of maps: through the whole head, or from the few parts of it that they depend on.

The score of a region reads the region alone, that of an anchor a window of cells around its own. Where a head can be run on
such parts, one backward pass of it gives the gradients of all scores at once, and taking a channel from a map is taking it
from them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.detector import Rerun
from explainer.detectors.head import CELLS_AT_ONCE, HeadGradient, HeadScores
from explainer.detectors.predictions import Predictions, Recording, Target
from explainer.detectors.white_box import WhiteBox
from explainer.errors import UsageError

# What the levels of a pyramid are called, before their number.
LEVEL = "pyramid."
# What a window gives may differ by so much from what the whole map gave, in rounding: at least, and in steps of the numbers.
ROUNDING, STEPS = 1e-3, 20


@dataclass(frozen=True)
class Found:
    """What a head makes of one image.

    predictions  N of them, ordered by level
    ends         for each level, the index after the last of its predictions
    origins      (N, 4) float32, the region or anchor that each prediction starts from, xyxy in input pixels
    labels       (N,) int64, of regions, which have a box for each class: the class whose box it is; else None
    """

    predictions: Predictions
    ends: tuple[int, ...]
    origins: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PyramidRecording(Recording):
    """A recording of a detector with a pyramid.

    head_inputs  the pyramid, (1, C, h, w) each; the activations have a graph up to it
    found        what the head made of it
    """

    head_inputs: tuple[Tensor, ...]
    found: Found


class Local:
    """The parts of the pyramid that some predictions depend on, cut out and run by themselves.

    rows      (D, k) int64, the predictions
    of_level  for each map of the pyramid, which of the R = D k parts lie in it: int64 (R_l,)
    """

    rows: Tensor
    of_level: list[Tensor]

    @property
    def owners(self) -> list[Tensor]:
        """Which of the D scores each part of each map counts for."""
        return [numbers // self.rows.shape[1] for numbers in self.of_level]

    @abstractmethod
    def cut(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the parts (B, R_l, C, a, b) of each map (B or 1, C, h, w) of a pyramid; of those without any (B, 0, ...)."""

    @abstractmethod
    def predictions(self, parts: list[Tensor]) -> Predictions:
        """Return the predictions (B, D, k) that the head makes of parts."""

    @abstractmethod
    def spread(self, level: int, numbers: Tensor, gradients: Tensor) -> Tensor:
        """Return as a map (1, C, h, w) what was found at parts: (R', C, a, b) at those of a level with these numbers."""


class PyramidScores(HeadScores):
    """Scores that depend on all of the pyramid, through the whole head."""

    recording: PyramidRecording

    @property
    def values(self) -> Tensor:
        """What the target gives for the image as it is, (D,)."""
        return self._graph[0].detach()

    @property
    def levels(self) -> list[int]:
        """The numbers of the maps that the scores depend on: all."""
        return list(range(len(self.recording.head_inputs)))

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the maps as they are."""
        return list(inputs)

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that a pyramid gives."""
        batch = max(len(tensor) for tensor in features)
        maps = [tensor.expand(batch, -1, -1, -1) for tensor in features]
        found = self.detector.found(maps, tuple(self.recording.image.shape[2:]))
        return self.target.of(as_batch([each.predictions for each in found]))

    @cached_property
    def _graph(self) -> tuple[Tensor, list[Tensor]]:
        """The scores (D,) with their graph, and its leaves: the pyramid."""
        leaves = [tensor.detach().requires_grad_() for tensor in self.recording.head_inputs]
        with torch.enable_grad():
            return self.of_features(leaves)[0], leaves

    def head_gradient(self, index: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each map, None where it is zero."""
        scores, leaves = self._graph
        found: HeadGradient = [None] * len(leaves)
        read = self._read_by(index)
        gradients = torch.autograd.grad(
            scores[index], [leaves[level] for level in read], retain_graph=True, allow_unused=True
        )
        for level, gradient in zip(read, gradients, strict=True):
            if gradient is not None and gradient.any():
                found[level] = gradient
        return found

    @cached_property
    def _counting(self) -> Tensor | None:
        """Which predictions count for a score, (D, k) bool at the target's rows; None where that cannot be told."""
        target = self.target
        if target.rows is None or target.with_slopes is None or target.reads_masks:
            return None
        slopes = target.with_slopes(self.recording.predictions.at(target.rows))[1]
        counting = slopes.boxes_xywh.any(dim=-1) | slopes.probabilities.any(dim=-1)
        return counting if slopes.objectness is None else counting | (slopes.objectness != 0)

    def _read_by(self, index: int) -> list[int]:
        """Return the maps that a score is differentiated by: those that predict what counts for it, else all."""
        ends = self.recording.ends
        if self._counting is None or len(ends) != len(self.levels):
            return self.levels
        rows = self.target.rows[index][self._counting[index]]
        return torch.bucketize(rows, rows.new_tensor(ends), right=True).unique().tolist()


class LocalScores(HeadScores):
    """Scores that depend on a few parts of the pyramid, taken from those alone.

    Each score reads parts of its own, so that one backward pass of the head gives the gradients of all of them.
    """

    recording: PyramidRecording

    def __init__(self, detector: WhiteBox, recording: PyramidRecording, target: Target, parts: Local):
        super().__init__(detector, recording, target, at_head=True)
        self.parts, self._owners = parts, parts.owners

    @property
    def values(self) -> Tensor:
        """What the target gives for the image as it is, (D,)."""
        return self.baseline

    @cached_property
    def baseline(self) -> Tensor:
        """What the head gives for the parts as they are, (D,)."""
        return self._graph[0].detach()

    @cached_property
    def _graph(self) -> tuple[Tensor, list[Tensor]]:
        """The scores (D,) with their graph, and its leaves: the parts of each map."""
        leaves = [part.detach().requires_grad_() for part in self.base]
        with torch.enable_grad():
            return self.of_features(leaves)[0], leaves

    @property
    def levels(self) -> list[int]:
        """The numbers of the maps that the scores depend on."""
        return [level for level, numbers in enumerate(self.parts.of_level) if len(numbers)]

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the parts (B, R_l, C, a, b) of each map."""
        return self.parts.cut(list(inputs))

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that parts give."""
        return self.target.score(self.parts.predictions(features))

    @cached_property
    def _at_parts(self) -> list[Tensor]:
        """The gradient of the scores at the parts of each map, (R_l, C, a, b)."""
        scores, leaves = self._graph
        gradients = torch.autograd.grad(scores.sum(), leaves, retain_graph=True, materialize_grads=True)
        return [each[0] for each in gradients]

    def head_gradient(self, index: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each map of the pyramid, None where it is zero."""
        return [
            self._spread(level, index, self._at_parts[level]) if index in several else None
            for level, several in enumerate(self._scores_of_levels)
        ]

    @cached_property
    def _scores_of_levels(self) -> list[set[int]]:
        """The scores that depend on each map."""
        return [set(owners.tolist()) for owners in self._owners]

    def _spread(self, level: int, index: int, at_parts: Tensor) -> Tensor | None:
        """Return as a map (1, C, h, w) what was found at the parts of one score in a level; None if it is zero there."""
        own = self._owners[level] == index
        of_score = at_parts[own]
        return self.parts.spread(level, self.parts.of_level[level][own], of_score) if of_score.any() else None

    @cached_property
    def _curvature_at_parts(self) -> list[tuple[Tensor, Tensor]]:
        """The gradient at the parts of each map, and the product of the Hessian and the parts."""
        scores, leaves = self._graph
        slopes = torch.autograd.grad(scores.sum(), leaves, create_graph=True, materialize_grads=True)
        known = [slope if slope.requires_grad else slope.detach().requires_grad_() for slope in slopes]
        products = torch.autograd.grad(
            known, leaves, [leaf.detach() for leaf in leaves], retain_graph=True, materialize_grads=True
        )
        return [(slope.detach()[0], product[0]) for slope, product in zip(slopes, products, strict=True)]

    def curvatures(self, index: int, layers: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient of one score at each level of the pyramid, and the product of its Hessian and the activations.

        To cut out a part is linear, so that both are those at the parts, put back. UsageError for layers below the pyramid.
        """
        found = []
        for name in layers:
            if not is_level(name):
                raise UsageError(
                    f"layer '{name}': second derivatives of this model are known at its pyramid alone; "
                    f"try --layer {LEVEL}{self.levels[0]}"
                )
            level = int(name.removeprefix(LEVEL))
            maps = [self._spread(level, index, each) for each in self._curvature_at_parts[level]]
            like = self.recording.head_inputs[level]
            found.append(tuple(np.zeros(like.shape, np.float32) if each is None else as_float(each) for each in maps))
        return found

    @torch.no_grad()
    def rerun(self, layer: str) -> Rerun:
        """Return what lies above a layer; of a level of the pyramid, the head alone."""
        if not is_level(layer):
            return super().rerun(layer)
        level = int(layer.removeprefix(LEVEL))
        # Channels in front, as in any layer's activations.
        at_once = max(1, CELLS_AT_ONCE // max(1, self.base[level].shape[1]))
        return Rerun(
            self.base[level].transpose(1, 2), at_once, lambda parts: self._at_level(level, parts.transpose(1, 2))
        )


class Windows(Local):
    """Windows of cells around those that predict, inside the map, so that its border is where it was."""

    def __init__(self, detector: WhiteBox, recording: PyramidRecording, rows: Tensor):
        self.detector, self.recording, self.rows = detector, recording, rows
        flat, inputs = rows.flatten(), recording.head_inputs
        self.origins = recording.found.origins[flat]
        ends = torch.tensor(recording.ends, device=rows.device)
        levels = torch.bucketize(flat, ends, right=True)
        self.of_level = [(levels == level).nonzero()[:, 0] for level in range(len(inputs))]
        starts = [0, *recording.ends[:-1]]
        self.places = [
            self._places(level, flat[numbers] - starts[level]) for level, numbers in enumerate(self.of_level)
        ]

    def _places(self, level: int, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return for predictions of a level the rows (R, a) and columns (R, b) of windows, and their places there."""
        count, (height, width) = self.detector.anchors_per_cell[level], self.recording.head_inputs[level].shape[2:]
        cell, anchor = numbers // count, numbers % count
        radius = self.detector.radius(level)
        y, ys = window(cell // width, radius, height)
        x, xs = window(cell % width, radius, width)
        return ys, xs, (y * xs.shape[1] + x) * count + anchor

    def cut(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the parts (B, R_l, C, a, b) of each map (B or 1, C, h, w) of a pyramid; of those without any (B, 0, ...)."""
        batch = max(len(each) for each in inputs)
        return [
            each.expand(batch, -1, -1, -1)[:, :, ys[:, :, None], xs[:, None, :]].transpose(1, 2)
            for each, (ys, xs, _) in zip(inputs, self.places, strict=True)
        ]

    def predictions(self, parts: list[Tensor]) -> Predictions:
        """Return the predictions (B, D, k) that the head makes of parts."""
        batch, outputs = max(len(each) for each in parts), []
        for level, part in enumerate(parts):
            if part.shape[1]:
                outputs.append(self._outputs(level, part.expand(batch, *part.shape[1:])))
        order = torch.cat(self.of_level).argsort()
        together = {name: torch.cat([each[name] for each in outputs], dim=1)[:, order] for name in outputs[0]}
        return self.detector.read({name: each.unflatten(1, self.rows.shape) for name, each in together.items()},
                                  self.origins.unflatten(0, self.rows.shape))  # fmt: skip

    def _outputs(self, level: int, windows: Tensor) -> dict[str, Tensor]:
        """Return what the head makes of windows (B, R_l, C, a, b) of one level: (B, R_l, columns) by name."""
        own, batch = self.places[level][2], len(windows)
        outputs = self.head_at(level, windows.flatten(0, 1))
        each = torch.arange(batch * len(own), device=own.device)
        return {name: found[each, own.repeat(batch)].unflatten(0, (batch, -1)) for name, found in outputs.items()}

    def head_at(self, level: int, windows: Tensor) -> dict[str, Tensor]:
        """Return what the head makes of windows (B', C, a, b) of one level: (B', a b A, ...) by name."""
        return self.detector.head_at(level, windows)

    def spread(self, level: int, numbers: Tensor, gradients: Tensor) -> Tensor:
        """Return as a map (1, C, h, w) what was found at parts: (R', C, a, b) at those of a level with these numbers."""
        own = (self.of_level[level][:, None] == numbers).any(dim=1)
        ys, xs, _ = self.places[level]
        # A map of plain layout, whatever that of the network is.
        spread = torch.zeros(
            self.recording.head_inputs[level].shape[1:], dtype=gradients.dtype, device=gradients.device
        )
        spread.permute(1, 2, 0).index_put_(
            (ys[own][:, :, None], xs[own][:, None, :]), gradients.permute(0, 2, 3, 1), True
        )
        return spread[None]

    @torch.no_grad()
    def are_exact(self) -> bool:
        """Return whether the windows alone give the predictions that the whole maps gave."""
        alone = self.predictions(self.cut([each.detach() for each in self.recording.head_inputs]))[0]
        whole = self.recording.predictions.at(self.rows)
        pairs = ((alone.probabilities, whole.probabilities), (alone.boxes_xywh, whole.boxes_xywh))
        rounding = max(ROUNDING, STEPS * torch.finfo(self.recording.head_inputs[0].dtype).eps)
        return all(torch.allclose(one, other, rtol=rounding, atol=rounding) for one, other in pairs)


def window(centre: Tensor, radius: int, side: int) -> tuple[Tensor, Tensor]:
    """Return where cells (R,) lie in windows around them that stay inside a side, and the cells (R, n) of the windows."""
    length = min(2 * radius + 1, side)
    first = (centre - radius).clamp(0, side - length)
    return centre - first, first[:, None] + torch.arange(length, device=centre.device)


def reach(module: nn.Module) -> int:
    """Return how many cells to each side the convolutions of a module look, one after the other, at most."""
    kernels = [each for each in module.modules() if isinstance(each, nn.Conv2d)]
    return sum((each.kernel_size[0] - 1) // 2 * each.dilation[0] for each in kernels)


def looks_at_all(module: nn.Module) -> bool:
    """Return whether a module mixes all cells of a map."""
    return isinstance(module, (nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.AdaptiveAvgPool2d))


def is_level(layer: str) -> bool:
    """Return whether a layer is a level of the pyramid, not a module below it."""
    return layer.startswith(LEVEL)


def as_batch(several: list[Predictions]) -> Predictions:
    """Return the predictions of some images as those of a batch (B, N): images with fewer have zeros behind theirs."""
    most = max(len(each.boxes_xywh) for each in several)

    def of_all(tensors: list[Tensor]) -> Tensor:
        return torch.stack([
            torch.cat((each, each.new_zeros((most - len(each), *each.shape[1:])))) if len(each) < most else each
            for each in tensors
        ])  # fmt: skip

    certain = None if several[0].objectness is None else of_all([each.objectness for each in several])
    return Predictions(
        of_all([each.boxes_xywh for each in several]), certain, of_all([each.probabilities for each in several])
    )


def as_float(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()
