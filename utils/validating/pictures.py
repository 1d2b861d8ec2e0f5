"""Pictures of curves and of the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.plots import new_figure, save_figure
from utils.validating.curves import Curves

# With more classes than this only the mean stands in the legend, and matrices go without numbers.
LEGIBLE_CLASSES, LEGIBLE_CELLS = 20, 30


def save_curves(curves: Curves, names: Mapping[int, str], folder: str | Path, *, prefix: str = "") -> None:
    """Save PR_curve.png, F1_curve.png, P_curve.png and R_curve.png, their names beginning with `prefix`."""
    folder = Path(folder)
    labels = [names.get(int(c), str(int(c))) for c in curves.classes]
    _save_precision_recall(curves, labels, folder / f"{prefix}PR_curve.png")
    for letter, name, values in (
        ("F1", "F1", curves.f1),
        ("P", "Precision", curves.precision),
        ("R", "Recall", curves.recall),
    ):
        _save_by_confidence(values, labels, name, folder / f"{prefix}{letter}_curve.png")


def _save_precision_recall(curves: Curves, labels: list[str], path: Path) -> None:
    ap50 = curves.ap[:, 0] if len(curves.ap) else np.zeros(0)
    captions = [f"{label} {ap:.3f}" for label, ap in zip(labels, ap50, strict=True)]
    mean = f"all classes {ap50.mean() if len(ap50) else 0:.3f} mAP@0.5"
    _save_lines(curves.precision_by_recall, captions, mean, ("Recall", "Precision"), path)


def _save_by_confidence(values: np.ndarray, labels: list[str], name: str, path: Path) -> None:
    mean = values.mean(0) if len(values) else np.zeros(values.shape[1])
    best = int(mean.argmax())
    caption = f"all classes {mean[best]:.2f} at {best / (len(mean) - 1):.3f}"
    _save_lines(values, labels, caption, ("Confidence", name), path)


def _save_lines(values: np.ndarray, captions: list[str], mean: str, axes: tuple[str, str], path: Path) -> None:
    """Draw a thin line per class (k, points) and a thick one for their mean, over 0..1."""
    figure = new_figure(9, 6)
    ax = figure.subplots()
    x = np.linspace(0, 1, values.shape[1])
    legible = len(captions) <= LEGIBLE_CLASSES
    for line, caption in zip(values, captions, strict=True):
        ax.plot(x, line, linewidth=1, color=None if legible else "0.7", label=caption if legible else None)
    ax.plot(x, values.mean(0) if len(values) else x * 0, linewidth=3, color="blue", label=mean)
    ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, 1), title=f"{axes[1]}-{axes[0]} curve")
    figure.legend(loc="outside right upper", fontsize=8)
    save_figure(figure, path)


def save_confusion(matrix: np.ndarray, names: Mapping[int, str], path: str | Path, *, normalize: bool) -> None:
    """Save a picture of counts (nc + 1, nc + 1), rows detected, columns labelled; as shares of the column if asked."""
    shown = matrix / (matrix.sum(0, keepdims=True) + 1e-9) if normalize else matrix
    figure = new_figure(12, 9)
    ax = figure.subplots()
    image = ax.imshow(np.where(shown < 0.005, np.nan, shown), cmap="Blues", vmin=0)
    figure.colorbar(image, ax=ax)
    if len(matrix) <= LEGIBLE_CELLS:
        _write_cells(ax, shown, "{:.2f}" if normalize else "{:.0f}")
    if len(names) == len(matrix) - 1 and len(matrix) < 100:
        ticks = [*(names[i] for i in range(len(names))), "background"]
        ax.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=8)
        ax.set_yticks(range(len(ticks)), ticks, fontsize=8)
    ax.set(xlabel="True", ylabel="Predicted", title="Confusion Matrix")
    save_figure(figure, path)


def _write_cells(ax: Any, shown: np.ndarray, form: str) -> None:
    dark = shown.max() / 2
    for row, column in zip(*np.nonzero(shown >= 0.005), strict=True):
        value = shown[row, column]
        ax.text(column, row, form.format(value), ha="center", va="center", color="white" if value > dark else "black")
