"""The answer of a comparison: the same image explained in several ways, side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from explainer.explanation import Detection, Explanation
from explainer.pictures import overlays
from explainer.pictures.drawing import Style
from explainer.presentable import Presentable


@dataclass(frozen=True)
class Comparison(Presentable):
    """Several answers about one image.

    image_rgb  the original image, uint8 (H, W, 3)
    by_model   for each model its answers by title, one for each method and layer; the titles are the same for all models
    layers     how many layers each method was read at by itself
    """

    image_rgb: np.ndarray
    by_model: tuple[dict[str, Explanation], ...]
    layers: int = 1

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """All answers, model by model."""
        return tuple(answer for answers in self.by_model for answer in answers.values())

    @property
    def found(self) -> dict[str, list[Detection]]:
        """What each model detected, by its name."""
        firsts = [next(iter(answers.values())) for answers in self.by_model]
        return {first.model: [entry.detection for entry in first.detections] for first in firsts}

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there is nothing to see, one sentence each: after the title of its answer, unless all of a model say it."""
        return tuple(note for answers in self.by_model for note in notes_of(answers))

    def overlay(self, style: Style | None = None) -> np.ndarray:
        """Return the photograph with its boxes and the answers, each with its title, side by side, RGB uint8 (H, W, 3).

        The models stand side by side; methods beside each other, or below each other if there are several layers of each.
        The size depends on that of the image and the number of answers alone, so that pictures make a video.
        """
        return overlays.comparison_sheet(self, style or Style())

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the table, answer by answer."""
        for answer in self.explanations:
            yield from answer.rows()

    def further_pictures(self, style: Style, per_detection: bool) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield names and pictures of what else there is of each answer, in a folder of its own."""
        for names, answer in self._named():
            for further, picture in answer.further_pictures(style, per_detection):
                yield (*names, *further), picture

    def raw_maps(self) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
        """Yield names and arrays of each answer, in a folder of its own."""
        for names, answer in self._named():
            for further, arrays in answer.raw_maps():
                yield (*names, *further), arrays

    def _named(self) -> Iterator[tuple[tuple[str, ...], Explanation]]:
        """Yield each answer after its model, where there are several, and its title."""
        for answers in self.by_model:
            for title, answer in answers.items():
                yield ((answer.model, title) if answer.model else (title,)), answer


def notes_of(answers: dict[str, Explanation]) -> Iterator[str]:
    """Yield the notes of one model's answers: first those of all of them, then those of each after its title."""
    first = next(iter(answers.values()))
    model = (first.model,) if first.model else ()
    common = [note for note in first.notes if all(note in answer.notes for answer in answers.values())]
    for note in common:
        yield ": ".join((*model, note))
    for title, answer in answers.items():
        yield from (": ".join((*model, title, note)) for note in answer.notes if note not in common)
