"""What is explained in one image: the detections, boxes that the user gives, or labels that no detection hit.

A given box has the score of a detection with that box and class, whether the model found it or not: of the ten raw
predictions that overlap the box most, those whose best class is the box's count, or else the one with the highest overlap.
The score is the logarithm of their class probability, weighted by overlap. So it reads what the model makes of that place:
where none of the ten takes it for the class, it is the logarithm of the small probability that the closest one gives the
class, and the map shows what would raise it.
"""

from bisect import bisect
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explainer.cells import row_ranges
from explainer.detecting import detect
from explainer.explanation import GIVEN, MISS, Detection
from explainer.files.labels import Box
from explainer.maps.heatmaps import Letterbox
from explainer.network import Network, Recording
from explainer.outcomes import OVERLAP_OF_A_HIT, judge
from explainer.scores import iou, match, values
from explainer.settings import Settings


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


@dataclass(frozen=True)
class Seen:
    """One image as the network saw it: the pass that was recorded, and how the image lies in the input."""

    network: Network
    recording: Recording
    letterbox: Letterbox


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
    found, boxes = detect(seen.network, seen.recording, seen.letterbox, settings)
    wanted = [index for index, detection in enumerate(found) if detection.class_index in chosen]
    return Subjects([found[index] for index in wanted], boxes[wanted])


def given(seen: Seen, boxes: list[Box], outcome: str) -> Subjects:
    """Return boxes with what the model makes of them, in the order given.

    The confidence is objectness times class probability of the matched raw predictions; stride, level and row are those of
    the one with the most weight.
    """
    raw, names = seen.recording.raw, seen.network.names
    places = to_input(boxes, seen.letterbox).to(raw)
    if not boxes:
        return Subjects([], places)
    classes = torch.tensor([box.class_index for box in boxes], dtype=torch.long, device=raw.device)
    matches = match(raw, places, classes)
    confidences = values(raw[matches.rows], matches, ("class_confidence",)).prod(dim=-1).tolist()
    rows = matches.rows.gather(1, matches.weights.argmax(dim=1, keepdim=True))[:, 0].tolist()
    closest = iou(places, raw[matches.rows[:, 0], :4]).diagonal().tolist()
    says = raw[rows, 5:].argmax(dim=1).tolist()
    _, ends = row_ranges(seen.network.levels, seen.recording.head_inputs)
    entries = []
    for box, confidence, row, overlap, best in zip(boxes, confidences, rows, closest, says, strict=True):
        level, name = bisect(ends, row), names[box.class_index]
        stride, remark = seen.network.levels[level].stride, remark_on(name, names[best], overlap)
        entries.append(Detection(box.xyxy, confidence, box.class_index, name, stride, level, row, outcome, remark))
    return Subjects(entries, places)


def remark_on(name: str, said: str, overlap: float) -> str:
    """Return why a box is hardly found, or "", given its class, that of the prediction that stands for it, and the overlap.

    overlap: the intersection over union of the box and the closest raw prediction.
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
