"""The answer: what was detected in one image, and what in the image speaks for it."""

from dataclasses import dataclass, field

import numpy as np

from explainer.drawing import Style, draw_boxes, paint
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
class Measures:
    """How a heatmap lies with respect to a box; None where the heatmap is empty.

    energy_in_box  share of the heatmap's sum inside the box, 0..1
    peak           pixel (x, y) of the heatmap's highest value
    """

    energy_in_box: float | None
    peak: tuple[int, int] | None


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

    def measured(self) -> Measures:
        """Return how the heatmap lies with respect to the detection's box."""
        heatmap = self.heatmap
        return Measures(energy_in_box(heatmap, self.detection.xyxy), peak(heatmap))

    def row(self) -> dict[str, object]:
        """Return what is known about this detection by column name; None where the heatmap is empty."""
        found, measured = self.detection, self.measured()
        x1, y1, x2, y2 = found.xyxy.tolist()
        peak_x, peak_y = measured.peak or (None, None)
        return {
            "class": found.class_index,
            "name": found.name,
            "confidence": found.confidence,
            "x1": x1,
            "y1": y1,
            "x2": x2,
            "y2": y2,
            "stride": found.stride,
            "layer": " ".join(self.layers),
            "score": self.score,
            "energy_in_box": measured.energy_in_box,
            "peak_x": peak_x,
            "peak_y": peak_y,
            "note": self.note,
        }


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

    def overlay(self, style: Style | None = None, class_name: str | None = None) -> np.ndarray:
        """Return the photograph under its heatmap with the explained boxes, RGB uint8 (H, W, 3).

        class_name: show the map and the boxes of this class alone; it must be one of `per_class`.
        """
        style = style or Style()
        detections, heatmap = [entry.detection for entry in self.detections], self.heatmap
        if class_name is not None:
            detections = [found for found in detections if found.name == class_name]
            heatmap = self.per_class[class_name]
        return draw_boxes(paint(self.image_rgb, heatmap, style), detections, style)

    def pandas(self):
        """Return one row per detection as a DataFrame, with the columns of explanations.csv that concern one image."""
        import pandas as pd

        rows = [{"method": self.method, "item": "+".join(self.items), **entry.row()} for entry in self.detections]
        return pd.DataFrame(rows)

    def _repr_png_(self) -> bytes:
        """Return the overlay as a notebook shows it."""
        import cv2

        return cv2.imencode(".png", self.overlay()[..., ::-1])[1].tobytes()
