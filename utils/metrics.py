"""The measures of a detector, under the path that code written for YOLOv5 imports them from."""

from utils.base.boxes import bbox_iou, box_iou
from utils.validating.curves import Curves, compute_ap, compute_curves, smooth
from utils.validating.metrics import FITNESS_WEIGHTS, ConfusionMatrix, ap_per_class, fitness

__all__ = [
    "FITNESS_WEIGHTS",
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
