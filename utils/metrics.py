"""Measures of how well a detector works: precision, recall, average precision, and one figure to choose models by.

Overlaps, curves and `ConfusionMatrix` live in files of their own and are known under this path too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.boxes import box_iou
from utils.confusion import ConfusionMatrix
from utils.curves import Curves, compute_ap, compute_curves, smooth
from utils.overlap import bbox_iou

__all__ = [
    "ConfusionMatrix",
    "Curves",
    "ap_per_class",
    "bbox_iou",
    "box_iou",
    "compute_ap",
    "compute_curves",
    "fitness",
    "smooth",
]

# How much precision, recall, mAP50 and mAP50-95 count in the fitness of a model.
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)


def fitness(x: np.ndarray) -> np.ndarray:
    """Return (n,) the fitness of rows (n, >=4) that begin with precision, recall, mAP50, mAP50-95."""
    return np.asarray(x)[:, :4] @ np.array(FITNESS_WEIGHTS)


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    plot: bool = False,
    save_dir: str | Path = ".",
    names: Mapping[int, str] | tuple = (),
    eps: float = 1e-16,
    prefix: str = "",
) -> tuple[np.ndarray, ...]:
    """Return tp, fp, p, r, f1, ap, classes for each of the k classes with labels; counts at the best mean F1.

    Args:
        tp: (n, t) bool, whether each detection hits at each of t overlaps.
        conf: (n,) confidences; pred_cls: (n,) classes of the detections.
        target_cls: (m,) classes of the labelled objects.
        plot: whether to save the curves as pictures in `save_dir`, their names beginning with `prefix`.
        names: class names by index.
        eps: keeps classes without detections from dividing by zero.
    """
    curves = compute_curves(tp, conf, pred_cls, target_cls)
    if plot:
        from utils.curve_pictures import save_curves

        save_curves(curves, dict(names), save_dir, prefix=prefix)
    best = curves.best
    p, r, f1 = curves.precision[:, best], curves.recall[:, best], curves.f1[:, best]
    hits = (r * curves.objects).round()
    false_alarms = (hits / (p + eps) - hits).round()
    return hits, false_alarms, p, r, f1, curves.ap, curves.classes.astype(int)
