"""From the cells of a layer to the pixels of the photograph: pure functions on arrays.

A map is a float32 array (height, width); a heatmap is a map at the size of the original image with values in 0..1.
"""

from dataclasses import dataclass
from functools import reduce
from math import ceil

import numpy as np


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input: sizes as (height, width), the padding's left and top edge in pixels."""

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    content_size: tuple[int, int]
    top: int
    left: int

    def content_cells(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of a map of this shape (h, w) whose cells hold some of the image, not padding alone."""
        return tuple(
            slice(int(start * cells / side), ceil((start + length) * cells / side))
            for start, length, cells, side in zip(
                (self.top, self.left), self.content_size, shape, self.input_size, strict=True
            )
        )

    def to_image(self, cam: np.ndarray) -> np.ndarray:
        """Return a map of the whole input, of any size, as a map of the original image: the padding cut off."""
        import cv2

        whole = cv2.resize(np.float32(cam), self.input_size[::-1])
        height, width = self.content_size
        content = whole[self.top : self.top + height, self.left : self.left + width]
        return cv2.resize(content, self.image_size[::-1])


def normalise(cam: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
    """Shift and scale a float32 map in place, so that it or a part of it spans 0..1; zeros without contrast. Return it."""
    low, high = (cam.min(), cam.max()) if part is None else (part.min(), part.max())
    if high > low:
        cam -= low
        cam /= high - low
    else:
        cam.fill(0)
    return cam


def heatmap_of(cams: list[np.ndarray], letterbox: Letterbox) -> np.ndarray:
    """Return the heatmap of one or several layers' maps: negative values dropped, each scaled to 0..1, then averaged."""
    positive = [np.maximum(cam, 0) for cam in cams]
    if len(positive) > 1:
        positive = [normalise(cam, cam[letterbox.content_cells(cam.shape)]) for cam in positive]
    parts = [letterbox.to_image(cam) for cam in positive]
    return normalise(parts[0] if len(parts) == 1 else np.mean(parts, axis=0, dtype=np.float32))


def hottest(heatmaps: list[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    """Return the largest value of several heatmaps at each pixel; zeros (height, width) where there is none."""
    return reduce(np.maximum, heatmaps) if heatmaps else np.zeros(image_size, dtype=np.float32)


def keep_hottest(heatmap: np.ndarray, percent: float) -> np.ndarray:
    """Return the heatmap with all but its hottest `percent` of pixels set to zero."""
    if percent >= 100:
        return heatmap
    count = max(1, round(heatmap.size * percent / 100))
    threshold = np.partition(heatmap, heatmap.size - count, axis=None)[heatmap.size - count]
    return np.where(heatmap >= threshold, heatmap, 0).astype(np.float32)


def pixels_in_box(xyxy: np.ndarray, image_size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the pixels whose centres lie inside a box in image pixels."""
    x1, y1, x2, y2 = np.ceil(np.asarray(xyxy, dtype=np.float64) - 0.5).astype(int)
    height, width = image_size
    return slice(max(y1, 0), min(max(y2, 0), height)), slice(max(x1, 0), min(max(x2, 0), width))


def energy_in_box(heatmap: np.ndarray, xyxy: np.ndarray) -> float | None:
    """Return the share of the heatmap's sum that lies inside the box, 0..1; None for an empty map.

    The energy-based pointing game of Score-CAM, https://arxiv.org/abs/1910.01279.
    """
    total = float(heatmap.sum(dtype=np.float64))
    if total <= 0:
        return None
    return float(heatmap[pixels_in_box(xyxy, heatmap.shape)].sum(dtype=np.float64)) / total


def peak(heatmap: np.ndarray) -> tuple[int, int] | None:
    """Return the pixel (x, y) where the heatmap is highest, the first one in reading order; None for an empty map."""
    y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return (int(x), int(y)) if heatmap[y, x] > 0 else None
