"""The explainer as an object: an image as an array in, one frozen answer out. It touches no files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from explainer.answers import maps_together
from explainer.cams import CamReader
from explainer.detecting import prepare
from explainer.detectors.weights import keep_freed_memory, open_model
from explainer.errors import UsageError, unknown
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.exported import Exported, network_of
from explainer.files.labels import Written, boxes_in
from explainer.kinds import EVIDENCE
from explainer.layers import layers_by_level, place_of
from explainer.looks import PLAIN, SMOOTHING, Look, Plan, Question, look, smooth
from explainer.maps.heatmaps import Letterbox
from explainer.methods import METHODS
from explainer.network import PREDICTIONS, Network, Recording, borrowed
from explainer.plans import Planner
from explainer.renormalising import renormalise
from explainer.settings import Settings, check_classes, check_given
from explainer.subjects import Asked, Seen, subjects


class Explainer:
    """Explains what a YOLOv5 model detects, and what it does not.

        explainer = Explainer(model, method="GradCAM", layer="auto")
        explanation = explainer(image_rgb)
        why_not = explainer(image_rgb, boxes=[(x1, y1, x2, y2, "dog")])

    model: a DetectionModel, DetectMultiBackend or AutoShape, which is left as it was, or the path of a checkpoint, or
    several for an ensemble; for black-box methods also the path of an exported model, or one loaded. The keywords are
    those of `Settings`.
    """

    def __init__(self, model: nn.Module | Network | Exported | str | Path | list[str | Path], **settings):
        keep_freed_memory()
        self.settings = Settings(**settings)
        self.network = (
            model if isinstance(model, Network | Exported) else network_of(open_model(model), [self.settings])
        )
        self.method = METHODS[self.settings.method]
        self.formula = self.method.formula(self.settings.eigen_smooth)
        self.merge = self.method.merge if self.settings.fuse == "auto" else self.settings.fuse
        self.evidence = EVIDENCE[self.method.evidence].configured(self.settings)
        self.views = SMOOTHING if self.settings.aug_smooth else PLAIN
        self.chosen = chosen_classes(self.network.names, self.settings)
        check_classes(self.settings, self.network.names)
        self.layers = layers_by_level(self.network, self.settings.layer, self.method.reads)
        self.planner = Planner(self.settings, self.method, frozenset(self.chosen), self.network.levels, self.layers)
        self.at_head = place_of(self.settings.layer, self.method.reads) == "head"
        self.networks = [self.network]
        self.input_size = self.network.input_size(self.settings.imgsz)

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
        UsageError for a box that is none, that lies outside the image, or whose class the model lacks.
        """
        check_image(image_rgb)
        asked = self.asked(image_rgb.shape[:2], boxes, labels)
        with borrowed(self.network):
            return self.explain(image_rgb, self.see(image_rgb), asked)

    def see(self, image_rgb: np.ndarray) -> Seen:
        """Run the forward pass of an image, within `borrowed`; explainers of one network and one `sight` can share it."""
        image, letterbox = prepare(image_rgb, self.input_size, self.network)
        return Seen(self.network, self._record(image), letterbox)

    def explain(self, image_rgb: np.ndarray, seen: Seen, asked: Asked) -> Explanation:
        """Return the explanation of an image that was seen, within `borrowed`."""
        letterbox, found = seen.letterbox, subjects(seen, asked, self.settings, self.chosen)
        if not found.detections:
            return self._answer(image_rgb, asked, [], Look([], {}, {}, {}), letterbox)
        plan = self.planner.plan(found)
        answer = self._look(seen.recording, plan, letterbox)
        explained = [
            self._explain_one(detection, question, answer, letterbox)
            for detection, question in zip(found.detections, plan.of_detection, strict=True)
        ]
        return self._answer(image_rgb, asked, explained, answer, letterbox)

    def asked(
        self, image_size: tuple[int, int], boxes: Iterable[Written] | None, labels: Iterable[Written] | None
    ) -> Asked:
        """Return the boxes and labels of an image of this size (height, width); labels of the chosen classes alone."""
        check_given(self.settings, boxes, labels)
        names = self.network.names
        given = boxes_in(image_size, boxes, names, "boxes")
        known = boxes_in(image_size, labels, names, "labels")
        return Asked(given, known and [label for label in known if label.class_index in self.chosen])

    @property
    def sight(self) -> tuple:
        """What of an image must be seen: the input's height and width, the layers to record, and whether with a graph."""
        layers = tuple(dict.fromkeys(name for layers in self.layers for name in layers if name != PREDICTIONS))
        besides = [] if self.at_head else self.evidence.reads(self.network, layers)
        return self.input_size, tuple(dict.fromkeys((*layers, *besides))), self.evidence.graph and not self.at_head

    def _record(self, image: Tensor) -> Recording:
        """Run one forward pass of an image, and keep what the maps are made of."""
        _, layers, with_graph = self.sight
        return self.network.record(image, layers, with_graph)

    def _look(self, recording: Recording, plan: Plan, letterbox: Letterbox) -> Look:
        """Answer the questions from the recorded pass, or from it and other views of the image."""
        looks = []
        for number, view in enumerate(self.views):
            seen = self._record(view.image(recording.image)) if number else recording
            target = plan.target(seen, view)
            evidence = self.evidence(self.network, seen, target, at_head=self.at_head)
            looks.append(look(CamReader(self.formula, self.merge, evidence, letterbox), plan.questions))
        return smooth(looks, self.views, letterbox)

    def _explain_one(
        self, detection: Detection, question: Question, answer: Look, letterbox: Letterbox
    ) -> DetectionExplanation:
        """Return the explanation of one detection from the answer to its question."""
        layers, cams = self._shown(question.layers), answer.cams[question]
        empty = ""
        place = "" if layers == (PREDICTIONS,) else f" layer {' '.join(layers)}"
        if question in answer.reasons:
            kind = "detection" if detection.was_found else "box"
            advice = f"{place}; try --layer auto" if place else ""
            empty = f"a stride-{detection.stride or 'unknown'} {kind} {answer.reasons[question]}{advice}"
        elif not any((cam > 0).any() for cam in cams):
            empty = f"nothing{place and f' at{place}'} speaks for it by {self.settings.method}"
        note = "; ".join(filter(None, (empty, detection.remark)))
        score, signed = answer.scores[question.index], self.settings.signed
        return DetectionExplanation(
            detection, layers, score, cams, letterbox, note, signed, keep_only_topk=self.settings.keep_only_topk
        )

    def _shown(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return how layers are named in an answer."""
        return ("biases",) if self.method.reads == "biases" else layers

    def _answer(
        self,
        image_rgb: np.ndarray,
        asked: Asked,
        explained: list[DetectionExplanation],
        answer: Look,
        letterbox: Letterbox,
    ) -> Explanation:
        """Return the answer: the combined map, those of the classes and scales if asked for, and why a map is empty."""
        names = self.network.names
        maps = maps_together(answer.totals, letterbox, self.settings)
        if self.settings.renormalize:
            explained, maps = renormalise(explained, image_rgb.shape[:2], self.settings)
        strides = [level.stride for level in self.network.levels] if self.settings.scales else []
        nothing = np.zeros(image_rgb.shape[:2], dtype=np.float32)
        return Explanation(
            image_rgb,
            maps.heatmap,
            tuple(explained),
            self.settings.method,
            self.settings.backprop_array,
            per_class={names[index]: entry for index, entry in maps.per_class.items()},
            notes=(*self._notes(asked, explained, maps.heatmap), *filter(None, [answer.note])),
            signed=maps.signed,
            per_scale={stride: maps.per_scale.get(stride, nothing) for stride in strides},
        )

    def _notes(self, asked: Asked, explained: list[DetectionExplanation], heatmap: np.ndarray) -> list[str]:
        """Return why there is nothing to see, one sentence each."""
        notes = list(dict.fromkeys(entry.note for entry in explained if entry.note != entry.detection.remark))
        if not explained:
            notes.append("no box was given" if asked.boxes is not None else self._nothing_found())
        elif not heatmap.any() and not notes:
            notes.append("the evidence of the detections cancels out")
        return notes

    def _nothing_found(self) -> str:
        """Return how a sentence says that nothing was detected."""
        names = self.network.names
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


def check_image(image_rgb: np.ndarray) -> None:
    """Raise ValueError unless the array is an image: uint8 (H, W, 3), not empty."""
    shape = getattr(image_rgb, "shape", None)
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        kind = getattr(image_rgb, "dtype", type(image_rgb).__name__)
        raise ValueError(f"an image is a uint8 RGB array (H, W, 3); given: {kind} {shape}")
    if not image_rgb.size:
        raise ValueError(f"an image without pixels: {shape}")
