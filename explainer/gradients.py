"""Gradients of scores: first at the inputs of the Detect head, then down to the layers that a map is read from.

The head is a 1x1 convolution followed by a decoding cell by cell, so a score that reads k raw predictions has a gradient
in at most k cells of the head's inputs. `SparseHead` takes it there alone. `DenseHead` differentiates the head's own
forward pass: for scores that read every prediction, and for heads that are built differently.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainer.network import Level, Network, Recording
from explainer.scores import Matches, log_scores

HeadGradient = list[Tensor | None]


class SparseHead:
    """The head at the cells of k raw predictions for each of D detections.

    predictions  (D, k, 5 + classes) decoded again from the head's inputs
    scores       (D,) what `score(predictions)` returned
    """

    def __init__(self, network: Network, recording: Recording, rows: Tensor, score: Callable[[Tensor], Tensor]):
        self.inputs = recording.head_inputs
        self.neighbours = rows.shape[1]
        self.cells = locate(rows.flatten(), network.levels, self.inputs)
        features = [
            tensor.detach()[0, :, cells.y, cells.x].T.requires_grad_()
            for tensor, cells in zip(self.inputs, self.cells, strict=True)
        ]
        with torch.enable_grad():
            decoded = [decode(*parts) for parts in zip(network.levels, features, self.cells, strict=True)]
            order = torch.cat([cells.pair for cells in self.cells]).argsort()
            predictions = torch.cat(decoded)[order].unflatten(0, rows.shape)[..., : network.columns]
            scores = score(predictions)
        self.predictions, self.scores = predictions.detach(), scores.detach()
        self.gradients = torch.autograd.grad(scores.sum(), features)

    def at(self, detection: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one detection's score at each head input, None where it is zero."""
        return [
            spread(gradient, cells, cells.pair // self.neighbours == detection, tensor)
            for gradient, cells, tensor in zip(self.gradients, self.cells, self.inputs, strict=True)
        ]


class DenseHead:
    """The head's own forward pass under gradients, and the scores (D,) that `score(raw)` returns for it."""

    def __init__(self, network: Network, recording: Recording, score: Callable[[Tensor], Tensor]):
        self.leaves = [tensor.detach().clone().requires_grad_() for tensor in recording.head_inputs]
        with torch.enable_grad():
            copies = iter([leaf.clone() for leaf in self.leaves])
            outputs = [head([next(copies) for _ in head.stride]) for head in network.heads]
            self.graph = score(network.raw_predictions(outputs))
        self.scores = self.graph.detach()

    def at(self, detection: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each head input, None where it is zero."""
        gradients = torch.autograd.grad(self.graph[detection], self.leaves, retain_graph=True, allow_unused=True)
        return [gradient if gradient is not None and gradient.any() else None for gradient in gradients]


@dataclass(frozen=True)
class Cells:
    """Where P raw predictions lie in one head input: int64 tensors (P,); `pair` is their number among all that were asked."""

    pair: Tensor
    anchor: Tensor
    y: Tensor
    x: Tensor


def locate(rows: Tensor, levels: list[Level], inputs: tuple[Tensor, ...]) -> list[Cells]:
    """Return for each head input the cells of those raw predictions (P,) that belong to it.

    Raw predictions are ordered by head input, then anchor, then y, then x.
    """
    located = []
    for first, after, tensor in zip(*row_ranges(levels, inputs), inputs, strict=True):
        height, width = tensor.shape[2:]
        pair = ((rows >= first) & (rows < after)).nonzero()[:, 0]
        index = rows[pair] - first
        located.append(Cells(pair, index // (height * width), index // width % height, index % width))
    return located


def row_ranges(levels: list[Level], inputs: tuple[Tensor, ...]) -> tuple[list[int], list[int]]:
    """Return the index of the first raw prediction of each head input, and the index after its last one."""
    counts = [level.head.na * tensor.shape[2] * tensor.shape[3] for level, tensor in zip(levels, inputs, strict=True)]
    after = list(accumulate(counts))
    return [end - count for end, count in zip(after, counts, strict=True)], after


def decode(level: Level, features: Tensor, cells: Cells) -> Tensor:
    """Return the predictions (P, 5 + classes and more) that a head makes from the features (P, C) of single cells.

    Box centre: (2 sigmoid - 0.5 + cell) * stride; size: (2 sigmoid)^2 * anchor; the rest are plain sigmoids.
    """
    head = level.head
    convolution = head.m[level.index]
    logits = functional.linear(features, convolution.weight.flatten(1), convolution.bias)
    logits = logits.unflatten(1, (head.na, head.no))[torch.arange(len(features), device=features.device), cells.anchor]
    probability = logits.float().sigmoid()
    corner = torch.stack((cells.x, cells.y), dim=1) - 0.5
    anchor = head.anchors[level.index][cells.anchor].float() * level.stride
    centre = (probability[:, :2] * 2 + corner) * level.stride
    size = (probability[:, 2:4] * 2) ** 2 * anchor
    return torch.cat((centre, size, probability[:, 4:]), dim=1)


def spread(gradient: Tensor, cells: Cells, chosen: Tensor, like: Tensor) -> Tensor | None:
    """Return the chosen ones of the gradients (P, C) at their cells of a tensor of zeros; None if they are zero as well."""
    gradient, y, x = gradient[chosen], cells.y[chosen], cells.x[chosen]
    if not gradient.any():
        return None
    dense = torch.zeros_like(like, requires_grad=False)
    dense[0].flatten(1).index_add_(1, y * like.shape[3] + x, gradient.T)
    return dense


def detection_gradients(
    network: Network, recording: Recording, matches: Matches, items: tuple[str, ...]
) -> SparseHead | DenseHead:
    """Return the scores of all detections of an image and their gradients at the head's inputs.

    Where the cells decoded alone do not give the predictions that the network gave, the head is no plain YOLOv5 head and
    its own forward pass is differentiated.
    """

    def score(predictions: Tensor) -> Tensor:
        return log_scores(predictions, matches, items)

    if all(is_one_convolution(level) for level in network.levels):
        sparse = SparseHead(network, recording, matches.rows, score)
        if torch.allclose(sparse.predictions, recording.raw[matches.rows], rtol=1e-3, atol=1e-3):
            return sparse
    return DenseHead(network, recording, lambda raw: score(raw[matches.rows]))


def is_one_convolution(level: Level) -> bool:
    """Return whether a head predicts from this input by one 1x1 convolution with the outputs of all anchors."""
    convolution = level.head.m[level.index]
    outputs = level.head.na * level.head.no
    return (
        isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (1, 1) and convolution.out_channels == outputs
    )


def layer_gradients(recording: Recording, head_gradient: HeadGradient, layers: tuple[str, ...]) -> Iterator[Tensor]:
    """Yield the gradient (1, C, h, w) at each layer, given the score's gradient at the head's inputs.

    Where the recording has a graph it is the whole gradient of the score, through all that lies above the layer; at a
    head input recorded without one, it is the gradient that the head gives that input. It is a tensor of zeros where the
    score does not depend on the layer.
    """
    pairs = list(zip(recording.head_inputs, head_gradient, strict=True))
    for name in layers:
        activation = recording.activations[name]
        direct = [gradient for tensor, gradient in pairs if tensor is activation]
        gradient = direct[0] if direct else through_the_graph(activation, pairs)
        yield torch.zeros_like(activation, requires_grad=False) if gradient is None else gradient


def through_the_graph(activation: Tensor, pairs: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """Return the gradient at a recorded activation, given (head input, its gradient); None where it is zero."""
    reached = [(tensor, gradient.to(tensor.dtype)) for tensor, gradient in pairs if gradient is not None]
    reached = [(tensor, gradient) for tensor, gradient in reached if tensor.requires_grad]
    if not reached:
        return None
    tensors, gradients = zip(*reached, strict=True)
    return torch.autograd.grad(tensors, activation, gradients, retain_graph=True, allow_unused=True)[0]
