"""Where raw predictions come from: single cells of the Detect head's inputs, and how those are decoded into boxes.

A head predicts from each cell of each of its inputs, once for each anchor. Raw predictions are ordered by head input, then
anchor, then y, then x.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from explainer.network import Level


@dataclass(frozen=True)
class Cells:
    """Where P raw predictions lie.

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


def locate(rows: Tensor, levels: list[Level], inputs: tuple[Tensor, ...]) -> Cells:
    """Return where the raw predictions of these indices (P,) lie in the head's inputs (B, C, h, w)."""

    def of_each(numbers, dtype=torch.long) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device=rows.device)[level]

    first, after = row_ranges(levels, inputs)
    level = torch.bucketize(rows, torch.tensor(after, device=rows.device), right=True)
    anchor, cell = divmod_tensor(
        rows - of_each(first), of_each([tensor.shape[2] * tensor.shape[3] for tensor in inputs])
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


def row_ranges(levels: list[Level], inputs: tuple[Tensor, ...]) -> tuple[list[int], list[int]]:
    """Return the index of the first raw prediction of each head input, and the index after its last one."""
    counts = [level.head.na * tensor.shape[2] * tensor.shape[3] for level, tensor in zip(levels, inputs, strict=True)]
    after = list(accumulate(counts))
    return [end - count for end, count in zip(after, counts, strict=True)], after
