"""Looking at one image: every question is answered from one recorded pass, or from several views of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explainer.cams import CamReader, EvidenceSum
from explainer.heads import Target
from explainer.maps.heatmaps import Cams, Letterbox, scaled_to_input
from explainer.network import Recording


@dataclass(frozen=True)
class Scale:
    """The name of the map of all that comes from the head inputs of one stride."""

    stride: int


# A map that evidence is added up to: that of a class, of a scale, or None for the one that shows everything.
Group = int | Scale | None


@dataclass(frozen=True)
class Question:
    """Why one score is what it is.

    index   the number of the score in the target
    layers  the names of the layers to read
    groups  the maps that it adds to
    """

    index: int
    layers: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Plan:
    """What is asked about one image.

    questions     all of them, each once
    of_detection  the question that explains each detection
    target        from the recording of a view of the image to the scores that are asked about
    """

    questions: list[Question]
    of_detection: list[Question]
    target: Callable[[Recording, "View"], Target]


@dataclass(frozen=True)
class Look:
    """What one pass over an image answers.

    scores     of the target, one for each index
    cams       the maps of each question
    reasons    for questions without any evidence: how a sentence says so
    totals     the maps of each group, one entry for each group of layers that its questions were read from
    note       how the evidence came about, or ""
    """

    scores: list[float]
    cams: dict[Question, Cams]
    reasons: dict[Question, str]
    totals: dict[Group, list[Cams]]
    note: str = ""


def look(reader: CamReader, questions: list[Question]) -> Look:
    """Answer questions by one recorded pass."""
    cams, reasons, sums = {}, {}, {}
    for question in questions:
        evidence = reader.evidence.at(question.index, question.layers)
        cams[question] = reader.cams(question.layers, evidence)
        for group in question.groups:
            sums.setdefault(group, EvidenceSum()).add(question.layers, evidence, cams[question])
        if evidence is not None and not any(part.any() for part in evidence):
            reasons[question] = reader.evidence.nothing
    totals = {group: total.cams(reader) for group, total in sums.items()}
    return Look(reader.evidence.scores.tolist(), cams, reasons, totals, reader.evidence.note)


@dataclass(frozen=True)
class View:
    """The image as it is looked at: mirrored or not, and with its brightness multiplied."""

    mirrored: bool = False
    brightness: float = 1.0

    def image(self, image: Tensor) -> Tensor:
        """Return this view of an image (1, 3, h, w)."""
        return (image.flip(3) if self.mirrored else image) * self.brightness

    def boxes(self, boxes_xyxy: Tensor, width: int) -> Tensor:
        """Return where boxes (D, 4) of the input lie in this view of it, given the input's width."""
        if not self.mirrored:
            return boxes_xyxy
        x1, y1, x2, y2 = boxes_xyxy.unbind(1)
        return torch.stack((width - x2, y1, width - x1, y2), dim=1)

    def undo(self, cam: np.ndarray) -> np.ndarray:
        """Return a map of this view as a map of the image."""
        return cam[:, ::-1] if self.mirrored else cam


PLAIN = (View(),)
# The library's: the image as it is comes first.
SMOOTHING = tuple(View(mirrored, brightness) for mirrored in (False, True) for brightness in (1.0, 0.9, 1.1))


def smooth(looks: list[Look], views: tuple[View, ...], letterbox: Letterbox) -> Look:
    """Return one answer from several views: the mean of their maps, each scaled to 0..1, and the first view's scores."""
    if len(looks) == 1:
        return looks[0]

    def mean(cams_of_views: list[Cams]) -> Cams:
        pairs = zip(cams_of_views, views, strict=True)
        return (np.mean([view.undo(scaled_to_input(cams, letterbox)) for cams, view in pairs], axis=0),)

    first = looks[0]
    return Look(
        first.scores,
        {question: mean([each.cams[question] for each in looks]) for question in first.cams},
        {question: reason for question, reason in first.reasons.items() if all(question in e.reasons for e in looks)},
        {
            group: [mean(list(cams)) for cams in zip(*(each.totals[group] for each in looks), strict=True)]
            for group in first.totals
        },
        first.note,
    )
