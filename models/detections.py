"""What AutoShape found in a list of images, in every form people ask for."""

from __future__ import annotations

import copy
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from utils.base.boxes import xyxy2xywh
from utils.base.image_io import write_image
from utils.base.logger import LOGGER, colorstr
from utils.base.paths import UniqueNames, increment_path
from utils.plots import Annotator, colors, save_one_box

if TYPE_CHECKING:
    import pandas as pd

CORNER_COLUMNS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTRE_COLUMNS = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")
TABLES = {"xyxy": CORNER_COLUMNS, "xyxyn": CORNER_COLUMNS, "xywh": CENTRE_COLUMNS, "xywhn": CENTRE_COLUMNS}


class Detections:
    """The detections in `n` images.

    Attributes:
        ims: the images, (H, W, 3) uint8 RGB.
        pred, xyxy: per image (m, 6) with rows x1, y1, x2, y2 (pixels of the image), confidence, class.
        xywh: the same with centre x, centre y, width, height; xyxyn and xywhn: as shares of the image's sides.
        names: class names by index; files: a file name for each image.
        times: seconds spent on preparing, inference and suppression, in all; t: the same in milliseconds per image.
        n: the number of images; s: the shape (B, 3, h, w) that went through the model.
    """

    def __init__(self, ims, pred, files, times=(0, 0, 0), names=None, shape=None):
        """Take images, predictions (m, 6) and file names, one each per image; times as seconds or as Profile."""
        self.ims: list[np.ndarray] = ims
        self.pred: list[Tensor] = pred
        self.files: list[str] = files
        self.names = names
        self.n = len(pred)
        self.times = tuple(getattr(each, "t", each) for each in times)
        self.t = tuple(seconds / max(self.n, 1) * 1e3 for seconds in self.times)
        self.s = tuple(shape or ())
        self.xyxy = pred
        self.xywh = [xyxy2xywh(boxes) for boxes in pred]
        self.xyxyn = [_normalise(boxes, im) for boxes, im in zip(self.xyxy, ims, strict=True)]
        self.xywhn = [_normalise(boxes, im) for boxes, im in zip(self.xywh, ims, strict=True)]

    def __len__(self) -> int:
        """Return the number of images."""
        return self.n

    def __str__(self) -> str:
        """Return a line for each image, and one about the time."""
        lines = [self._summary(i) for i in range(self.n)]
        if any(self.t):
            prepared, inferred, suppressed = (f"{t:.1f}ms" for t in self.t)
            lines.append(
                f"Speed: {prepared} pre-process, {inferred} inference, {suppressed} NMS per image at shape {self.s}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the class and what `str` says."""
        return f"YOLOv5 {self.__class__} instance\n{self}"

    def _summary(self, i: int) -> str:
        """Return `image 1/2: 720x1280 2 persons, 1 tie`."""
        height, width = self.ims[i].shape[:2]
        counts = sorted(Counter(int(c) for c in self.pred[i][:, 5]).items())
        found = ", ".join(f"{count} {self.names[c]}{'s' * (count > 1)}" for c, count in counts)
        return f"image {i + 1}/{self.n}: {height}x{width} {found or '(no detections)'}"

    def print(self) -> None:
        """Log what `str` says."""
        LOGGER.info(str(self))

    def pandas(self) -> Detections:
        """Return a copy whose xyxy, xyxyn, xywh and xywhn are DataFrames with named columns, one for each image."""
        tables = copy.copy(self)
        for attribute, columns in TABLES.items():
            setattr(tables, attribute, [self._table(boxes, columns) for boxes in getattr(self, attribute)])
        return tables

    def _table(self, boxes: Tensor, columns: tuple[str, ...]) -> pd.DataFrame:
        import pandas as pd

        rows = [[*row[:5], int(row[5]), self.names[int(row[5])]] for row in boxes.tolist()]
        return pd.DataFrame(rows, columns=columns)

    def tolist(self) -> list[Detections]:
        """Return one Detections for each image."""
        times = [seconds / max(self.n, 1) for seconds in self.times]
        parts = zip(self.ims, self.pred, self.files, strict=True)
        return [Detections([im], [pred], [file], times, self.names, self.s) for im, pred, file in parts]

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes into `ims`, with names and confidences where `labels`; return them (RGB)."""
        self.ims = [self._draw(i, labels) for i in range(self.n)]
        return self.ims

    def _draw(self, i: int, labels: bool) -> np.ndarray:
        """Return a copy of image `i` with its boxes; the most confident one on top."""
        annotator = Annotator(np.array(self.ims[i], order="C"), example=str(self.names))
        for *box, confidence, category in reversed(self.pred[i].tolist()):
            label = f"{self.names[int(category)]} {confidence:.2f}" if labels else ""
            annotator.box_label(box, label, color=colors(category))
        return annotator.result()

    def show(self, labels: bool = True) -> None:
        """Show the images with their boxes: in a notebook below the cell, else in the system's viewer."""
        from PIL import Image, ImageShow

        for i in range(self.n):
            image = Image.fromarray(self._draw(i, labels))
            if _in_notebook():
                from IPython.display import display

                display(image)
            elif not ImageShow.show(image, title=self.files[i]):
                LOGGER.warning(f"WARNING: no viewer for {self.files[i]} on this system; use save() instead of show()")

    def save(self, labels: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False) -> None:
        """Write the images with their boxes to `save_dir`, or to the next free folder after it without `exist_ok`."""
        folder = increment_path(save_dir, exist_ok, mkdir=True)
        unique_name = UniqueNames()
        for i, file in enumerate(self.files):
            write_image(folder / unique_name(file), self._draw(i, labels)[..., ::-1])
        LOGGER.info(f"Saved {self.n} image{'s' * (self.n != 1)} to {colorstr('bold', str(folder))}")

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Cut every detection out, and write it to `save_dir`/crops/<class name>/ with `save`.

        Returns:
            A dictionary for each: box (4,), conf and cls (tensors), label, and im, the crop (h, w, 3) BGR.
        """
        folder = increment_path(save_dir, exist_ok, mkdir=True) if save else Path()
        crops = [self._crop(i, row, folder, save) for i in range(self.n) for row in reversed(self.pred[i])]
        if save:
            LOGGER.info(f"Saved results to {colorstr('bold', str(folder))}")
        return crops

    def _crop(self, i: int, row: Tensor, folder: Path, save: bool) -> dict[str, Any]:
        box, confidence, category = row[:4], row[4], row[5]
        name = self.names[int(category)]
        file = folder / "crops" / _as_folder_name(name) / self.files[i]
        crop = save_one_box(box, self.ims[i], file=file, save=save)
        return {"box": box, "conf": confidence, "cls": category, "label": f"{name} {confidence:.2f}", "im": crop}


def _normalise(boxes: Tensor, im: np.ndarray) -> Tensor:
    """Divide the first four columns of `boxes` (m, 6) by the width and height of an image (H, W, 3)."""
    height, width = im.shape[:2]
    return boxes / torch.tensor([width, height, width, height, 1, 1], device=boxes.device)


def _as_folder_name(class_name: str) -> str:
    """Return a class name that can be a folder's: it comes from a file and may hold `../`."""
    return re.sub(r"[/\\:*?\"<>|\0]|^\.+", "_", str(class_name)) or "_"


def _in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    import sys

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config
