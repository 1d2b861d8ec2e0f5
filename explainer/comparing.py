"""Explaining the same image in several ways: by several methods, at several layers, by several models."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from explainer.detectors.detector import Detector
from explainer.detectors.predictions import Detection
from explainer.detectors.weights import detector_of, model_names
from explainer.errors import UsageError, unknown
from explainer.explain import Explainer, check_image
from explainer.explanation import Explanation, Presentable
from explainer.files.labels import Written
from explainer.pictures import sheets
from explainer.pictures.drawing import Style
from explainer.settings import Settings, as_tuple, variants

Model = nn.Module | Detector | str | Path


class Comparer:
    """Explains an image in several ways.

        comparer = Comparer("best.pt", method=["GradCAM", "LayerCAM"])
        comparer = Comparer(["best.pt", "last.pt"], layer=[17, 20, 23], each_layer=True)
        comparison = comparer(image_rgb)

    models: what `Explainer` takes, one or a list of several. names: what they are called; by default as their files are.
    The keywords are those of `Settings`, of which method may be several. Of --class-names each model explains those that
    it has. UsageError says what is wrong, and with which model.
    """

    def __init__(
        self, models: Model | Sequence[Model], *, names: Sequence[str] = (), each_layer: bool = False, **settings
    ):
        models = list(models) if isinstance(models, (list, tuple)) else [models]
        self.names = list(names or model_names(models)) if len(models) > 1 else [""]
        self.ways = {way_title(way): way for way in variants(settings, each_layer)}
        self.layers = len({way.layer for way in self.ways.values()})
        self.detectors = [detector_of(model, next(iter(self.ways.values())).imgsz) for model in models]
        check_class_names(as_tuple(settings.get("class_names")), self.detectors)
        self.explainers = [
            {title: explainer_of(detector, name, way) for title, way in self.ways.items()}
            for name, detector in zip(self.names, self.detectors, strict=True)
        ]

    def __call__(
        self,
        image_rgb: np.ndarray,
        *,
        boxes: Iterable[Written] | None = None,
        labels: Iterable[Written] | None = None,
    ) -> "Comparison":
        """Return the comparison for one image, uint8 RGB (H, W, 3); boxes and labels are those of `Explainer`."""
        check_image(image_rgb)
        given = [None if entries is None else list(entries) for entries in (boxes, labels)]
        answers = []
        for name, explainers in zip(self.names, self.explainers, strict=True):
            answer = explained(image_rgb, list(explainers.values()), *given)
            answers.append(dict(zip(explainers, (replace(entry, model=name) for entry in answer), strict=True)))
        return Comparison(image_rgb, tuple(answers), self.layers)


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
        """What each model detected, and what it did not but was explained, by its name."""
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
        return sheets.comparison_sheet(self, style or Style())

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


def explained(
    image_rgb: np.ndarray, explainers: list[Explainer], boxes: list[Written] | None, labels: list[Written] | None
) -> Iterator[Explanation]:
    """Yield what explainers of one detector say; those that look at the same layers share one forward pass."""
    detector, seen = explainers[0].detector, {}
    asked = [explainer.asked(image_rgb.shape[:2], boxes, labels) for explainer in explainers]
    with detector.borrowed() as lent:
        for explainer, question in zip(explainers, asked, strict=True):
            if explainer.sight not in seen:
                seen[explainer.sight] = lent.see(image_rgb, explainer.sight)
            yield explainer.explain(image_rgb, seen[explainer.sight], question)


def way_title(way: Settings) -> str:
    """Return what tells one way to explain from others: its method and its layer."""
    return f"{way.method}, layer {' '.join(map(str, way.layer))}"


def explainer_of(detector: Detector, name: str, way: Settings) -> Explainer:
    """Return the explainer of a detector that goes this way; its UsageError names the model, if it has a name."""
    known = list(detector.names.values())
    class_names = tuple(entry for entry in way.class_names if entry in known)
    if way.class_names and not class_names:
        raise UsageError(
            f"{name} knows none of --class-names {' '.join(way.class_names)}; its classes: {', '.join(known)}"
        )
    try:
        return Explainer(detector, **vars(way) | {"class_names": class_names})
    except UsageError as error:
        raise UsageError(f"{name}: {error}" if name else str(error)) from error


def check_class_names(class_names: tuple[str, ...], detectors: list[Detector]) -> None:
    """Raise UsageError for a class that none of the detectors has."""
    known = {name: None for detector in detectors for name in detector.names.values()}
    for name in class_names:
        if name not in known:
            raise unknown("class name", name, known)


def notes_of(answers: dict[str, Explanation]) -> Iterator[str]:
    """Yield the notes of one model's answers: first those of all of them, then those of each after its title."""
    first = next(iter(answers.values()))
    model = (first.model,) if first.model else ()
    common = [note for note in first.notes if all(note in answer.notes for answer in answers.values())]
    for note in common:
        yield ": ".join((*model, note))
    for title, answer in answers.items():
        yield from (": ".join((*model, title, note)) for note in answer.notes if note not in common)
