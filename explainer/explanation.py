"""The answer: what was detected in one image, and what in the image speaks for it."""

from dataclasses import dataclass, field

import numpy as np

from explainer.maps import Letterbox, energy_in_box, heatmap_of, peak


@dataclass(frozen=True)
class Detection:
    """One detected object: box in image pixels, confidence 0..1, class, and where it came from.

    `level` is the number of the head input, `stride` its pixels per cell, `row` the index of the raw prediction.
    """

    xyxy: np.ndarray
    confidence: float
    class_index: int
    name: str
    stride: int
    level: int
    row: int


@dataclass(frozen=True)
class DetectionExplanation:
    """Why one detection is there.

    detection  what is explained
    layers     the names of the layers that the map was read from
    score      the logarithm of the explained value, summed over the items
    cams       one float32 map (h, w) per layer, in cells of that layer over the letterboxed input; may be negative
    note       why the map is empty, or ""
    """

    detection: Detection
    layers: tuple[str, ...]
    score: float
    cams: tuple[np.ndarray, ...]
    letterbox: Letterbox
    note: str = ""

    @property
    def heatmap(self) -> np.ndarray:
        """The heatmap of this detection: float32 (H, W) in 0..1 at the size of the original image."""
        return heatmap_of(list(self.cams), self.letterbox)


@dataclass(frozen=True)
class Measures:
    """How a heatmap lies with respect to a box; None where the heatmap is empty.

    energy_in_box  share of the heatmap's sum inside the box, 0..1
    peak           pixel (x, y) of the heatmap's highest value
    """

    energy_in_box: float | None
    peak: tuple[int, int] | None


def measure(explained: DetectionExplanation) -> Measures:
    """Return how a detection's heatmap lies with respect to its box."""
    heatmap = explained.heatmap
    return Measures(energy_in_box(heatmap, explained.detection.xyxy), peak(heatmap))


@dataclass(frozen=True)
class Explanation:
    """The answer for one image.

    image_rgb   the original image, uint8 (H, W, 3)
    heatmap     float32 (H, W) in 0..1: what speaks for the explained detections; zero everywhere if nothing does
    detections  one entry per explained detection, highest confidence first
    per_class   the heatmap of each class by name; empty unless it was asked for
    notes       why there is nothing to see, one sentence each; empty when there is
    """

    image_rgb: np.ndarray
    heatmap: np.ndarray
    detections: tuple[DetectionExplanation, ...]
    method: str
    items: tuple[str, ...]
    per_class: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.image_rgb.dtype != np.uint8 or self.image_rgb.ndim != 3 or self.image_rgb.shape[2] != 3:
            raise ValueError(f"image_rgb is {self.image_rgb.dtype} {self.image_rgb.shape}, not uint8 (H, W, 3)")
        for name, heatmap in {"all": self.heatmap, **self.per_class}.items():
            if heatmap.shape != self.image_rgb.shape[:2] or heatmap.dtype != np.float32:
                raise ValueError(f"heatmap '{name}' is {heatmap.dtype} {heatmap.shape} for {self.image_rgb.shape[:2]}")
