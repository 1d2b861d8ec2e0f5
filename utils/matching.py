"""Which detections hit which labelled objects."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.boxes import box_iou

# The ten overlaps that mAP50-95 is the mean over.
IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)


def true_positives(detections: Tensor, labels: Tensor, thresholds: Tensor = IOU_THRESHOLDS) -> Tensor:
    """Return (n, t) bool: whether each detection hits an object of its class, at each of t overlaps.

    A detection goes for the object it overlaps most; of several that go for one object the first, most confident one
    hits it.

    Args:
        detections: (n, 6) x1, y1, x2, y2, confidence, class; most confident first.
        labels: (m, 5) class, x1, y1, x2, y2.
        thresholds: (t,) the least IoU.
    """
    hits = torch.zeros(len(detections), len(thresholds), dtype=torch.bool, device=detections.device)
    if not len(detections) or not len(labels):
        return hits
    same_class = labels[:, :1] == detections[:, 5]
    overlap, target = (box_iou(labels[:, 1:], detections[:, :4]) * same_class).max(0)
    for column, threshold in enumerate(thresholds.tolist()):
        hits[_first_for_each(target, (overlap >= threshold).nonzero()[:, 0]), column] = True
    return hits


def match_any_class(detections: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the indices of detections (k,) and of the objects (k,) that they match, whatever their classes.

    Arguments are those of `true_positives`, with one `threshold` that the IoU must exceed.
    """
    if not len(detections) or not len(labels):
        nothing = torch.zeros(0, dtype=torch.long, device=detections.device)
        return nothing, nothing
    overlap, target = box_iou(labels[:, 1:], detections[:, :4]).max(0)
    matched = _first_for_each(target, (overlap > threshold).nonzero()[:, 0])
    return matched, target[matched]


def _first_for_each(target: Tensor, candidates: Tensor) -> Tensor:
    """Return of the ascending `candidates` those before which no other has the same target."""
    wanted = target[candidates]
    is_repeat = (wanted[:, None] == wanted[None]).tril(-1).any(1)
    return candidates[~is_repeat]
