"""Which classes a detector takes for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.logger import LOGGER
from utils.matching import match_any_class


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
        from utils.curve_pictures import save_confusion

        by_index = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        save_confusion(self.matrix, by_index, Path(save_dir) / "confusion_matrix.png", normalize=normalize)

    def print(self) -> None:
        """Log the counts."""
        for row in self.matrix:
            LOGGER.info(" ".join(f"{count:g}" for count in row))
