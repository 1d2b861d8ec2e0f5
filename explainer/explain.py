"""The explainer as an object: an image as an array in, one frozen answer out. It touches no files."""

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from explainer.applicability import check_classes
from explainer.cams import CamReader
from explainer.detecting import detect, prepare
from explainer.errors import UsageError, unknown
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.heads import Target
from explainer.kinds import EVIDENCE, TARGETS
from explainer.layers import layers_by_level
from explainer.looks import PLAIN, SMOOTHING, Look, Plan, Question, View, look, smooth
from explainer.maps import Letterbox, heatmap_of, hottest, keep_hottest
from explainer.methods import METHODS
from explainer.network import Network, Recording, borrowed
from explainer.options import Settings
from explainer.targets import classes_target
from explainer.weights import open_model
from utils.general import check_img_size


class Explainer:
    """Explains what a YOLOv5 model detects.

        explainer = Explainer(model, method="GradCAM", layer="auto")
        explanation = explainer(image_rgb)

    model: a DetectionModel, DetectMultiBackend or AutoShape, which is left as it was, or the path of a checkpoint, or
    several for an ensemble. The keywords are those of `Settings`.
    """

    def __init__(self, model: nn.Module | str | Path | list[str | Path], **settings):
        self.settings = Settings(**settings)
        self.network = Network(open_model(model))
        self.method = METHODS[self.settings.method]
        self.formula = self.method.formula(self.settings.eigen_smooth)
        self.evidence = EVIDENCE[self.method.evidence]
        self.views = SMOOTHING if self.settings.aug_smooth else PLAIN
        self.chosen = chosen_classes(self.network.names, self.settings)
        check_classes(self.settings, self.network.names)
        self.layers = layers_by_level(self.network, self.settings.layer, self.method.reads)
        self.at_head = self.settings.layer == ("auto",) and self.method.reads == "head"
        self.input_size = tuple(check_img_size(list(self.settings.imgsz), s=self.network.stride))

    def __call__(self, image_rgb: np.ndarray) -> Explanation:
        """Return the explanation of one image, uint8 RGB (H, W, 3)."""
        check_image(image_rgb)
        with borrowed(self.network):
            image, letterbox = prepare(image_rgb, self.input_size, self.network)
            recording = self._record(image)
            found, boxes = detect(self.network, recording, letterbox, self.settings)
            wanted = [i for i, detection in enumerate(found) if detection.class_index in self.chosen]
            detections = [found[i] for i in wanted]
            if not detections:
                return self._answer(image_rgb, [], {})
            plan = self._plan(detections, boxes[wanted])
            answer = self._look(recording, plan, letterbox)
            explained = [
                self._explain_one(detection, question, answer, letterbox)
                for detection, question in zip(detections, plan.of_detection, strict=True)
            ]
            return self._answer(image_rgb, explained, self._heatmaps(answer, letterbox))

    def _record(self, image: Tensor) -> Recording:
        """Run one forward pass of an image, and keep what the maps are made of."""
        layers = tuple(dict.fromkeys(name for layers in self.layers for name in layers))
        besides = [] if self.at_head else self.evidence.reads(self.network, layers)
        with_graph = self.evidence.graph and not self.at_head
        return self.network.record(image, tuple(dict.fromkeys((*layers, *besides))), with_graph)

    def _plan(self, detections: list[Detection], boxes: Tensor) -> Plan:
        """Return what is asked: each detection by its matched raw predictions, or the classes by all raw predictions."""
        return (
            self._plan_classes(detections)
            if self.settings.use_old_target_method
            else self._plan_each(detections, boxes)
        )

    def _plan_each(self, detections: list[Detection], boxes: Tensor) -> Plan:
        """Ask for the score of each detection with a box (D, 4) in input pixels."""
        questions = [
            Question(index, self._layers_of(detection), self._group(detection.class_index))
            for index, detection in enumerate(detections)
        ]
        classes = [detection.class_index for detection in detections]
        make, items = TARGETS[self.method.target], self.settings.backprop_array

        def target(seen: Recording, view: View) -> Target:
            return make(seen.raw, view.boxes(boxes, seen.image.shape[3]), classes, items)

        return Plan(questions, questions, target)

    def _plan_classes(self, detections: list[Detection]) -> Plan:
        """Ask for the sum of all raw probabilities of the chosen classes, together or class by class."""
        found = sorted({detection.class_index for detection in detections})
        groups = [[index] for index in found] if self.settings.backward_per_class else [sorted(self.chosen)]
        questions = [
            Question(number, layers, self._group(group[0]))
            for number, group in enumerate(groups)
            for layers in dict.fromkeys(self.layers)
        ]
        number_of = {index: number for number, group in enumerate(groups) for index in group}
        by_number = {(question.index, question.layers): question for question in questions}
        of_detection = [by_number[number_of[d.class_index], self._layers_of(d)] for d in detections]
        return Plan(questions, of_detection, lambda seen, view: classes_target(groups))

    def _group(self, class_index: int) -> int | None:
        """Return which map a class adds to."""
        return class_index if self.settings.backward_per_class else None

    def _layers_of(self, detection: Detection) -> tuple[str, ...]:
        """Return the names of the layers that a detection is read from."""
        return self.layers[detection.level]

    def _look(self, recording: Recording, plan: Plan, letterbox: Letterbox) -> Look:
        """Answer the questions from the recorded pass, or from it and other views of the image."""
        looks = []
        for number, view in enumerate(self.views):
            seen = self._record(view.image(recording.image)) if number else recording
            target = plan.target(seen, view)
            evidence = self.evidence(self.network, seen, target, at_head=self.at_head)
            looks.append(look(CamReader(self.formula, self.method.merge, evidence, letterbox), plan.questions))
        return smooth(looks, self.views, letterbox)

    def _explain_one(
        self, detection: Detection, question: Question, answer: Look, letterbox: Letterbox
    ) -> DetectionExplanation:
        """Return the explanation of one detection from the answer to its question."""
        layers, cams = self._shown(question.layers), answer.cams[question]
        note = ""
        if question in answer.reasons:
            reason = f"{answer.reasons[question]} layer {' '.join(layers)}"
            note = f"a stride-{detection.stride} detection {reason}; try --layer auto"
        elif not any((cam > 0).any() for cam in cams):
            note = f"nothing at layer {' '.join(layers)} speaks for it by {self.settings.method}"
        return DetectionExplanation(detection, layers, answer.scores[question.index], cams, letterbox, note)

    def _shown(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return how layers are named in an answer."""
        return ("biases",) if self.method.reads == "biases" else layers

    def _heatmaps(self, answer: Look, letterbox: Letterbox) -> dict[int | None, np.ndarray]:
        """Return the heatmap of each group. Where its layers differ, each pixel shows the hottest of their maps."""
        return {
            group: keep_hottest(
                hottest([heatmap_of(list(cams), letterbox) for cams in maps], letterbox.image_size),
                self.settings.keep_only_topk,
            )
            for group, maps in answer.totals.items()
        }

    def _answer(
        self,
        image_rgb: np.ndarray,
        explained: list[DetectionExplanation],
        heatmaps: dict[int | None, np.ndarray],
    ) -> Explanation:
        """Return the answer: the combined heatmap, those of the classes if asked for, and why a map is empty."""
        names = self.network.names
        heatmap = hottest(list(heatmaps.values()), image_rgb.shape[:2])
        return Explanation(
            image_rgb,
            heatmap,
            tuple(explained),
            self.settings.method,
            self.settings.backprop_array,
            {names[group]: entry for group, entry in heatmaps.items() if group is not None},
            tuple(self._notes(explained, heatmap)),
        )

    def _notes(self, explained: list[DetectionExplanation], heatmap: np.ndarray) -> list[str]:
        """Return why there is nothing to see, one sentence each."""
        notes = list(dict.fromkeys(entry.note for entry in explained if entry.note))
        if not explained:
            names = self.network.names
            every = len(self.chosen) == len(names)
            wanted = "detection" if every else " or ".join(names[index] for index in sorted(self.chosen))
            notes.append(f"no {wanted} above confidence {self.settings.conf_thres}")
        elif not heatmap.any() and not notes:
            notes.append("the evidence of the detections cancels out")
        return notes


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
