"""YOLOv5's Detect head run again from its inputs: at the few cells that a score reads, or as a whole.

The head is a 1x1 convolution followed by a decoding cell by cell, so a score that reads k predictions depends on at most k
cells of the head's inputs. `CellScores` computes it from those alone. `WholeScores` runs the head's own forward pass: for
scores that read every prediction, and for heads that are built differently. Both read inputs (B, C, h, w), one for each
level, where B may be 1 for inputs that all items of a batch share.

A head predicts from each cell of each of its inputs, once for each anchor. Predictions are ordered by head input, then
anchor, then y, then x.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from explainer.detectors.detector import Rerun, Scores
from explainer.detectors.layers import Level
from explainer.detectors.predictions import Predictions, Recording, Target
from explainer.detectors.white_box import WhiteBox, curvatures, images_at_once

# So many variants of single cells make a batch: they are small.
CELLS_AT_ONCE = 64

# The gradient (1, C, h, w) of one score at each head input, None where it is zero.
HeadGradient = list[Tensor | None]


@dataclass(frozen=True, kw_only=True)
class HeadRecording(Recording):
    """A recording of a model with a Detect head.

    raw          (N, 5 + classes) the predictions as rows
    head_inputs  the tensors (1, C, h, w) that the heads read, one for each level; the activations have a graph up to them
    in_head      the names of layers inside the heads that are to be read: their gradients come from the heads' own pass
    """

    raw: Tensor
    head_inputs: tuple[Tensor, ...]
    in_head: tuple[str, ...] = ()


class HeadScores(Scores):
    """Scores as functions of the head's inputs: what both kinds share.

    detector knows the head, and how its inputs follow from images and from layers below: `head_inputs` and `above`
    at_head  whether layers that feed the head count for what the head alone makes of them
    levels   the numbers of the head inputs that the scores depend on
    """

    recording: HeadRecording
    levels: list[int]

    def __init__(self, detector: WhiteBox, recording: HeadRecording, target: Target, *, at_head: bool = False):
        self.detector, self.recording, self.target, self.at_head = detector, recording, target, at_head

    @property
    def at_once(self) -> int:
        """How many images of this size a batch should hold."""
        return images_at_once(self.recording.image)

    @property
    def features_at_once(self) -> int:
        """How many variants of what counts of the head's inputs a batch should hold."""
        return CELLS_AT_ONCE

    @abstractmethod
    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return of the head's inputs what counts."""

    @abstractmethod
    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that selected features of the head's inputs give."""

    @abstractmethod
    def head_gradient(self, index: int) -> HeadGradient:
        """Return the gradient of one score at each head input."""

    @cached_property
    def base(self) -> list[Tensor]:
        """What counts of the recorded inputs."""
        return self.select([tensor.detach() for tensor in self.recording.head_inputs])

    @cached_property
    @torch.no_grad()
    def baseline(self) -> Tensor:
        """What the head gives for its recorded inputs, (D,)."""
        return self.of_features(self.base)[0]

    def gradients(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient (1, C, h, w), float32, of one score at each layer; zeros where it does not depend on it.

        Where the recording has a graph it is the whole gradient of the score, through all that lies above the layer; at a
        head input recorded without one, it is the gradient that the head gives that input.
        """
        pairs = list(zip(self.recording.head_inputs, self.head_gradient(index), strict=True))
        activations = [self.recording.activations[name] for name in layers]
        through = through_the_graph(activations, pairs)
        direct = {id(tensor): gradient for tensor, gradient in pairs}
        found = [direct.get(id(tensor), other) for tensor, other in zip(activations, through, strict=True)]
        return [
            np.zeros(tensor.shape, np.float32) if gradient is None else gradient.float().cpu().numpy()
            for tensor, gradient in zip(activations, found, strict=True)
        ]

    @cached_property
    def differentiable(self) -> tuple[Tensor, dict[int, Tensor]]:
        """The scores (D,) with their graph, and the leaves that stand for head inputs recorded without one, by identity."""
        inputs = self.recording.head_inputs
        leaves = [tensor if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in inputs]
        with torch.enable_grad():
            scores = self.of_features(self.select(leaves))[0]
        return scores, dict(zip(map(id, inputs), leaves, strict=True))

    def curvatures(self, index: int, layers: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient of one score at each layer, and the product of its Hessian and the activations."""
        scores, leaves = self.differentiable
        recorded = (self.recording.activations[name] for name in layers)
        return curvatures(scores[index], [leaves.get(id(tensor), tensor) for tensor in recorded])

    @torch.no_grad()
    def rerun(self, layer: str) -> Rerun:
        """Return what lies above a layer; of a head input, at the head, the head alone."""
        inputs, activations = self.recording.head_inputs, self.recording.activations[layer]
        level = next((index for index, tensor in enumerate(inputs) if tensor is activations), None)
        if self.at_head and level is not None:
            return Rerun(self.base[level], self.features_at_once, lambda features: self._at_level(level, features))
        above = self.detector.above(self.recording, layer, self.levels)
        return Rerun(activations.detach(), self.at_once, lambda changed: self._above(above, changed))

    @torch.no_grad()
    def _at_level(self, level: int, features: Tensor) -> Tensor:
        """Return the scores (B, D) with other features of one head input, as the head alone sees it."""
        return self.of_features([*self.base[:level], features, *self.base[level + 1 :]])

    @torch.no_grad()
    def _above(self, above: Callable[[Tensor], list[Tensor]], activations: Tensor) -> Tensor:
        """Return the scores (B, D) with other activations of a layer, running what lies above it."""
        return self.of_features(self.select(above(activations))).expand(len(activations), -1)

    @torch.no_grad()
    def of_images(self, images: Tensor) -> Tensor:
        """Return the scores (B, D) of other images (B, 3, h, w); only what the scores depend on is run."""
        inputs = self.detector.head_inputs(images, self.levels)
        known = [new if new is not None else old for new, old in zip(inputs, self.recording.head_inputs, strict=True)]
        return self.of_features(self.select(known))


class CellScores(HeadScores):
    """Scores that depend on a few cells of the head's inputs, taken at those cells alone."""

    @cached_property
    def cells(self) -> Cells:
        """Where the predictions that count lie."""
        return locate(self.target.rows.flatten(), self.detector.levels, self.recording)

    @cached_property
    def levels(self) -> list[int]:
        """The numbers of the head inputs that the scores depend on."""
        return [index for index, numbers in enumerate(self.cells.of_level) if len(numbers)]

    def is_exact(self) -> bool:
        """Return whether the cells decoded alone give the predictions that the network gave."""
        with torch.no_grad():
            decoded = self.predictions(self.base)[0]
        return torch.allclose(decoded, self.recording.raw[self.target.rows], rtol=1e-3, atol=1e-3)

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the features (B, C, P) of the cells that count, for each head input."""
        cell = self.cells.cell
        return [
            tensor.flatten(2)[:, :, cell[numbers]] for tensor, numbers in zip(inputs, self.cells.of_level, strict=True)
        ]

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the features of the cells give."""
        return self.target.score(Predictions.of_columns(self.predictions(features)))

    def predictions(self, features: list[Tensor]) -> Tensor:
        """Return the predictions (B, D, k, 5 + classes) that the head makes from the features of the cells."""
        parts = [self._probability(index, features[index]) for index in self.levels]
        order = torch.cat([self.cells.of_level[index] for index in self.levels]).argsort()
        decoded = self.cells.decode(torch.cat(same_batch(parts), dim=1)[:, order])
        return decoded.unflatten(1, self.target.rows.shape)

    def _probability(self, index: int, features: Tensor) -> Tensor:
        """Return the sigmoids (B, P, 5 + classes) of the logits that one head input's features (B, C, P) give."""
        level, anchor = self.detector.levels[index], self.cells.anchor[self.cells.of_level[index]]
        plain = level.convolution
        logits = functional.linear(features.mT, plain.weight.flatten(1), plain.bias)
        each = torch.arange(features.shape[2], device=features.device)
        own = logits.unflatten(2, (level.head.na, level.head.no))[:, each, anchor]
        return own[..., : self.detector.columns].float().sigmoid()

    @property
    def values(self) -> Tensor:
        """What the target gives for the image as it is, (D,)."""
        return self._at_cells[0]

    @cached_property
    def _at_cells(self) -> tuple[Tensor, list[Tensor]]:
        """The scores (D,), and their gradients (P, C) at the cells of each head input.

        By the chain rule written out where the target knows its own slopes, else by automatic differentiation.
        """
        if self.target.with_slopes is None:
            features = [tensor.detach().requires_grad_() for tensor in self.base]
            with torch.enable_grad():
                scores = self.of_features(features)[0]
            gradients = torch.autograd.grad(scores.sum(), features, materialize_grads=True)
            return scores.detach(), [gradient[0].T for gradient in gradients]
        with torch.no_grad():
            rows = self.recording.raw[self.target.rows]
            scores, of_predictions = self.target.with_slopes(Predictions.of_columns(rows))
            slopes = of_predictions.columns().flatten(0, 1) * self.cells.slopes(rows.flatten(0, 1))
            return scores, [self._through_convolution(index, slopes) for index in range(len(self.detector.levels))]

    def _through_convolution(self, index: int, slopes: Tensor) -> Tensor:
        """Return the gradients (P, C) at one head input's cells, given those at all logits that count, (P, 5 + classes)."""
        level, numbers = self.detector.levels[index], self.cells.of_level[index]
        logits = slopes.new_zeros(len(numbers), level.head.na, level.head.no)
        each = torch.arange(len(numbers), device=slopes.device)
        logits[each, self.cells.anchor[numbers], : slopes.shape[1]] = slopes[numbers]
        return logits.flatten(1) @ level.convolution.weight.flatten(1).float()

    @cached_property
    def _owners(self) -> list[Tensor]:
        """Which score the predictions of each head input belong to."""
        return [numbers // self.target.rows.shape[1] for numbers in self.cells.of_level]

    @cached_property
    def _scores_of_levels(self) -> list[set[int]]:
        """The scores that depend on each head input."""
        return [set(owner.tolist()) for owner in self._owners]

    def head_gradient(self, index: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each head input, None where it is zero."""
        return [
            self._spread(level, index) if index in several else None
            for level, several in enumerate(self._scores_of_levels)
        ]

    def _spread(self, level: int, index: int) -> Tensor | None:
        """Return the gradient (1, C, h, w) of a score at one head input, None if it is zero there."""
        chosen, like = self._owners[level] == index, self.recording.head_inputs[level]
        gradient = self._at_cells[1][level][chosen]
        if not gradient.any():
            return None
        dense = torch.zeros_like(like, requires_grad=False, memory_format=torch.contiguous_format)
        cell = self.cells.cell[self.cells.of_level[level][chosen]]
        dense[0].flatten(1).index_add_(1, cell, gradient.T.to(dense.dtype))
        return dense


class WholeScores(HeadScores):
    """Scores through the forward pass of the head itself."""

    @property
    def values(self) -> Tensor:
        """What the target gives for the image as it is, (D,)."""
        return self._graph[0].detach()

    @property
    def levels(self) -> list[int]:
        """The numbers of the head inputs that the scores depend on: all."""
        return list(range(len(self.recording.head_inputs)))

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the inputs as they are: every cell counts."""
        return list(inputs)

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the head's inputs give."""
        return self.target.of(Predictions.of_columns(self.detector.raw(self.outputs(features))))

    def outputs(self, features: list[Tensor]) -> list:
        """Return what the heads make of their inputs."""
        # The head may write into the list and into what it holds.
        copies = iter([tensor.clone() for tensor in same_batch(features)])
        return [head([next(copies) for _ in head.stride]) for head in self.detector.heads]

    @cached_property
    def _graph(self) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """The scores (D,) with their graph, its leaves, and the outputs of the layers inside the heads by name."""
        leaves = [tensor.detach().clone().requires_grad_() for tensor in self.recording.head_inputs]
        inside: dict[str, Tensor] = {}
        with ExitStack() as stack, torch.enable_grad():
            for name in self.recording.in_head:
                stack.enter_context(self.detector.record_layer(name, inside, with_graph=True))
            return self.of_features(leaves)[0], leaves, inside

    def head_gradient(self, index: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each head input, None where it is zero."""
        scores, leaves, _ = self._graph
        gradients = torch.autograd.grad(scores[index], leaves, retain_graph=True, allow_unused=True)
        return [gradient if gradient is not None and gradient.any() else None for gradient in gradients]

    def gradients(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient (1, C, h, w) of one score at each layer, also inside the heads where it was recorded there."""
        scores, _, inside = self._graph
        below = tuple(name for name in layers if name not in inside)
        found = dict(zip(below, super().gradients(index, below), strict=True))
        if inside:
            tensors = list(inside.values())
            in_head = torch.autograd.grad(scores[index], tensors, retain_graph=True, materialize_grads=True)
            found |= {name: gradient.float().cpu().numpy() for name, gradient in zip(inside, in_head, strict=True)}
        return [found[name] for name in layers]


def through_the_graph(activations: list[Tensor], pairs: list[tuple[Tensor, Tensor | None]]) -> HeadGradient:
    """Return the gradients at recorded activations, given (head input, its gradient); None where they are zero."""
    reached = [(tensor, gradient.to(tensor.dtype)) for tensor, gradient in pairs if gradient is not None]
    reached = [(tensor, gradient) for tensor, gradient in reached if tensor.requires_grad]
    if not reached:
        return [None] * len(activations)
    tensors, gradients = zip(*reached, strict=True)
    return list(torch.autograd.grad(tensors, activations, gradients, retain_graph=True, allow_unused=True))


@dataclass(frozen=True)
class Cells:
    """Where P predictions lie: single cells of the head's inputs.

    of_level  for each head input, which of them belong to it: int64 (P_l,)
    anchor    (P,) int64, the number of the anchor; with
    size      (P, 2) float32, its width and height in pixels
    cell      (P,) int64, the number of the cell in its head input, row by row; it stands at
    corner    (P, 2) float32, its column and row; and has
    stride    (P, 1) float32, as many pixels per side
    """

    of_level: list[Tensor]
    anchor: Tensor
    size: Tensor
    cell: Tensor
    corner: Tensor
    stride: Tensor

    def decode(self, probability: Tensor) -> Tensor:
        """Return the predictions (B, P, columns) of sigmoids of logits of that shape.

        Box centre: (2 sigmoid - 0.5 + cell) * stride; size: (2 sigmoid)^2 * anchor; the rest are plain sigmoids.
        """
        centre = (probability[..., :2] * 2 - 0.5 + self.corner) * self.stride
        size = (probability[..., 2:4] * 2) ** 2 * self.size
        return torch.cat((centre, size, probability[..., 4:]), dim=-1)

    def slopes(self, predictions: Tensor) -> Tensor:
        """Return by how much each number of the predictions (P, columns) grows with its logit; see `decode`."""
        centre = (predictions[:, :2] / self.stride + 0.5 - self.corner) / 2
        size = (predictions[:, 2:4] / self.size).sqrt() / 2
        probability = torch.cat((centre, size, predictions[:, 4:]), dim=1)
        slope = probability * (1 - probability)
        slope[:, :2] *= 2 * self.stride
        slope[:, 2:4] *= 8 * size * self.size
        return slope


def locate(rows: Tensor, levels: list[Level], recording: HeadRecording) -> Cells:
    """Return where the predictions of these indices (P,) lie in the head's inputs."""
    inputs, after = recording.head_inputs, recording.ends

    def of_each(numbers, dtype=torch.long) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device=rows.device)[level]

    level = torch.bucketize(rows, torch.tensor(after, device=rows.device), right=True)
    anchor, cell = divmod_tensor(
        rows - of_each([0, *after[:-1]]), of_each([tensor.shape[2] * tensor.shape[3] for tensor in inputs])
    )
    y, x = divmod_tensor(cell, of_each([tensor.shape[3] for tensor in inputs]))
    sizes = torch.cat([level.head.anchors[level.index].float() * level.stride for level in levels])
    counts = [entry.head.na for entry in levels]
    offsets = of_each([end - count for end, count in zip(accumulate(counts), counts, strict=True)])
    return Cells(
        [(level == index).nonzero()[:, 0] for index in range(len(levels))],
        anchor,
        sizes[offsets + anchor],
        cell,
        torch.stack((x, y), dim=1).float(),
        of_each([entry.stride for entry in levels], torch.float32)[:, None],
    )


def divmod_tensor(dividend: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    """Return quotient and remainder of tensors of natural numbers."""
    quotient = dividend // divisor
    return quotient, dividend - quotient * divisor


def same_batch(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors (B or 1, ...) with B in front of each."""
    batch = max(tensor.shape[0] for tensor in tensors)
    return [tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors]
