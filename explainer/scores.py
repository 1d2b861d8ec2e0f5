"""The score of a detection: one number that says how strongly the head's raw predictions speak for it.

Tensors of predictions have rows (x, y, w, h, objectness, p_0, p_1, ...), boxes in input pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.items import ITEMS
from utils.general import xywh2xyxy

NEIGHBOURS = 10


@dataclass(frozen=True)
class Matches:
    """The raw predictions that stand for each of D detections.

    rows     (D, k) int64 indices of raw predictions, sorted by falling overlap with the detection
    weights  (D, k) float32, each row sums to 1; 0 for predictions that do not count
    classes  (D,) int64 class of each detection
    """

    rows: Tensor
    weights: Tensor
    classes: Tensor


def match(raw: Tensor, boxes_xyxy: Tensor, classes: Tensor) -> Matches:
    """Return the raw predictions that stand for each box and class.

    Of the ten with the highest overlap with the box those count whose best class is the box's; if there is none, the
    single best by overlap. Their weights are the softmax of the overlaps, and constants of the score: they say which
    predictions are read, and are no part of what is explained.
    raw: (N, 5 + classes); boxes_xyxy: (D, 4) in input pixels; classes: (D,) int64.
    """
    overlap = iou(boxes_xyxy, xywh2xyxy(raw[:, :4]))
    overlap, rows = overlap.topk(min(NEIGHBOURS, len(raw)), dim=1)
    counts = raw[rows, 5:].argmax(dim=2) == classes[:, None]
    counts[:, 0] |= ~counts.any(dim=1)
    weights = overlap.masked_fill(~counts, -torch.inf).softmax(dim=1)
    return Matches(rows, weights, classes)


def iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Return the intersection over union (D, N) of boxes (D, 4) with boxes (N, 4); 0 where both are empty."""
    from torchvision.ops import box_iou

    return box_iou(boxes_xyxy, others_xyxy).nan_to_num(0.0)


def values(predictions: Tensor, matches: Matches, item: str) -> Tensor:
    """Return the value (..., D) of one item: the weighted sum of its column over matched predictions (..., D, k, columns)."""

    def read(column: int | Tensor) -> Tensor:
        if isinstance(column, int):
            chosen = predictions[..., column]
        else:
            chosen = predictions.gather(-1, column[:, None, None].expand(*predictions.shape[:-1], 1))[..., 0]
        return (matches.weights * chosen).sum(dim=-1)

    return ITEMS[item](read, matches.classes)


def log_scores(predictions: Tensor, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the score (..., D) of each detection: the sum over the items of the logarithm of their value."""
    smallest = torch.finfo(predictions.dtype).tiny
    return sum(values(predictions, matches, item).clamp_min(smallest).log() for item in items)


def weighted_sum(columns: Tensor, matches: Matches) -> Tensor:
    """Return the weighted sum (..., D, C) of each column (..., D, k, C) over the matched predictions."""
    return (matches.weights[..., None] * columns).sum(dim=-2)


def summed_class_probability(raw: Tensor, classes: list[int]) -> Tensor:
    """Return the sum (...) of the probabilities of `classes` over all raw predictions (..., N, 5 + classes)."""
    return raw[..., 5:][..., classes].sum(dim=(-2, -1))
