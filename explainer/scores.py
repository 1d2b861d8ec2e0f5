"""The score of a detection: one number that says how strongly the head's raw predictions speak for it.

Tensors of predictions have rows (x, y, w, h, objectness, p_0, p_1, ...), boxes in input pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.items import columns_of

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
    overlap = iou(boxes_xyxy, raw[:, :4])
    overlap, rows = overlap.topk(min(NEIGHBOURS, len(raw)), dim=1)
    counts = raw[rows, 5:].argmax(dim=2) == classes[:, None]
    counts[:, 0] |= ~counts.any(dim=1)
    weights = overlap.masked_fill(~counts, -torch.inf).softmax(dim=1)
    return Matches(rows, weights, classes)


def iou(boxes_xyxy: Tensor, others_xywh: Tensor) -> Tensor:
    """Return the intersection over union (D, N) of boxes (D, 4) with boxes (N, 4) given by centre and size.

    0 where both are empty. Edge by edge: no array has more than D * N numbers.
    """
    x1, y1, x2, y2 = boxes_xyxy.T[..., None]
    x, y, w, h = others_xywh.T.contiguous()
    width = (torch.minimum(x2, x + w / 2) - torch.maximum(x1, x - w / 2)).clamp_(min=0)
    height = (torch.minimum(y2, y + h / 2) - torch.maximum(y1, y - h / 2)).clamp_(min=0)
    both = width.mul_(height)
    return (both / ((x2 - x1) * (y2 - y1) + w * h - both)).nan_to_num_(0.0)


def values(predictions: Tensor, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the values (..., D, n) that the items are the product of: each the weighted sum of one column.

    predictions: (..., D, k, columns), the matched ones.
    """
    columns = item_columns(matches, items).expand(*predictions.shape[:-1], -1)
    return weighted_sum(predictions.gather(-1, columns), matches)


def item_columns(matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the columns (D, 1, n), int64, that the items of each detection are read from."""
    columns = [columns_of(items, index) for index in matches.classes.tolist()]
    return torch.tensor(columns, dtype=torch.long, device=matches.classes.device)[:, None]


def log_scores(predictions: Tensor, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the score (..., D) of each detection: the sum over the items of the logarithm of their value."""
    return values(predictions, matches, items).clamp_min(smallest(predictions)).log().sum(dim=-1)


def log_score_slopes(predictions: Tensor, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the gradient (D, k, columns) of each detection's score with respect to its matched predictions."""
    read = values(predictions, matches, items)
    each = torch.where(read < smallest(predictions), 0, 1 / read)[:, None] * matches.weights[..., None]
    columns = item_columns(matches, items).expand_as(each)
    return torch.zeros_like(predictions).scatter_add_(-1, columns, each)


def smallest(predictions: Tensor) -> float:
    """Return the value below which a logarithm is no longer taken."""
    return torch.finfo(predictions.dtype).tiny


def weighted_sum(columns: Tensor, matches: Matches) -> Tensor:
    """Return the weighted sum (..., D, C) of each column (..., D, k, C) over the matched predictions."""
    return (matches.weights[..., None] * columns).sum(dim=-2)


def summed_class_probability(raw: Tensor, classes: list[int]) -> Tensor:
    """Return the sum (...) of the probabilities of `classes` over all raw predictions (..., N, 5 + classes)."""
    return raw[..., 5:][..., classes].sum(dim=(-2, -1))
