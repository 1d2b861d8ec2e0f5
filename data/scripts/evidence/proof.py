"""How well a model tells the classes of bodies in scenes whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.scripts.evidence.opening import Detect
from data.scripts.evidence.rendering import Picture

LEAST_OVERLAP = 0.5
# Classes (n,) and boxes (n, 4) x1, y1, x2, y2 in pixels.
Truth = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Tally:
    """How many bodies there are, how many were found, and how many of these with the right class."""

    bodies: int
    found: int
    right: int

    @property
    def accuracy(self) -> float:
        """Share of the found bodies whose class is right; 0 where none was found."""
        return self.right / max(self.found, 1)

    def __str__(self) -> str:
        return f"class right for {self.accuracy:.3f} of {self.found} found bodies ({self.bodies} drawn)"


def class_tally(detect: Detect, images_rgb: Iterable[np.ndarray], truths: Iterable[Truth]) -> Tally:
    """Return how a detector does on images (H, W, 3) uint8 RGB, each with its truth.

    A body counts as found where a box overlaps its own by half, and its class is that of the surest one.
    """
    bodies = found = right = 0
    for image_rgb, (classes, boxes) in zip(images_rgb, truths, strict=True):
        detections = detect(image_rgb)
        for index, box in zip(classes, boxes, strict=True):
            near = detections[overlaps(box, detections[:, :4]) >= LEAST_OVERLAP]
            bodies, found = bodies + 1, found + bool(len(near))
            right += bool(len(near)) and int(near[near[:, 4].argmax(), 5]) == index
    return Tally(bodies, found, right)


def truth(picture: Picture) -> Truth:
    """Return the classes (n,) and boxes (n, 4) x1, y1, x2, y2 in pixels of the bodies of a picture."""
    centres, sides = np.split(picture.labels[:, 1:] * len(picture.image_rgb), 2, axis=1)
    return picture.labels[:, 0].astype(int), np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (n,) of a box (4,) with others (n, 4), all x1, y1, x2, y2."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / (areas - shared)
