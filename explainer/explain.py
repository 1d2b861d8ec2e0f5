"""The explainer as an object: an image as an array in, one frozen answer out. It touches no files."""

import numpy as np
import torch
from torch import Tensor, nn

from explainer.cams import CamReader, Gradients, GradientSum
from explainer.detecting import detect, prepare
from explainer.errors import UsageError, unknown
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.gradients import DenseHead, detection_gradients
from explainer.layers import layers_by_level
from explainer.maps import hottest, keep_hottest
from explainer.methods import METHODS
from explainer.network import Network, borrowed
from explainer.options import Settings
from explainer.scores import match, summed_class_probability
from utils.general import check_img_size

# What both kinds of score give: an explanation per detection, and the sum of the gradients for each class.
Parts = tuple[list[DetectionExplanation], dict[int, GradientSum]]


class Explainer:
    """Explains what a YOLOv5 model detects.

        explainer = Explainer(model, method="GradCAM", layer="auto")
        explanation = explainer(image_rgb)

    model: a DetectionModel, DetectMultiBackend or AutoShape; it is left as it was. The keywords are those of `Settings`.
    """

    def __init__(self, model: nn.Module, **settings):
        self.settings = Settings(**settings)
        self.network = Network(model)
        self.method = METHODS[self.settings.method]
        self.formula = self.method.load()
        self.layers = layers_by_level(self.network, self.settings.layer, self.method.reads)
        at_the_head = self.settings.layer == ("auto",) and self.method.reads == "head"
        self.needs_graph = self.method.uses_gradients and not at_the_head
        self.chosen = chosen_classes(self.network.names, self.settings)
        self.input_size = tuple(check_img_size(list(self.settings.imgsz), s=self.network.stride))

    def __call__(self, image_rgb: np.ndarray) -> Explanation:
        """Return the explanation of one image, uint8 RGB (H, W, 3)."""
        check_image(image_rgb)
        with borrowed(self.network):
            image, letterbox = prepare(image_rgb, self.input_size, self.network)
            recorded = tuple(dict.fromkeys(name for layers in self.layers for name in layers))
            recording = self.network.record(image, recorded, self.needs_graph)
            detections, boxes = detect(self.network, recording, letterbox, self.settings)
            wanted = [i for i, detection in enumerate(detections) if detection.class_index in self.chosen]
            reader = CamReader(self.formula, self.method.uses_gradients, recording, letterbox)
            explain = self._explain_classes if self.settings.use_old_target_method else self._explain_detections
            explained, sums = explain([detections[i] for i in wanted], boxes[wanted], reader)
            return self._answer(image_rgb, explained, sums, reader)

    def _explain_detections(self, detections: list[Detection], boxes: Tensor, reader: CamReader) -> Parts:
        """Explain each detection by the score of the raw predictions that stand for it."""
        if not detections:
            return [], {}
        classes = torch.tensor([detection.class_index for detection in detections], device=boxes.device)
        matches = match(reader.recording.raw, boxes, classes)
        head = detection_gradients(self.network, reader.recording, matches, self.settings.backprop_array)
        explained, sums = [], {}
        for index, (detection, score) in enumerate(zip(detections, head.scores.tolist(), strict=True)):
            layers = self._layers_of(detection)
            gradients = reader.gradients(head.at(index), layers)
            sums.setdefault(detection.class_index, GradientSum()).add(layers, gradients)
            explained.append(self._explain_one(detection, score, gradients, reader))
        return explained, sums

    def _explain_classes(self, detections: list[Detection], boxes: Tensor, reader: CamReader) -> Parts:
        """Explain the sum of all raw probabilities of the chosen classes, together or class by class."""
        found = {detection.class_index for detection in detections}
        groups = [[index] for index in sorted(found)] if self.settings.backward_per_class else [sorted(self.chosen)]
        if not groups:
            return [], {}
        head = DenseHead(
            self.network,
            reader.recording,
            lambda raw: torch.stack([summed_class_probability(raw, group) for group in groups]),
        )
        explained, sums = [], {}
        for index, (group, score) in enumerate(zip(groups, head.scores.tolist(), strict=True)):
            head_gradient, total = head.at(index), GradientSum()
            for layers in dict.fromkeys(self.layers):
                total.add(layers, reader.gradients(head_gradient, layers))
            sums[group[0]] = total
            explained += [
                self._explain_one(detection, score, total.by_layers[self._layers_of(detection)], reader)
                for detection in detections
                if detection.class_index in group
            ]
        return explained, sums

    def _layers_of(self, detection: Detection) -> tuple[str, ...]:
        """Return the names of the layers that a detection is read from."""
        return self.layers[detection.level]

    def _explain_one(
        self, detection: Detection, score: float, gradients: Gradients, reader: CamReader
    ) -> DetectionExplanation:
        """Return the explanation of one detection from the gradients at its layers."""
        layers = self._layers_of(detection)
        cams = reader.cams(layers, gradients)
        note = ""
        if gradients is not None and not any(gradient.any() for gradient in gradients):
            note = (
                f"a stride-{detection.stride} detection has no gradient at layer {' '.join(layers)}; try --layer auto"
            )
        elif not any((cam > 0).any() for cam in cams):
            note = f"nothing at layer {' '.join(layers)} speaks for it by {self.settings.method}"
        return DetectionExplanation(detection, layers, score, cams, reader.letterbox, note)

    def _answer(
        self,
        image_rgb: np.ndarray,
        explained: list[DetectionExplanation],
        sums: dict[int, GradientSum],
        reader: CamReader,
    ) -> Explanation:
        """Return the answer: the combined heatmap, those of the classes if asked for, and why a map is empty."""
        per_class = {}
        if self.settings.backward_per_class:
            names = self.network.names
            per_class = {names[index]: self._heatmap(total, reader) for index, total in sums.items()}
            heatmap = hottest(list(per_class.values()), image_rgb.shape[:2])
        else:
            everything = GradientSum()
            for total in sums.values():
                everything.merge(total)
            heatmap = self._heatmap(everything, reader)
        return Explanation(
            image_rgb,
            heatmap,
            tuple(explained),
            self.settings.method,
            self.settings.backprop_array,
            per_class,
            tuple(self._notes(explained, heatmap)),
        )

    def _heatmap(self, total: GradientSum, reader: CamReader) -> np.ndarray:
        return keep_hottest(reader.heatmap(total), self.settings.keep_only_topk)

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
