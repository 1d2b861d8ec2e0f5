"""A picture of what the labels of a data set are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.curve_pictures import new_figure, save_figure
from utils.plots import colors

MOST_OUTLINES = 1000
LEGIBLE_CLASSES = 30


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
