"""The explainer as an object: an image as an array in, one frozen answer out. It touches no files."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from explainer.attribution import Attribution, Attributor, Group, Question
from explainer.combining import combined, renormalised
from explainer.detectors.detector import Detector, Seen
from explainer.detectors.predictions import NEAR_MISS, NO_MASKS, Detection
from explainer.detectors.weights import detector_of, keep_freed_memory
from explainer.errors import UsageError, unknown
from explainer.explanation import DetectionExplanation, Explanation
from explainer.files.labels import Written, boxes_in
from explainer.maps.heatmaps import Letterbox
from explainer.methods.catalogue import METHODS, predictions_alone
from explainer.settings import Settings, check_given
from explainer.subjects import Asked, subjects


class Explainer:
    """Explains what a detector finds, and what it does not.

        explainer = Explainer(model, method="GradCAM", layer="auto")
        explanation = explainer(image_rgb)
        why_not = explainer(image_rgb, boxes=[(x1, y1, x2, y2, "dog")])

    model: a DetectionModel, DetectMultiBackend or AutoShape, which is left as it was, or the path of a checkpoint, or
    several for an ensemble; for black-box methods also the path of an exported model, or one loaded; or a Detector of your
    own. The keywords are those of `Settings`. Threads may share an explainer, or a model: each gets what it gets alone.
    """

    def __init__(self, model: nn.Module | Detector | str | Path | list[str | Path], **settings):
        keep_freed_memory()
        self.settings = Settings(**settings)
        self.detector = detector_of(model, self.settings.imgsz)
        check_detector(self.detector, self.settings)
        self.chosen = frozenset(chosen_classes(self.detector.names, self.settings))
        self.attributor = Attributor(self.detector, self.settings, self.chosen)
        self.sight, self.detectors = self.attributor.sight, [self.detector]

    def __call__(
        self,
        image_rgb: np.ndarray,
        *,
        boxes: Iterable[Written] | None = None,
        labels: Iterable[Written] | None = None,
    ) -> Explanation:
        """Return the explanation of one image, uint8 RGB (H, W, 3).

        boxes   explain these and nothing else, whether the model finds them or not: (x1, y1, x2, y2, class) in pixels of
                the image, the class by name or index. `explainer.subjects` says what their score is.
        labels  what there is in the image, written alike: each detection is then a hit or a false alarm, and a label that
                none hits is a miss, explained like a given box
        Without either, and where nothing is detected, the best prediction below the threshold is explained: one detection
        whose outcome is "below threshold", unless `no_near_miss` is set.
        UsageError for a box that is none, that lies outside the image, or whose class the model lacks.
        """
        check_image(image_rgb)
        asked = self.asked(image_rgb.shape[:2], boxes, labels)
        with self.detector.borrowed() as lent:
            return self.explain(image_rgb, lent.see(image_rgb, self.sight), asked)

    def explain(self, image_rgb: np.ndarray, seen: Seen, asked: Asked) -> Explanation:
        """Return the explanation of an image that was seen, within `borrowed`."""
        letterbox, found = seen.letterbox, subjects(seen, asked, self.settings, self.chosen)
        if not found.detections:
            return self._answer(image_rgb, asked, [], Attribution(), letterbox)
        answer, questions = self.attributor(seen, found)
        masks = seen.detector.masks(seen.recording, letterbox, found.detections)
        explained = [
            self._explain_one(replace(detection, mask=mask), question, answer, letterbox)
            for detection, mask, question in zip(found.detections, masks, questions, strict=True)
        ]
        return self._answer(image_rgb, asked, explained, answer, letterbox)

    def asked(
        self, image_size: tuple[int, int], boxes: Iterable[Written] | None, labels: Iterable[Written] | None
    ) -> Asked:
        """Return the boxes and labels of an image of this size (height, width); labels of the chosen classes alone."""
        if boxes is None and labels is None:
            return Asked()
        check_given(self.settings, boxes, labels)
        names = self.detector.names
        given = boxes_in(image_size, boxes, names, "boxes")
        known = boxes_in(image_size, labels, names, "labels")
        return Asked(given, known and [label for label in known if label.class_index in self.chosen])

    def _explain_one(
        self, detection: Detection, question: Question, answer: Attribution, letterbox: Letterbox
    ) -> DetectionExplanation:
        """Return the explanation of one detection from the answer to its question."""
        layers, cams = self.attributor.method.evidence.shown(question.layers), answer.cams[question]
        empty = ""
        place = f" layer {' '.join(layers)}" if self.attributor.method.evidence.reads_layers else ""
        if question in answer.reasons:
            kind = "detection" if detection.was_found else "box"
            advice = "; try --layer auto" if place and self._auto_reads_others(detection, question) else ""
            empty = f"a stride-{detection.stride or 'unknown'} {kind} {answer.reasons[question]}{place}{advice}"
        elif not any((cam > 0).any() for cam in cams):
            empty = f"nothing{place and f' at{place}'} speaks for it by {self.settings.method}"
        note = "; ".join(filter(None, (empty, detection.remark)))
        score, signed = answer.scores[question.index], self.settings.signed
        return DetectionExplanation(
            detection, layers, score, cams, letterbox, note, signed, keep_only_topk=self.settings.keep_only_topk
        )

    def _auto_reads_others(self, detection: Detection, question: Question) -> bool:
        """Return whether --layer auto would read a detection at other layers than a question did."""
        if self.settings.layer == ("auto",):
            return False
        method = self.attributor.method
        return (
            method.evidence.layers(self.detector, ("auto",), method.place).by_level[detection.level] != question.layers
        )

    def _answer(
        self,
        image_rgb: np.ndarray,
        asked: Asked,
        explained: list[DetectionExplanation],
        answer: Attribution,
        letterbox: Letterbox,
    ) -> Explanation:
        """Return the answer: the combined map, those of the classes and scales if asked for, and why a map is empty."""
        names = self.detector.names
        maps = combined(answer.totals, letterbox, self.settings)
        if self.settings.renormalize:
            explained, maps = renormalised(explained, image_rgb.shape[:2], self.settings)
        strides = self.detector.strides if self.settings.scales else ()
        nothing = np.zeros(image_rgb.shape[:2], dtype=np.float32)
        return Explanation(
            image_rgb,
            maps.heatmap,
            tuple(explained),
            self.settings.method,
            self.settings.backprop_array,
            per_class={names[g.class_index]: each for g, each in maps.of_group.items() if g.class_index is not None},
            notes=(*self._notes(asked, explained, maps.heatmap), *filter(None, [answer.note])),
            signed=maps.signed,
            per_scale={stride: maps.of_group.get(Group(stride=stride), nothing) for stride in strides},
        )

    def _notes(self, asked: Asked, explained: list[DetectionExplanation], heatmap: np.ndarray) -> list[str]:
        """Return why there is nothing to see, or nothing but a near miss, one sentence each."""
        notes = list(dict.fromkeys(entry.note for entry in explained if entry.note != entry.detection.remark))
        if not explained or explained[0].detection.outcome == NEAR_MISS:
            notes.append("no box was given" if asked.boxes is not None else self._nothing_found())
        elif not heatmap.any() and not notes:
            notes.append("the evidence of the detections cancels out")
        return notes

    def _nothing_found(self) -> str:
        """Return how a sentence says that nothing was detected."""
        names = self.detector.names
        every = len(self.chosen) == len(names)
        wanted = "detection" if every else " or ".join(names[index] for index in sorted(self.chosen))
        return f"no {wanted} above confidence {self.settings.conf_thres}"


def chosen_classes(names: dict[int, str], settings: Settings) -> set[int]:
    """Return the indices of the classes to explain; UsageError for a class that the model does not have."""
    for index in settings.classes:
        if index not in names:
            raise unknown("class", index, [f"{known} {name}" for known, name in names.items()])
    for name in settings.class_names:
        if name not in names.values():
            raise unknown("class name", name, names.values())
    chosen = set(settings.classes or names)
    if settings.class_names:
        chosen &= {index for index, name in names.items() if name in settings.class_names}
    if not chosen:
        raise UsageError(f"none of --class-names {' '.join(settings.class_names)} is among --classes; leave one out")
    return chosen


def check_detector(detector: Detector, settings: Settings) -> None:
    """Raise UsageError where a method, or a setting, needs more of a detector than it has."""
    method = METHODS[settings.method]
    if method.reads_layers and not detector.reads_layers:
        raise UsageError(predictions_alone(detector.called, settings.method, detector.layers_elsewhere))
    if "mask" in settings.backprop_array and not detector.predicts_masks:
        raise UsageError(NO_MASKS)
    if settings.scales and None in detector.strides:
        raise UsageError(
            f"--scales: {detector.called} does not tell which scale a prediction is of; leave --scales out"
        )
    if len(detector.names) < method.least_classes:
        raise UsageError(f"{settings.method} compares classes, and the model has only one; try --method GradCAM")


def check_image(image_rgb: np.ndarray) -> None:
    """Raise ValueError unless the array is an image: uint8 (H, W, 3), not empty."""
    shape = getattr(image_rgb, "shape", None)
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        kind = getattr(image_rgb, "dtype", type(image_rgb).__name__)
        raise ValueError(f"an image is a uint8 RGB array (H, W, 3); given: {kind} {shape}")
    if not image_rgb.size:
        raise ValueError(f"an image without pixels: {shape}")
