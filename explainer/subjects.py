"""What is explained in one image: the detections, boxes that the user gives, labels that no detection hit, or a near miss.

A given box has the score of a detection with that box and class, whether the model found it or not: of the ten predictions
that overlap the box most, those whose best class is the box's count, or else the one with the highest overlap. The score is
the logarithm of their class probability, weighted by overlap. So it reads what the model makes of that place: where none of
the ten takes it for the class, it is the logarithm of the small probability that the closest one gives the class, and the map
shows what would raise it.

A near miss is what would have been the first detection of an image without any, had the threshold been lower. It has the
score of a detection.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from explainer.detectors.detector import Seen, Suppression
from explainer.detectors.predictions import (
    FALSE_ALARM,
    GIVEN,
    HIT,
    MISS,
    NEAR_MISS,
    Detection,
    Predictions,
    confidence_text,
)
from explainer.files.labels import Box
from explainer.methods.targets import iou, match, values
from explainer.settings import Settings

OVERLAP_OF_A_HIT = 0.5
# What yolov5n makes of a black picture has a confidence of 0.041, of a noisy one 0.046. On COCO128, where a class is labelled
# and not detected, the best prediction of it lies on such an object in 40 of 73 cases above 0.05, and in 6 of 48 below it.
NOISE = 0.05
# The best prediction is asked for with a threshold so close below it that few others pass.
JUST_BELOW = 0.99


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
    """Return what is explained: the given boxes, or detections of the chosen classes and labels that none of them hit.

    Where there is nothing of it, it is the near miss, unless that is not wanted. The old target has none: it explains no box.
    """
    if asked.boxes is not None:
        return given(seen, asked.boxes, GIVEN)
    found = detected(seen, settings.suppression, chosen)
    if asked.labels is not None:
        found = judged(seen, found, asked.labels)
    if found.detections or settings.no_near_miss or settings.use_old_target_method:
        return found
    return near_miss(seen, settings.suppression, chosen)


def judged(seen: Seen, found: Subjects, labels: list[Box]) -> Subjects:
    """Return the detections with their outcomes, then the labels that none of them hit."""
    outcomes, missed = judge(found.detections, labels)
    detections = [replace(entry, outcome=outcome) for entry, outcome in zip(found.detections, outcomes, strict=True)]
    return Subjects(detections, found.boxes_xyxy) + given(seen, missed, MISS)


def near_miss(seen: Seen, suppression: Suppression, chosen: Collection[int]) -> Subjects:
    """Return the best prediction of the chosen classes, if it is more than noise and the threshold is what it lacks.

    As in suppression, a prediction stands for its best class alone. No forward pass is run.
    """
    best, threshold = best_confidence(seen.recording.predictions, chosen), suppression.conf_thres
    if not NOISE <= best <= threshold:
        return Subjects([], seen.recording.predictions.boxes_xywh.new_zeros((0, 4)))
    classes = suppression.classes if len(chosen) == len(seen.detector.names) else tuple(sorted(chosen))
    lower = replace(suppression, conf_thres=JUST_BELOW * best, max_det=1, classes=classes)
    found = detected(seen, lower, chosen)
    return Subjects([missed_by(threshold, entry) for entry in found.detections[:1]], found.boxes_xyxy[:1])


def missed_by(threshold: float, best: Detection) -> Detection:
    """Return what a lower threshold would have let pass as a near miss, with a remark that says so."""
    near = replace(best, outcome=NEAR_MISS, above=threshold)
    return replace(near, remark=f"best below {threshold}: {near.name} {confidence_text(near)}")


def best_confidence(predictions: Predictions, chosen: Collection[int]) -> float:
    """Return the highest confidence of predictions (N) whose best class is one of those chosen; 0 where there is none."""
    confidences, classes = predictions.detach().confidences().max(dim=-1)
    wanted = torch.isin(classes, torch.tensor(sorted(chosen), device=classes.device))
    return confidences[wanted].nan_to_num(0.0).max().item() if wanted.any() else 0.0


def detected(seen: Seen, suppression: Suppression, chosen: Collection[int]) -> Subjects:
    """Return the detections of the chosen classes, most confident first."""
    found, boxes = seen.detector.detect(seen.recording, seen.letterbox, suppression)
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
    corners = np.float32([box.xyxy for box in boxes]).reshape(-1, 4)
    places = torch.from_numpy(seen.letterbox.boxes_to_input(corners)).to(predictions.boxes_xywh)
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
