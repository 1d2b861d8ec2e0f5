"""How well a detector works: which detections hit which objects, classes taken for others, and figures from curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.base.boxes import box_iou
from utils.base.logger import LOGGER
from utils.validating.curves import compute_curves

# The ten overlaps that mAP50-95 is the mean over.
IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)
# How much precision, recall, mAP50 and mAP50-95 count in the fitness of a model.
FITNESS_WEIGHTS = (0.0, 0.0, 0.1, 0.9)


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


class ConfusionMatrix:
    """Counts of detected against labelled classes.

    Attributes:
        matrix: (nc + 1, nc + 1) counts; rows are detected classes, columns labelled ones, the last of each background:
            what was not labelled, or not found.
        nc: number of classes; conf: the least confidence that counts; iou_thres: the overlap that a match must exceed.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45) -> None:
        self.matrix = np.zeros((nc + 1, nc + 1))
        self.nc, self.conf, self.iou_thres = nc, conf, iou_thres

    def process_batch(self, detections: Tensor | None, labels: Tensor) -> None:
        """Add one image: detections (n, 6) x1, y1, x2, y2, confidence, class, or None; labels (m, 5) class, x1, ..."""
        labelled = labels[:, 0].long().cpu().numpy() if labels.ndim == 2 else labels.long().cpu().numpy()
        if detections is None:
            np.add.at(self.matrix, (self.nc, labelled), 1)
            return
        detections = detections[detections[:, 4] > self.conf]
        detected = detections[:, 5].long().cpu().numpy()
        found, target = (index.cpu().numpy() for index in match_any_class(detections, labels, self.iou_thres))
        np.add.at(self.matrix, (detected[found], labelled[target]), 1)
        np.add.at(self.matrix, (self.nc, np.delete(labelled, target)), 1)
        np.add.at(self.matrix, (np.delete(detected, found), self.nc), 1)

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (nc,) right detections and (nc,) wrong ones of each class."""
        right = self.matrix.diagonal()
        return right[:-1].copy(), (self.matrix.sum(1) - right)[:-1]

    def plot(self, normalize: bool = True, save_dir: str | Path = "", names: Mapping[int, str] | Sequence = ()) -> None:
        """Save confusion_matrix.png in `save_dir`; with `normalize` as shares of each labelled class."""
        from utils.validating.pictures import save_confusion

        by_index = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        save_confusion(self.matrix, by_index, Path(save_dir) / "confusion_matrix.png", normalize=normalize)

    def print(self) -> None:
        """Log the counts."""
        for row in self.matrix:
            LOGGER.info(" ".join(f"{count:g}" for count in row))


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
        from utils.validating.pictures import save_curves

        save_curves(curves, dict(names), save_dir, prefix=prefix)
    best = curves.best
    p, r, f1 = curves.precision[:, best], curves.recall[:, best], curves.f1[:, best]
    hits = (r * curves.objects).round()
    false_alarms = (hits / (p + eps) - hits).round()
    return hits, false_alarms, p, r, f1, curves.ap, curves.classes.astype(int)
