"""The score of a detection written out plainly, and a detector that such scores can read."""

import numpy as np
import torch
from torch import nn


class RawPredictions(nn.Module):
    """A detector that returns its raw predictions alone, as the library's targets want them."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, image):
        return self.detector(image)[0]


def score_of(entries, raw):
    """Return the sum over explained detections of their score, with what stands for them taken from these predictions."""
    return sum(fixed_score(entry.detection, raw)(raw) for entry in entries)


def fixed_score(found, clean):
    """Return the score of one detection as a function of raw predictions; which of them count is taken from `clean`."""
    (box,) = corners(clean[found.row, None])
    rows, weights = plain_match(box, found.class_index, clean)
    return lambda raw: (weights * raw[rows, 5 + found.class_index]).sum().log()


def plain_match(box, class_index, raw):
    """Return the raw predictions that stand for a box x1, y1, x2, y2 of a class, and their weights."""
    overlap = torch.tensor([plain_iou(box, other) for other in corners(raw)])
    nearest = overlap.argsort(descending=True)[:10].tolist()
    same = [row for row in nearest if raw[row, 5:].argmax() == class_index] or nearest[:1]
    return same, torch.softmax(overlap[same], dim=0)


def corners(raw):
    """Return the corners x1, y1, x2, y2 of each of several raw predictions x, y, w, h, ..., as numbers."""
    x, y, w, h = raw.detach()[:, :4].unbind(1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1).tolist()


def plain_iou(a, b):
    """Return the intersection over union of two boxes x1, y1, x2, y2."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_similarity(raw, box, probabilities):
    """Return the similarity by its definition, one raw prediction after the other."""
    best = 0.0
    for x, y, w, h, objectness, *classes in raw.tolist():
        width = max(0.0, min(box[2], x + w / 2) - max(box[0], x - w / 2))
        height = max(0.0, min(box[3], y + h / 2) - max(box[1], y - h / 2))
        both = width * height
        union = (box[2] - box[0]) * (box[3] - box[1]) + w * h - both
        cosine = np.dot(classes, probabilities) / np.linalg.norm(classes) / np.linalg.norm(probabilities)
        best = max(best, both / union * cosine * objectness)
    return best
