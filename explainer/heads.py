"""The Detect head run again from its inputs: at the few cells that a score reads, or as a whole.

The head is a 1x1 convolution followed by a decoding cell by cell, so a score that reads k raw predictions depends on at
most k cells of the head's inputs. `CellHead` computes it from those alone. `WholeHead` runs the head's own forward pass:
for scores that read every prediction, and for heads that are built differently.

Both read inputs (B, C, h, w), one for each stride, where B may be 1 for inputs that all items of a batch share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainer.network import Level, Network, Recording


@dataclass(frozen=True)
class Target:
    """The scores of D detections, or of other things to be explained in one image.

    rows   (D, k) int64: which raw predictions count; None if all do
    score  from predictions (..., D, k, 5 + classes) at those rows, or from all (..., N, 5 + classes), to scores (..., D)
    """

    rows: Tensor | None
    score: Callable[[Tensor], Tensor]

    def of_raw(self, raw: Tensor) -> Tensor:
        """Return the scores (..., D) that raw predictions (..., N, 5 + classes) give."""
        return self.score(raw if self.rows is None else raw[..., self.rows, :])


@dataclass(frozen=True)
class Cells:
    """Where P raw predictions lie in one head input: int64 tensors (P,); `pair` is their number among all that were asked."""

    pair: Tensor
    anchor: Tensor
    y: Tensor
    x: Tensor


class CellHead:
    """The head at the cells of a target's raw predictions."""

    def __init__(self, network: Network, inputs: tuple[Tensor, ...], target: Target):
        self.network, self.target = network, target
        self.cells = locate(target.rows.flatten(), network.levels, inputs)
        self.order = torch.cat([cells.pair for cells in self.cells]).argsort()

    @property
    def levels(self) -> list[int]:
        """The numbers of the head inputs that the scores depend on."""
        return [index for index, cells in enumerate(self.cells) if len(cells.pair)]

    def select(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the features (B, C, P) of the cells that count, for each head input."""
        return [tensor[:, :, cells.y, cells.x] for tensor, cells in zip(inputs, self.cells, strict=True)]

    def predictions(self, features: list[Tensor]) -> Tensor:
        """Return the predictions (B, D, k, 5 + classes) that the head makes from the features of the cells."""
        parts = zip(self.network.levels, features, self.cells, strict=True)
        decoded = [decode(level, some, cells) for level, some, cells in parts if len(cells.pair)]
        together = torch.cat(same_batch(decoded), dim=1)[:, self.order, : self.network.columns]
        return together.unflatten(1, self.target.rows.shape)

    def scores(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the features of the cells give."""
        return self.target.score(self.predictions(features))


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
    """Return the predictions (B, P, 5 + classes and more) that a head makes from the features (B, C, P) of single cells.

    Box centre: (2 sigmoid - 0.5 + cell) * stride; size: (2 sigmoid)^2 * anchor; the rest are plain sigmoids.
    """
    head = level.head
    convolution = head.m[level.index]
    logits = functional.linear(features.mT, convolution.weight.flatten(1), convolution.bias)
    each = torch.arange(features.shape[2], device=features.device)
    probability = logits.unflatten(2, (head.na, head.no))[:, each, cells.anchor].float().sigmoid()
    corner = torch.stack((cells.x, cells.y), dim=1) - 0.5
    anchor = head.anchors[level.index][cells.anchor].float() * level.stride
    centre = (probability[..., :2] * 2 + corner) * level.stride
    size = (probability[..., 2:4] * 2) ** 2 * anchor
    return torch.cat((centre, size, probability[..., 4:]), dim=2)


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
