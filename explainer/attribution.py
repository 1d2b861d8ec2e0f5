"""From what is to be explained in an image to the maps of layers that answer it.

    subjects -> Planner.plan -> Plan: questions, and one target -> Attributor -> Attribution: scores, maps, maps of several

Several subjects in one map (all of them, a class, a scale) are shown each by its own map. Or they are summed: scores are
sums, so their gradients are sums. Neither takes another pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from explainer.detectors.detector import Detector, Layers, Seen, Sight
from explainer.detectors.predictions import Detection, Recording, Target
from explainer.maps.detail import times_detail
from explainer.maps.heatmaps import Cams, Letterbox, scaled_to_input
from explainer.methods.catalogue import FUSIONS, METHODS, Detail, Merge, Method
from explainer.methods.evidence import Evidence
from explainer.methods.formulas import Formula
from explainer.methods.targets import classes_target
from explainer.settings import Settings
from explainer.subjects import Subjects

# The names of the layers that a map is read from.
Names = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """What the subjects of one map have in common: nothing, a class by its index, or a scale by its stride."""

    class_index: int | None = None
    stride: int | None = None


EVERYTHING = Group()


def groups_of(detection: Detection, settings: Settings) -> tuple[Group, ...]:
    """Return the groups that a subject belongs to besides everything: its class and its scale, where those were asked for."""
    by_class = (Group(class_index=detection.class_index),) if settings.backward_per_class else ()
    by_scale = (Group(stride=detection.stride),) if settings.scales else ()
    return by_class + by_scale


@dataclass(frozen=True)
class Question:
    """Why one score is what it is.

    index   the number of the score in the target
    layers  the names of the layers to read
    groups  the groups whose maps it adds to
    """

    index: int
    layers: Names
    groups: tuple[Group, ...]


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


@dataclass(frozen=True)
class Plan:
    """What is asked about one image.

    questions     all of them, each once
    of_detection  the question that explains each subject
    target        from the recording of a view of the image to the scores that are asked about
    """

    questions: list[Question]
    of_detection: list[Question]
    target: Callable[[Recording, View], Target]


@dataclass(frozen=True)
class Planner:
    """Turns the subjects of an image into questions.

    chosen   the indices of the classes to explain
    strides  of each level of the detector
    layers   for each level, the names of the layers that its detections are read from
    own_rows whether a detection stands for its own prediction alone
    """

    settings: Settings
    method: Method
    chosen: frozenset[int]
    strides: tuple[int | None, ...]
    layers: tuple[Names, ...]
    own_rows: bool = False

    def plan(self, subjects: Subjects, levels: list[tuple[int, ...]] | None = None) -> Plan:
        """Return what is asked: each subject by its matched predictions, or the classes by all predictions.

        levels: those that each subject is read from; None for its own.
        """
        if self.settings.use_old_target_method:
            return self._classes(subjects.detections)
        return self._each(subjects, levels or [(detection.level,) for detection in subjects.detections])

    def _each(self, subjects: Subjects, levels: list[tuple[int, ...]]) -> Plan:
        """Ask for the score of each subject by itself."""
        boxes, classes = subjects.boxes_xyxy, [detection.class_index for detection in subjects.detections]
        questions = [
            Question(index, self._layers_at(read), self._adds_to(detection))
            for index, (detection, read) in enumerate(zip(subjects.detections, levels, strict=True))
        ]
        indices = torch.tensor(classes, dtype=torch.long, device=boxes.device)
        rows = [detection.row if detection.was_predicted else -1 for detection in subjects.detections]
        own = torch.tensor(rows, dtype=torch.long, device=boxes.device) if self.own_rows else None

        def target(seen: Recording, view: View) -> Target:
            there = view.boxes(boxes, seen.image.shape[3])
            # Another view of the image has predictions of its own.
            known = own if view == PLAIN[0] else None
            return self.method.target(seen.predictions, there, indices, self.settings.backprop_array, known)

        return Plan(questions, questions, target)

    def _layers_at(self, levels: tuple[int, ...]) -> Names:
        """Return the layers of some levels, each once."""
        return tuple(dict.fromkeys(name for level in levels for name in self.layers[level]))

    def _adds_to(self, detection: Detection) -> tuple[Group, ...]:
        """Return the groups that a subject's evidence adds to; the classes, each by itself, stand for everything together."""
        groups = groups_of(detection, self.settings)
        return groups if self.settings.backward_per_class else (EVERYTHING, *groups)

    def _classes(self, detections: list[Detection]) -> Plan:
        """Ask for the sum of all probabilities of the chosen classes, together or class by class, and scale by scale."""
        per_class = self.settings.backward_per_class
        found = sorted({detection.class_index for detection in detections})
        groups = [[index] for index in found] if per_class else [sorted(self.chosen)]
        questions = [
            Question(number, layers, (Group(class_index=group[0]) if per_class else EVERYTHING,))
            for number, group in enumerate(groups)
            for layers in dict.fromkeys(self.layers)
        ]
        number_of = {index: number for number, group in enumerate(groups) for index in group}
        by_number = {(question.index, question.layers): question for question in questions}
        of_detection = [by_number[number_of[d.class_index], self.layers[d.level]] for d in detections]

        def target(seen: Recording, view: View) -> Target:
            return classes_target(groups, list(self._by_scale(seen.rows_of_levels()).values()))

        return Plan(questions + self._of_scales(len(groups)), of_detection, target)

    def _of_scales(self, first: int) -> list[Question]:
        """Ask for the sum of each scale by itself; their scores are numbered from `first` on."""
        return [
            Question(number, layers, (Group(stride=stride),))
            for number, (stride, several) in enumerate(self._by_scale(self.layers).items(), start=first)
            for layers in dict.fromkeys(several)
        ]

    def _by_scale(self, of_levels: Sequence) -> dict[int, list]:
        """Return what belongs to the levels by stride, several where an ensemble has it more than once."""
        found = {}
        if self.settings.scales:
            for stride, entry in zip(self.strides, of_levels, strict=True):
                found.setdefault(stride, []).append(entry)
        return found


@dataclass(frozen=True)
class Attribution:
    """What one pass over an image answers.

    scores   of the target, one for each index
    cams     the maps of each question
    reasons  for questions without any evidence: how a sentence says so
    totals   the maps of each group: one entry for each subject, or of the sum one for each tuple of layers
    note     how the evidence came about, or ""
    """

    scores: list[float] = field(default_factory=list)
    cams: dict[Question, Cams] = field(default_factory=dict)
    reasons: dict[Question, str] = field(default_factory=dict)
    totals: dict[Group, list[Cams]] = field(default_factory=dict)
    note: str = ""


class Attributor:
    """Answers what speaks for the subjects of an image, for one detector as some settings want it.

    method  the entry of the settings' method
    layers  which layers are read
    sight   what of an image must be seen; attributors of one detector and one sight can share the pass
    """

    def __init__(self, detector: Detector, settings: Settings, chosen: frozenset[int]):
        self.settings, self.method = settings, METHODS[settings.method]
        self.formula = self.method.formula(settings.eigen_smooth)
        self.merge = self.method.merge if settings.fuse == "auto" else FUSIONS[settings.fuse]
        self.views = SMOOTHING if settings.aug_smooth else PLAIN
        self.layers = self.method.evidence.layers(detector, settings.layer, self.method.place)
        self.sight = sight_of(detector, settings, self.method.evidence, self.layers)
        by_level = self.layers.by_level
        self.planner = Planner(settings, self.method, chosen, detector.strides, by_level, detector.own_rows)

    def __call__(self, seen: Seen, subjects: Subjects) -> tuple[Attribution, list[Question]]:
        """Return the answer for a recorded pass, and the question in it that explains each subject."""
        levels = seen.detector.levels_of(seen.recording, subjects.detections, self.settings.backprop_array)
        plan, found = self.planner.plan(subjects, levels), []
        for number, view in enumerate(self.views):
            found.append(self._of_view(self._seen_as(view, seen) if number else seen, view, plan))
        return smoothed_over_views(found, self.views, seen.letterbox), plan.of_detection

    def _seen_as(self, view: View, seen: Seen) -> Seen:
        """Run one forward pass of another view of an image, and keep what the maps are made of."""
        image = view.image(seen.recording.image)
        return replace(seen, recording=seen.detector.record(image, self.sight.layers, self.sight.with_graph))

    def _of_view(self, seen: Seen, view: View, plan: Plan) -> Attribution:
        """Answer questions by one recorded pass."""
        recording, letterbox = seen.recording, seen.letterbox
        target, at_head = plan.target(recording, view), self.layers.at_head
        evidence = self.method.evidence(seen.detector, recording, target, self.settings, at_head=at_head)
        cams, reasons, totals, scores = {}, {}, {}, evidence.values
        several = EvidenceSum if self.settings.together == "sum" else EachByItself
        reader = CamReader(self.formula, self.merge, evidence, letterbox, self.method.detail)
        for question in plan.questions:
            parts = evidence.at(question.index, question.layers)
            cams[question] = reader.cams(question.layers, parts)
            for group in question.groups:
                totals.setdefault(group, several()).add(question.layers, parts, cams[question])
            if parts is not None and not any(part.any() for part in parts):
                reasons[question] = evidence.nothing
        shown = {group: total.cams(reader) for group, total in totals.items()}
        return Attribution(scores, cams, reasons, shown, evidence.note)


def sight_of(detector: Detector, settings: Settings, evidence: type[Evidence], layers: Layers) -> Sight:
    """Return what must be seen of an image for a kind of evidence at some layers."""
    names = tuple(dict.fromkeys(name for several in layers.by_level for name in several))
    besides = [] if layers.at_head else evidence.besides(detector, names)
    with_graph = evidence.graph and not layers.at_head
    return Sight(detector.input_size(settings.imgsz), tuple(dict.fromkeys((*names, *besides))), with_graph)


@dataclass(frozen=True)
class CamReader:
    """Reads maps of one recorded image by one formula, merges those of several layers, and adds the detail of the image."""

    formula: Formula
    merge: Merge | None
    evidence: Evidence
    letterbox: Letterbox
    detail: Detail | None = None
    _factors: dict[str, np.ndarray] = field(default_factory=dict)
    # The same for every subject where the activations alone count.
    _of_activations: dict[str, np.ndarray] = field(default_factory=dict)

    def cams(self, layers: Names, evidence: list[np.ndarray] | None) -> Cams:
        """Return float32 maps (h, w) over the letterboxed input, one per layer or a merged one; they may be negative."""
        if evidence is None:
            maps = [self._alone(name) for name in layers]
        else:
            maps = [self.formula(self._factor(name), part) for name, part in zip(layers, evidence, strict=True)]
        cams = tuple(maps) if self.merge is None else self.merge(maps, self.letterbox)
        return cams if self.detail is None else times_detail(cams, self._detail_of_image)

    @cached_property
    def _detail_of_image(self) -> np.ndarray:
        """The factor (h, w) of the recorded image; the same for every subject."""
        image = self.evidence.recording.image[0].detach().float().cpu().permute(1, 2, 0)
        return self.detail(image.numpy(), self.letterbox)

    def _factor(self, layer: str) -> np.ndarray:
        """Return what a layer's evidence is held against."""
        if layer not in self._factors:
            self._factors[layer] = self.evidence.factor(layer)
        return self._factors[layer]

    def _alone(self, layer: str) -> np.ndarray:
        """Return the map of a layer's activations alone."""
        if layer not in self._of_activations:
            self._of_activations[layer] = self.formula(self._factor(layer), None)
        return self._of_activations[layer]


class EachByItself:
    """The maps of several subjects, kept apart until each is scaled to its own peak, so that none shadows another."""

    def __init__(self):
        # Where the activations alone count all subjects have the same maps.
        self._cams: dict[tuple[int, ...], Cams] = {}

    def add(self, layers: Names, evidence: list[np.ndarray] | None, cams: Cams) -> None:
        """Add the maps of one subject; its layers and its evidence are not needed for them."""
        self._cams[tuple(map(id, cams))] = cams

    def cams(self, reader: CamReader) -> list[Cams]:
        """Return the maps, one entry for each subject."""
        return list(self._cams.values())


class EvidenceSum:
    """Evidence for several scores, added up for each tuple of layers that it was read from."""

    def __init__(self):
        self._evidence: dict[Names, list[np.ndarray] | None] = {}
        # The maps of layers that a single score was read from are those of the sum.
        self._of_one: dict[Names, Cams | None] = {}

    def add(self, layers: Names, evidence: list[np.ndarray] | None, cams: Cams) -> None:
        """Add the evidence for one score at these layers, None where it is the activations alone; `cams` are its maps."""
        so_far = self._evidence.get(layers)
        if so_far is not None:
            evidence = [a + b for a, b in zip(so_far, evidence, strict=True)]
        self._of_one[layers] = None if layers in self._evidence else cams
        self._evidence[layers] = evidence

    def cams(self, reader: CamReader) -> list[Cams]:
        """Return the maps of the sum, one entry for each tuple of layers."""
        return [self._of_one[layers] or reader.cams(layers, evidence) for layers, evidence in self._evidence.items()]


def smoothed_over_views(several: list[Attribution], views: tuple[View, ...], letterbox: Letterbox) -> Attribution:
    """Return one answer from several views: the mean of their maps, each scaled to 0..1, and the first view's scores."""
    if len(several) == 1:
        return several[0]

    def mean(cams_of_views: list[Cams]) -> Cams:
        pairs = zip(cams_of_views, views, strict=True)
        return (np.mean([view.undo(scaled_to_input(cams, letterbox)) for cams, view in pairs], axis=0),)

    first = several[0]
    everywhere = {question for question in first.reasons if all(question in each.reasons for each in several)}
    return Attribution(
        first.scores,
        {question: mean([each.cams[question] for each in several]) for question in first.cams},
        {question: reason for question, reason in first.reasons.items() if question in everywhere},
        {
            group: [mean(list(cams)) for cams in zip(*(each.totals[group] for each in several), strict=True)]
            for group in first.totals
        },
        first.note,
    )
