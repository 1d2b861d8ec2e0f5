"""What every answer can do: show itself in a notebook, become a table, be saved."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from explainer.files.results import Results, as_png, save_answer
from explainer.files.sources import Frame
from explainer.pictures.drawing import Style


class Presentable:
    """An answer about one image, given what it looks like and what is known about it.

    image_rgb  the original image, uint8 (H, W, 3)
    """

    image_rgb: np.ndarray

    def overlay(self, style: Style | None = None) -> np.ndarray:
        """Return the picture that answers, RGB uint8."""
        raise NotImplementedError

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the table; one without a class, whose note says why, where nothing was detected."""
        raise NotImplementedError

    def further_pictures(self, style: Style, per_detection: bool) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield folder and name, and the picture, RGB uint8, of whatever else there is to see; one at a time."""
        raise NotImplementedError

    def raw_maps(self) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
        """Yield folder and name, and the arrays by name, of the raw maps."""
        raise NotImplementedError

    def pandas(self):
        """Return one row per detection as a DataFrame, with the columns of explanations.csv that concern one image."""
        import pandas as pd

        return pd.DataFrame([row for row in self.rows() if "class" in row])

    def save(
        self,
        folder: str | Path,
        *,
        name: str = "image.jpg",
        style: Style | None = None,
        per_detection: bool = False,
        save_npz: bool = False,
    ) -> Path:
        """Write what the command writes into a folder, which is made, and return the path of the picture.

        name: that of the picture, and of the image in the table, to which rows are appended; further pictures lie in a
        folder called like it. The keywords are those of the command. OSError if something cannot be written.
        """
        with Results(Path(folder)) as results:
            frame = Frame(Path(name), self.image_rgb, "")
            wanted = {"per_detection": per_detection, "arrays": save_npz}
            return save_answer(results, frame, self, style=style or Style(), pictures=True, **wanted).path

    def _repr_png_(self) -> bytes:
        """Return the picture as a notebook shows it."""
        return as_png(self.overlay())
