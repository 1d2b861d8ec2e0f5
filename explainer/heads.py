"""The Detect head run again from its inputs: at the few cells that a score reads, or as a whole.

The head is a 1x1 convolution followed by a decoding cell by cell, so a score that reads k raw predictions depends on at
most k cells of the head's inputs. `CellHead` computes it from those alone. `WholeHead` runs the head's own forward pass:
for scores that read every prediction, and for heads that are built differently.

Both read inputs (B, C, h, w), one for each stride, where B may be 1 for inputs that all items of a batch share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainer.cells import locate
from explainer.network import Level, Network, Recording


@dataclass(frozen=True)
class Target:
    """The scores of D detections, or of other things to be explained in one image.

    rows    (D, k) int64: which raw predictions count; None if all do
    score   from predictions (..., D, k, 5 + classes) at those rows, or from all (..., N, 5 + classes), to scores (..., D)
    slopes  from predictions (D, k, 5 + classes) at those rows to the gradient of their score, of the same shape; None
            where it is left to automatic differentiation
    """

    rows: Tensor | None
    score: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor], Tensor] | None = None

    def of_raw(self, raw: Tensor) -> Tensor:
        """Return the scores (..., D) that raw predictions (..., N, 5 + classes) give."""
        return self.score(raw if self.rows is None else raw[..., self.rows, :])


class CellHead:
    """The head at the cells of a target's raw predictions."""

    def __init__(self, network: Network, inputs: tuple[Tensor, ...], target: Target):
        self.network, self.target = network, target
        self.cells = locate(target.rows.flatten(), network.levels, inputs)

    @cached_property
    def levels(self) -> list[int]:
        """The numbers of the head inputs that the scores depend on."""
        return [index for index, numbers in enumerate(self.cells.of_level) if len(numbers)]

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the features (B, C, P) of the cells that count, for each head input."""
        cell = self.cells.cell
        return [
            tensor.flatten(2)[:, :, cell[numbers]] for tensor, numbers in zip(inputs, self.cells.of_level, strict=True)
        ]

    def predictions(self, features: list[Tensor]) -> Tensor:
        """Return the predictions (B, D, k, 5 + classes) that the head makes from the features of the cells."""
        parts = [self._probability(index, features[index]) for index in self.levels]
        order = torch.cat([self.cells.of_level[index] for index in self.levels]).argsort()
        decoded = self.cells.decode(torch.cat(same_batch(parts), dim=1)[:, order])
        return decoded.unflatten(1, self.target.rows.shape)

    def _probability(self, index: int, features: Tensor) -> Tensor:
        """Return the sigmoids (B, P, 5 + classes) of the logits that one head input's features (B, C, P) give."""
        level, anchor = self.network.levels[index], self.cells.anchor[self.cells.of_level[index]]
        convolution = level.head.m[level.index]
        logits = functional.linear(features.mT, convolution.weight.flatten(1), convolution.bias)
        each = torch.arange(features.shape[2], device=features.device)
        own = logits.unflatten(2, (level.head.na, level.head.no))[:, each, anchor]
        return own[..., : self.network.columns].float().sigmoid()

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the features of the cells give."""
        return self.target.score(self.predictions(features))

    def gradients(self, raw: Tensor) -> list[Tensor]:
        """Return the gradients (P, C) of the scores at the cells of each head input, by the target's own slopes.

        raw: (N, 5 + classes), what the head predicts from these inputs.
        """
        predictions = raw[self.target.rows]
        slopes = self.target.slopes(predictions).flatten(0, 1) * self.cells.slopes(predictions.flatten(0, 1))
        return [self._through_convolution(index, slopes) for index in range(len(self.network.levels))]

    def _through_convolution(self, index: int, slopes: Tensor) -> Tensor:
        """Return the gradients (P, C) at one head input's cells, given those at all logits that count, (P, 5 + classes)."""
        level, numbers = self.network.levels[index], self.cells.of_level[index]
        logits = slopes.new_zeros(len(numbers), level.head.na, level.head.no)
        each = torch.arange(len(numbers), device=slopes.device)
        logits[each, self.cells.anchor[numbers], : slopes.shape[1]] = slopes[numbers]
        return logits.flatten(1) @ level.head.m[level.index].weight.flatten(1).float()


class WholeHead:
    """The forward pass of the head itself."""

    def __init__(self, network: Network, inputs: tuple[Tensor, ...], target: Target):
        self.network, self.target = network, target
        self.levels = list(range(len(inputs)))

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the inputs as they are: every cell counts."""
        return list(inputs)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the head's inputs give."""
        # The head may write into the list and into what it holds.
        copies = iter([tensor.clone() for tensor in same_batch(features)])
        outputs = [head([next(copies) for _ in head.stride]) for head in self.network.heads]
        return self.target.of_raw(self.network.raw_predictions(outputs))


Head = CellHead | WholeHead


def head_for(network: Network, recording: Recording, target: Target) -> Head:
    """Return the cheapest way to compute a target's scores from the head's inputs.

    Where the cells decoded alone do not give the predictions that the network gave, the head is no plain YOLOv5 head and
    its own forward pass is run. That is looked at until it held once: how a head decodes does not change.
    """
    if target.rows is not None and all(is_one_convolution(level) for level in network.levels):
        head = CellHead(network, recording.head_inputs, target)
        network.head_is_plain = network.head_is_plain or same_predictions(head, recording)
        if network.head_is_plain:
            return head
    return WholeHead(network, recording.head_inputs, target)


def same_predictions(head: CellHead, recording: Recording) -> bool:
    """Return whether the cells decoded alone give the predictions that the network gave."""
    with torch.no_grad():
        predictions = head.predictions(head.select(recording.head_inputs))[0]
    return torch.allclose(predictions, recording.raw[head.target.rows], rtol=1e-3, atol=1e-3)


def same_batch(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors (B or 1, ...) with B in front of each."""
    batch = max(tensor.shape[0] for tensor in tensors)
    return [tensor.expand(batch, *tensor.shape[1:]) for tensor in tensors]


def is_one_convolution(level: Level) -> bool:
    """Return whether a head predicts from this input by one 1x1 convolution with the outputs of all anchors."""
    convolution = level.head.m[level.index]
    outputs = level.head.na * level.head.no
    return (
        isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (1, 1) and convolution.out_channels == outputs
    )
