"""Gradients of scores: first at the inputs of the Detect head, then down to the layers that a map is read from."""

import torch
from torch import Tensor

from explainer.heads import CellHead, Target, WholeHead, head_for
from explainer.network import Network, Recording

HeadGradient = list[Tensor | None]


class SparseHead:
    """Gradients of scores that depend on a few cells of the head's inputs, taken at those cells alone.

    scores  (D,) what the target gives
    """

    def __init__(self, head: CellHead, recording: Recording):
        self.inputs, self.cells, neighbours = recording.head_inputs, head.cells, head.target.rows.shape[1]
        self.scores, self.gradients = (at_cells if head.target.slopes else at_cells_by_autograd)(head, recording)
        self.owners = [numbers // neighbours for numbers in self.cells.of_level]
        self.detections = [set(owner.tolist()) for owner in self.owners]

    def at(self, detection: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one detection's score at each head input, None where it is zero."""
        return [
            self._spread(level, detection) if detection in detections else None
            for level, detections in enumerate(self.detections)
        ]

    def _spread(self, level: int, detection: int) -> Tensor | None:
        """Return the gradient (1, C, h, w) of a detection at one head input, None if it is zero there."""
        chosen, like = self.owners[level] == detection, self.inputs[level]
        gradient = self.gradients[level][chosen]
        if not gradient.any():
            return None
        dense = torch.zeros_like(like, requires_grad=False, memory_format=torch.contiguous_format)
        cell = self.cells.cell[self.cells.of_level[level][chosen]]
        dense[0].flatten(1).index_add_(1, cell, gradient.T.to(dense.dtype))
        return dense


def at_cells(head: CellHead, recording: Recording) -> tuple[Tensor, list[Tensor]]:
    """Return the scores (D,) and their gradients (P, C) at the cells of each head input, by the chain rule written out."""
    with torch.no_grad():
        return head.target.of_raw(recording.raw), head.gradients(recording.raw)


def at_cells_by_autograd(head: CellHead, recording: Recording) -> tuple[Tensor, list[Tensor]]:
    """Return the scores (D,) and their gradients (P, C) at the cells of each head input, for any score."""
    inputs = [tensor.detach() for tensor in recording.head_inputs]
    features = [tensor.detach().requires_grad_() for tensor in head.select(inputs)]
    with torch.enable_grad():
        scores = head.scores(features)[0]
    gradients = torch.autograd.grad(scores.sum(), features, materialize_grads=True)
    return scores.detach(), [gradient[0].T for gradient in gradients]


class DenseHead:
    """Gradients of scores through the head's own forward pass."""

    def __init__(self, head: WholeHead, inputs: tuple[Tensor, ...]):
        self.leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        with torch.enable_grad():
            self.graph = head.scores(self.leaves)[0]
        self.scores = self.graph.detach()

    def at(self, detection: int) -> HeadGradient:
        """Return the gradient (1, C, h, w) of one score at each head input, None where it is zero."""
        gradients = torch.autograd.grad(self.graph[detection], self.leaves, retain_graph=True, allow_unused=True)
        return [gradient if gradient is not None and gradient.any() else None for gradient in gradients]


def head_gradients(network: Network, recording: Recording, target: Target) -> SparseHead | DenseHead:
    """Return the scores of a target and their gradients at the head's inputs."""
    head = head_for(network, recording, target)
    return SparseHead(head, recording) if isinstance(head, CellHead) else DenseHead(head, recording.head_inputs)


def layer_gradients(recording: Recording, head_gradient: HeadGradient, layers: tuple[str, ...]) -> list[Tensor]:
    """Return the gradient (1, C, h, w) at each layer, given the score's gradient at the head's inputs.

    Where the recording has a graph it is the whole gradient of the score, through all that lies above the layer; at a
    head input recorded without one, it is the gradient that the head gives that input. It is a tensor of zeros where the
    score does not depend on the layer.
    """
    pairs = list(zip(recording.head_inputs, head_gradient, strict=True))
    activations = [recording.activations[name] for name in layers]
    gradients = through_the_graph(activations, pairs)
    for index, activation in enumerate(activations):
        gradients[index] = next((gradient for tensor, gradient in pairs if tensor is activation), gradients[index])
    return [
        torch.zeros_like(activation, requires_grad=False) if gradient is None else gradient
        for activation, gradient in zip(activations, gradients, strict=True)
    ]


def through_the_graph(activations: list[Tensor], pairs: list[tuple[Tensor, Tensor | None]]) -> list[Tensor | None]:
    """Return the gradients at recorded activations, given (head input, its gradient); None where they are zero."""
    reached = [(tensor, gradient.to(tensor.dtype)) for tensor, gradient in pairs if gradient is not None]
    reached = [(tensor, gradient) for tensor, gradient in reached if tensor.requires_grad]
    if not reached:
        return [None] * len(activations)
    tensors, gradients = zip(*reached, strict=True)
    return list(torch.autograd.grad(tensors, activations, gradients, retain_graph=True, allow_unused=True))
