"""The detections of a run whose evidence lies most outside their box: where a model may have learnt the background."""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from explainer.files.sources import Frame
from explainer.pictures.overlays import detection_tile, tile_sheet
from explainer.pictures.sheets import Tile


@dataclass(frozen=True, order=True)
class Suspect:
    """One detection: the share of its heatmap inside its box, what is said about it, and its picture."""

    energy_in_box: float
    line: str = field(compare=False)
    tile: Tile = field(compare=False)


class Suspects:
    """Keeps the `count` detections with the least of their heatmap inside their box, the most suspect first."""

    def __init__(self, count: int):
        self.count = count
        self.kept: list[Suspect] = []

    def add(self, frame: Frame, answer, rows: Iterable[dict[str, object]]) -> None:
        """Look at the detections of one image; `rows` are those of the answer's table."""
        explained = [(each, entry) for each in answer.explanations for entry in each.detections]
        known = (row for row in rows if "class" in row)
        for (explanation, entry), row in zip(explained, known, strict=True):
            if entry.detection.was_found and self._counts(row["energy_in_box"]):
                insort(self.kept, suspect(frame, explanation, entry, row))
                del self.kept[self.count :]

    def _counts(self, energy: float | None) -> bool:
        """Return whether a detection is among the most suspect ones so far; one without a heatmap is not."""
        return energy is not None and (
            len(self.kept) < self.count or (self.kept and energy < self.kept[-1].energy_in_box)
        )

    @property
    def sheet(self) -> np.ndarray:
        """Their pictures side by side, RGB uint8 (H, W, 3)."""
        return tile_sheet([entry.tile for entry in self.kept])


def suspect(frame: Frame, explanation, entry, row: dict[str, object]) -> Suspect:
    """Return a detection as a suspect."""
    energy, found = row["energy_in_box"], entry.detection
    peak = "peak inside" if row["peak_in_box"] else "peak outside"
    figures = f"{energy:.0%} of the evidence in the box, {row['enrichment']:.1f} times chance, {peak}"
    number = f" frame {frame.number}" if frame.number else ""
    model = f"{explanation.model}: " if explanation.model else ""
    line = f"{frame.path}{number}: {model}{found.name} {found.confidence:.2f}, {explanation.method}: {figures}"
    title = f"{energy:.0%} in the box: {model}{found.name} {found.confidence:.2f}, {Path(frame.path).name}{number}"
    heatmap = entry.heatmap_at(explanation.image_rgb.shape[:2])
    return Suspect(energy, line, detection_tile(explanation.image_rgb, heatmap, found, title))
