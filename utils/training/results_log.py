"""The figures of every epoch: results.csv, results.png, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from utils.base.logger import LOGGER
from utils.base.paths import append_whole, writing_whole
from utils.validating.curves import smooth
from utils.validating.metrics import fitness
from utils.validating.pictures import new_figure, save_figure

COLUMNS = (
    *("train/box_loss", "train/obj_loss", "train/cls_loss"),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss"),
    *("x/lr0", "x/lr1", "x/lr2"),
)
HEADER = ",".join(f"{name:>20s}" for name in ("epoch", *COLUMNS)) + "\n"
FIRST_METRIC = COLUMNS.index("metrics/precision")
# In results.png, above the losses of training and below those of validation.
DRAWN = (0, 1, 2, 3, 4, 7, 8, 9, 5, 6)


class ResultsLog:
    """Adds a row per epoch to results.csv in a folder, and the same to TensorBoard.

    Attributes:
        path: of the table; earlier_fitness: (epoch, fitness) of the epochs before this run went on.
    """

    def __init__(self, folder: Path, *, start_epoch: int = 0) -> None:
        """Begin, or go on at `start_epoch`: rows of later epochs, which are to be repeated, are dropped."""
        self.path = folder / "results.csv"
        self._tensorboard = _open_tensorboard(folder)
        earlier = read_results(self.path) if start_epoch and self.path.exists() else np.zeros((0, 1 + len(COLUMNS)))
        earlier = earlier[earlier[:, 0] < start_epoch]
        if len(earlier):
            with writing_whole(self.path) as part:
                part.write_text(HEADER + "".join(map(_as_line, earlier)), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)
        self.earlier_fitness = list(
            zip(earlier[:, 0].astype(int), fitness(earlier[:, 1 + FIRST_METRIC :]), strict=True)
        )

    def add(self, epoch: int, values: Sequence[float]) -> None:
        """Add an epoch with the values of `COLUMNS`."""
        append_whole(self.path, _as_line((epoch, *values)), header=HEADER)
        if self._tensorboard:
            for name, value in zip(COLUMNS, values, strict=True):
                self._tensorboard.add_scalar(name, value, epoch)

    def close(self) -> None:
        """End the TensorBoard log."""
        if self._tensorboard:
            self._tensorboard.close()


def _as_line(row: Sequence[float]) -> str:
    """Return an epoch and its values as a line of the table."""
    return ",".join([f"{int(row[0]):>20d}", *(f"{value:>20.5g}" for value in row[1:])]) + "\n"


def _open_tensorboard(folder: Path):
    """Return a writer of TensorBoard logs; None where it is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    LOGGER.info(f"TensorBoard: start with 'tensorboard --logdir {folder.parent}', view at http://localhost:6006/")
    return SummaryWriter(str(folder))


def read_results(path: str | Path) -> np.ndarray:
    """Return the rows (n, 14) of a results.csv; a last line that was cut off is left out."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([row for row in rows if len(row) == 1 + len(COLUMNS)], dtype=float).reshape(-1, 1 + len(COLUMNS))


def plot_results(file: str | Path) -> None:
    """Draw the columns of a results.csv over the epochs, as results.png beside it."""
    rows = read_results(file)
    figure = new_figure(12, 6)
    for ax, column in zip(figure.subplots(2, 5).ravel(), DRAWN, strict=True):
        values = rows[:, 1 + column]
        ax.plot(rows[:, 0], values, marker=".", linewidth=2, markersize=8, label="results")
        ax.plot(rows[:, 0], smooth(values, 0.2), ":", linewidth=2, label="smooth")
        ax.set_title(COLUMNS[column], fontsize=11)
    figure.axes[1].legend()
    save_figure(figure, Path(file).with_name("results.png"))
