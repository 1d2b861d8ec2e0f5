"""Pictures of the data: a whole batch with its boxes, and what the labels of a data set are like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.boxes import xywh2xyxy
from utils.plots import Annotator, colors, new_figure, save_figure

MOST_IMAGES = 16
MOST_PIXELS = 1920
FILE_NAME_LETTERS = 40
WHITE, GREY = (255, 255, 255), (220, 220, 220)
# Of plot_labels: more outlines hide each other, more names cannot be read.
MOST_OUTLINES = 1000
LEGIBLE_CLASSES = 30


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


def plot_labels(labels: Sequence[np.ndarray], names: Mapping[int, str], save_dir: str | Path) -> None:
    """Save labels.jpg: objects per class, boxes over each other, where centres lie and how large boxes are.

    `labels` are (n, 5) arrays class, x, y, w, h relative to the image.
    """
    rows = np.concatenate(labels)
    figure = new_figure(9, 9)
    per_class, outlines, places, sizes = figure.subplots(2, 2).ravel()
    _draw_counts(per_class, rows[:, 0].astype(int), names)
    _draw_outlines(outlines, rows[:MOST_OUTLINES])
    for ax, (first, second), words in ((places, (1, 2), ("x", "y")), (sizes, (3, 4), ("width", "height"))):
        ax.hist2d(rows[:, first], rows[:, second], bins=50, range=((0, 1), (0, 1)), cmap="Blues")
        ax.set(xlabel=words[0], ylabel=words[1])
    save_figure(figure, Path(save_dir) / "labels.jpg")


def _draw_counts(ax, classes: np.ndarray, names: Mapping[int, str]) -> None:
    counts = np.bincount(classes, minlength=len(names))
    ax.bar(range(len(counts)), counts, color=[np.array(colors(i)) / 255 for i in range(len(counts))])
    ax.set_ylabel("instances")
    if len(names) <= LEGIBLE_CLASSES:
        ax.set_xticks(range(len(names)), list(names.values()), rotation=90, fontsize=8)


def _draw_outlines(ax, rows: np.ndarray) -> None:
    """Draw boxes, all moved to the centre."""
    from matplotlib.patches import Rectangle

    for category, _, _, width, height in rows:
        color = np.array(colors(int(category))) / 255
        ax.add_patch(Rectangle((-width / 2, -height / 2), width, height, fill=False, edgecolor=color, linewidth=0.5))
    ax.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), aspect="equal", xticks=[], yticks=[])
