"""Detections against labels: which are hits, which are false alarms, and which labels were missed."""

import numpy as np

from explainer.explanation import FALSE_ALARM, HIT, Detection
from explainer.files.labels import Box

OVERLAP_OF_A_HIT = 0.5


def judge(detections: list[Detection], labels: list[Box]) -> tuple[list[str], list[Box]]:
    """Return the outcome of each detection, and the labels that no detection hit.

    The most confident detection chooses first: the label of its class that it overlaps most, by an intersection over union
    of at least 0.5. A label is hit once, so that a second detection of the same object is a false alarm.
    """
    overlap = overlaps(detections, labels)
    outcomes = [FALSE_ALARM] * len(detections)
    free = np.ones(len(labels), dtype=bool)
    for index in sorted(range(len(detections)), key=lambda i: -detections[i].confidence):
        candidates = np.where(free, overlap[index], 0)
        if candidates.size and candidates.max() >= OVERLAP_OF_A_HIT:
            outcomes[index] = HIT
            free[candidates.argmax()] = False
    return outcomes, [label for label, missed in zip(labels, free, strict=True) if missed]


def overlaps(detections: list[Detection], labels: list[Box]) -> np.ndarray:
    """Return the intersection over union (D, L) of detections and labels of the same class; 0 for different classes."""
    boxes, others = (np.float64([entry.xyxy for entry in entries]).reshape(-1, 4) for entries in (detections, labels))
    classes, wanted = (np.array([entry.class_index for entry in entries]) for entries in (detections, labels))
    upper_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = (lower_right - upper_left).clip(min=0).prod(axis=2)
    either = areas(boxes)[:, None] + areas(others)[None] - both
    same = classes[:, None] == wanted[None]
    return np.divide(both, either, out=np.zeros_like(both), where=same & (either > 0))


def areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the areas (N,) of boxes (N, 4)."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
