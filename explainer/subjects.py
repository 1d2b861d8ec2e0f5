"""What is explained in one image: the detections, boxes that the user gives, or labels that no detection hit.

A given box has the score of a detection with that box and class, whether the model found it or not: of the ten predictions
that overlap the box most, those whose best class is the box's count, or else the one with the highest overlap. The score is
the logarithm of their class probability, weighted by overlap. So it reads what the model makes of that place: where none of
the ten takes it for the class, it is the logarithm of the small probability that the closest one gives the class, and the map
shows what would raise it.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from explainer.detectors.detector import Seen
from explainer.detectors.predictions import FALSE_ALARM, GIVEN, HIT, MISS, Detection
from explainer.files.labels import Box
from explainer.maps.heatmaps import Letterbox
from explainer.methods.targets import iou, match, values
from explainer.settings import Settings

OVERLAP_OF_A_HIT = 0.5


@dataclass(frozen=True)
class Asked:
    """What is asked about one image besides its detections; None where there is no such question.

    boxes   explain these and nothing else
    labels  what there is in the image, of the classes to explain
    """

    boxes: list[Box] | None = None
    labels: list[Box] | None = None


@dataclass(frozen=True)
class Subjects:
    """What is explained in an image, and where each of it lies: boxes (D, 4) in input pixels."""

    detections: list[Detection]
    boxes_xyxy: Tensor

    def __add__(self, others: "Subjects") -> "Subjects":
        return Subjects(self.detections + others.detections, torch.cat((self.boxes_xyxy, others.boxes_xyxy)))


def subjects(seen: Seen, asked: Asked, settings: Settings, chosen: Collection[int]) -> Subjects:
    """Return what is explained: the given boxes, or detections of the chosen classes and labels that none of them hit."""
    if asked.boxes is not None:
        return given(seen, asked.boxes, GIVEN)
    found = detected(seen, settings, chosen)
    if asked.labels is None:
        return found
    outcomes, missed = judge(found.detections, asked.labels)
    judged = [replace(entry, outcome=outcome) for entry, outcome in zip(found.detections, outcomes, strict=True)]
    return Subjects(judged, found.boxes_xyxy) + given(seen, missed, MISS)


def detected(seen: Seen, settings: Settings, chosen: Collection[int]) -> Subjects:
    """Return the detections of the chosen classes, most confident first."""
    found, boxes = seen.detector.detect(seen.recording, seen.letterbox, settings.suppression)
    if len(chosen) == len(seen.detector.names):
        return Subjects(found, boxes)
    wanted = [index for index, detection in enumerate(found) if detection.class_index in chosen]
    return Subjects([found[index] for index in wanted], boxes[wanted])


def given(seen: Seen, boxes: list[Box], outcome: str) -> Subjects:
    """Return boxes with what the model makes of them, in the order given.

    The confidence is what the matched predictions give a box of that class; stride, level and row are those of the one with
    the most weight.
    """
    predictions, detector = seen.recording.predictions, seen.detector
    places = to_input(boxes, seen.letterbox).to(predictions.boxes_xywh)
    if not boxes:
        return Subjects([], places)
    classes = torch.tensor([box.class_index for box in boxes], dtype=torch.long, device=places.device)
    matches = match(predictions, places, classes)
    confidences = values(predictions.at(matches.rows), matches, ("class_confidence",)).prod(dim=-1).tolist()
    closest = iou(places, predictions.boxes_xywh[matches.rows[:, 0]]).diagonal().tolist()
    rows = matches.heaviest
    says = predictions.probabilities[rows].argmax(dim=1).tolist()
    entries = []
    for box, confidence, row, overlap, best in zip(boxes, confidences, rows.tolist(), closest, says, strict=True):
        level, name = seen.recording.level_of(row), detector.names[box.class_index]
        stride, remark = detector.strides[level], remark_on(name, detector.names[best], overlap)
        entries.append(Detection(box.xyxy, confidence, box.class_index, name, stride, level, row, outcome, remark))
    return Subjects(entries, places)


def remark_on(name: str, said: str, overlap: float) -> str:
    """Return why a box is hardly found, or "", given its class, that of the prediction that stands for it, and the overlap.

    overlap: the intersection over union of the box and the closest prediction.
    """
    if overlap < OVERLAP_OF_A_HIT:
        return f"no raw prediction overlaps it by half, the closest one by {overlap:.2f}"
    if said != name:
        return f"none of the raw predictions closest to it says {name}; the closest one says {said}"
    return ""


def to_input(boxes: list[Box], letterbox: Letterbox) -> Tensor:
    """Return boxes in pixels of the image as boxes (D, 4) in pixels of the network's input: what scale_boxes takes back."""
    corners = torch.tensor([box.xyxy.tolist() for box in boxes], dtype=torch.float32).reshape(-1, 4)
    (height, width), (input_height, input_width) = letterbox.image_size, letterbox.input_size
    gain = min(input_height / height, input_width / width)
    edge = torch.tensor([input_width - width * gain, input_height - height * gain]) / 2
    return corners * gain + edge.repeat(2)


def judge(detections: list[Detection], labels: list[Box]) -> tuple[list[str], list[Box]]:
    """Return the outcome of each detection, and the labels that no detection hit.

    The most confident detection chooses first: the label of its class that it overlaps most, by an intersection over union
    of at least 0.5. A label is hit once, so that a second detection of the same object is a false alarm.
    """
    overlap = overlaps(detections, labels)
    outcomes = [FALSE_ALARM] * len(detections)
    free = np.ones(len(labels), dtype=bool)
    for index in sorted(range(len(detections)), key=lambda i: -detections[i].confidence):
        candidates = np.where(free, overlap[index], 0)
        if candidates.size and candidates.max() >= OVERLAP_OF_A_HIT:
            outcomes[index] = HIT
            free[candidates.argmax()] = False
    return outcomes, [label for label, missed in zip(labels, free, strict=True) if missed]


def overlaps(detections: list[Detection], labels: list[Box]) -> np.ndarray:
    """Return the intersection over union (D, L) of detections and labels of the same class; 0 for different classes."""
    from torchvision.ops import box_iou

    boxes, others = (np.float64([entry.xyxy for entry in entries]).reshape(-1, 4) for entries in (detections, labels))
    classes, wanted = (np.array([entry.class_index for entry in entries]) for entries in (detections, labels))
    found = box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).nan_to_num_(0.0).numpy()
    return np.where(classes[:, None] == wanted[None], found, 0.0)
