"""Targets of the methods made for detectors: they know the items, or the boxes, of the detections besides their score."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explainer.heads import Target
from explainer.scores import log_score_slopes, log_scores, match
from explainer.targets import detections_target


@dataclass(frozen=True, kw_only=True)
class ItemsTarget(Target):
    """The scores of D detections, item by item: `items` scores for the first detection, then those of the next."""

    items: int


@dataclass(frozen=True, kw_only=True)
class BoxesTarget(Target):
    """The scores of D detections whose boxes (D, 4), xyxy in input pixels, count as well."""

    boxes_xyxy: Tensor


def items_target(raw: Tensor, boxes_xyxy: Tensor, classes: list[int], items: tuple[str, ...]) -> ItemsTarget:
    """Return the score of each item of each detection with a box (D, 4) in input pixels: D times the items."""
    matches = match(raw, boxes_xyxy, torch.tensor(classes, dtype=torch.long, device=raw.device))

    def item_by_item(function: Callable, predictions: Tensor, axis: int) -> Tensor:
        # Each score reads rows of its own, so that the gradients of all of them can be taken at once.
        found = [
            function(predictions[..., number :: len(items), :, :], matches, (item,))
            for number, item in enumerate(items)
        ]
        return torch.stack(found, dim=axis).flatten(axis - 1, axis)

    return ItemsTarget(
        matches.rows.repeat_interleave(len(items), dim=0),
        lambda predictions: item_by_item(log_scores, predictions, predictions.ndim - 2),
        lambda predictions: item_by_item(log_score_slopes, predictions, 1),
        items=len(items),
    )


def boxes_target(raw: Tensor, boxes_xyxy: Tensor, classes: list[int], items: tuple[str, ...]) -> BoxesTarget:
    """Return the scores of D detections and their boxes (D, 4) in input pixels."""
    scores = detections_target(raw, boxes_xyxy, classes, items)
    return BoxesTarget(scores.rows, scores.score, scores.slopes, boxes_xyxy=boxes_xyxy)
