"""Precision and recall over confidence, and average precision, for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Confidences at which curves are read, and recalls at which average precision is.
CONFIDENCES = np.linspace(0, 1, 1000)
RECALLS = np.linspace(0, 1, 101)


def smooth(y: np.ndarray, f: float = 0.05) -> np.ndarray:
    """Return the running mean of `y` (n,) over a window of about f·n values, with the ends drawn out."""
    half = (round(len(y) * f) + 1) // 2
    width = 2 * half + 1
    return np.convolve(np.pad(y, half, mode="edge"), np.full(width, 1 / width), mode="valid")


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return (average precision, precision envelope, recall), the latter two with their ends added.

    The average precision is the area below the envelope, read at 101 recalls as COCO does, between which it is straight.
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    envelope = np.maximum.accumulate(np.concatenate(([1.0], precision, [0.0]))[::-1])[::-1]
    sampled = np.interp(RECALLS, recall, envelope)
    area = (sampled.sum() - (sampled[0] + sampled[-1]) / 2) / (len(RECALLS) - 1)
    return float(area), envelope, recall


@dataclass(frozen=True)
class Curves:
    """What each of k classes with labelled objects reaches.

    Attributes:
        classes: (k,) their indices; objects: (k,) how many are labelled.
        precision, recall, f1: (k, 1000) at `CONFIDENCES`.
        ap: (k, t) average precision at t overlaps.
        precision_by_recall: (k, 1000) at 1000 recalls from 0 to 1, for the least overlap.
    """

    classes: np.ndarray
    objects: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    ap: np.ndarray
    precision_by_recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall + 1e-16)

    @property
    def best(self) -> int:
        """The index of the confidence with the best F1 over all classes."""
        return int(smooth(self.f1.mean(0), 0.1).argmax()) if len(self.classes) else 0


def compute_curves(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray) -> Curves:
    """Return the curves of detections; the arguments are those of `ap_per_class`."""
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, objects = np.unique(target_cls, return_counts=True)
    per_class = [
        _curves_of_class(tp[pred_cls == c], conf[pred_cls == c], n) for c, n in zip(classes, objects, strict=True)
    ]
    if not per_class:
        empty = np.zeros((0, len(CONFIDENCES)))
        return Curves(classes, objects, empty, empty, np.zeros((0, tp.shape[1])), empty)
    precision, recall, ap, by_recall = (np.stack(values) for values in zip(*per_class, strict=True))
    return Curves(classes, objects, precision, recall, ap, by_recall)


def _curves_of_class(tp: np.ndarray, conf: np.ndarray, objects: int) -> tuple[np.ndarray, ...]:
    """Return precision, recall (1000,), average precision (t,) and precision by recall (1000,) of one class."""
    if not len(tp):
        nothing = np.zeros(len(CONFIDENCES))
        return nothing, nothing, np.zeros(tp.shape[1]), nothing
    hits = tp.cumsum(0)
    recall = hits / (objects + 1e-16)
    precision = hits / np.arange(1, len(tp) + 1)[:, None]
    # np.interp wants ascending positions: confidences fall, their negatives rise.
    precision_at = np.interp(-CONFIDENCES, -conf, precision[:, 0], left=1)
    recall_at = np.interp(-CONFIDENCES, -conf, recall[:, 0], left=0)
    found = [compute_ap(recall[:, i], precision[:, i]) for i in range(tp.shape[1])]
    _, envelope, reached = found[0]
    by_recall = np.interp(CONFIDENCES, reached, envelope)
    return precision_at, recall_at, np.array([ap for ap, _, _ in found]), by_recall
