"""One picture of a whole batch, with boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.boxes import xywh2xyxy
from utils.plots import Annotator, colors

MOST_IMAGES = 16
MOST_PIXELS = 1920
FILE_NAME_LETTERS = 40
WHITE, GREY = (255, 255, 255), (220, 220, 220)


def draw_batch(images: Tensor, boxes: Sequence[Tensor], paths: Sequence[str], names: Mapping[int, str]) -> np.ndarray:
    """Return the first images of a batch side by side, (H, W, 3) uint8 BGR, at most `MOST_PIXELS` wide and high.

    Args:
        images: (B, 3, h, w), 0..255 as integers or 0..1.
        boxes: per image (n, 5) x1, y1, x2, y2, class for labels, or (n, 6) with the confidence before the class.
        paths: of the images; their names are written on them.
        names: class names by index.
    """
    count = min(len(images), MOST_IMAGES)
    columns = math.ceil(count**0.5)
    height, width = images.shape[2:]
    scale = min(1.0, MOST_PIXELS / columns / max(height, width))
    tile_h, tile_w = math.ceil(height * scale), math.ceil(width * scale)
    canvas = np.full((tile_h * math.ceil(count / columns), tile_w * columns, 3), 255, np.uint8)
    for i in range(count):
        tile = cv2.resize(_to_bgr(images[i]), (tile_w, tile_h))
        row, column = divmod(i, columns)
        drawn = _annotated(tile, boxes[i].cpu(), scale, names, Path(paths[i]).name[:FILE_NAME_LETTERS])
        canvas[row * tile_h : (row + 1) * tile_h, column * tile_w : (column + 1) * tile_w] = drawn
    return canvas


def labels_of_image(targets: Tensor, image: int) -> Tensor:
    """Return x1, y1, x2, y2, class (n, 5) of one image from the targets of its batch (n, 6) in pixels."""
    rows = targets[targets[:, 0] == image]
    return torch.cat((xywh2xyxy(rows[:, 2:]), rows[:, 1:2]), dim=1)


def _to_bgr(image: Tensor) -> np.ndarray:
    """Return a picture (h, w, 3) uint8 BGR of an image (3, h, w) RGB."""
    pixels = image.float() * 255 if image.is_floating_point() else image
    return np.ascontiguousarray(pixels.cpu().numpy().astype(np.uint8)[::-1].transpose(1, 2, 0))


def _annotated(tile: np.ndarray, boxes: Tensor, scale: float, names: Mapping[int, str], title: str) -> np.ndarray:
    annotator = Annotator(tile, line_width=2, font_size=12, example=f"{names}{title}")
    annotator.rectangle((0, 0, tile.shape[1] - 1, tile.shape[0] - 1), outline=WHITE, width=2)
    annotator.text((5, 5), title, txt_color=GREY)
    for *xyxy, last in boxes.tolist():
        confidence = f" {xyxy.pop():.1f}" if len(xyxy) == 5 else ""
        category = int(last)
        label = f"{names.get(category, category)}{confidence}"
        annotator.box_label([value * scale for value in xyxy], label, color=colors(category, bgr=True))
    return annotator.result()
