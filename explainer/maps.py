"""From the cells of a layer to the pixels of the photograph: pure functions on arrays.

A map is a float32 array (height, width); a heatmap is a map at the size of the original image with values in 0..1.
"""

from collections.abc import Sequence
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
        return self.enlarge(self.content(cam))

    def content(self, cam: np.ndarray) -> np.ndarray:
        """Return a map of the whole input, of any size, pixel by pixel of the input, the padding cut off."""
        import cv2

        whole = cv2.resize(np.float32(cam), self.input_size[::-1])
        height, width = self.content_size
        return whole[self.top : self.top + height, self.left : self.left + width]

    def enlarge(self, content: np.ndarray) -> np.ndarray:
        """Return a map of the input without its padding as a map of the original image."""
        import cv2

        return cv2.resize(content, self.image_size[::-1])


def normalise(cam: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
    """Shift and scale a float32 map in place, so that it or a part of it spans 0..1; zeros without contrast. Return it."""
    low, high = (cam.min(), cam.max()) if part is None else (part.min(), part.max())
    if high - low < np.finfo(np.float32).tiny:
        cam.fill(0)
        return cam
    if low:
        cam -= low
    # Twice as fast as a division, and never above 1.
    cam *= 1 / (high - low)
    return cam


def heatmap_of(cams: Sequence[np.ndarray], letterbox: Letterbox) -> np.ndarray:
    """Return the heatmap of one or several layers' maps: negative values dropped, each scaled to 0..1, then averaged."""
    return normalise(letterbox.enlarge(content_of(cams, letterbox)))


def heatmap_of_all(several: Sequence[Sequence[np.ndarray]], letterbox: Letterbox) -> np.ndarray:
    """Return the heatmap that shows, at each pixel, the hottest of what several groups of layers show.

    The groups meet at the size of the input, so that only one map is enlarged to the image.
    """
    if len(several) == 1:
        return heatmap_of(several[0], letterbox)
    parts = [normalise(content_of(cams, letterbox)) for cams in several]
    whole = letterbox.enlarge(hottest(parts, letterbox.content_size))
    highest = whole.max()
    return whole if highest == 0 else np.divide(whole, highest, out=whole)


def content_of(cams: Sequence[np.ndarray], letterbox: Letterbox) -> np.ndarray:
    """Return the mean of the positive parts of layers' maps as a map of the input without its padding, not yet scaled."""
    positive = [np.maximum(cam, 0) for cam in cams]
    if len(positive) > 1:
        positive = [normalise(cam, cam[letterbox.content_cells(cam.shape)]) for cam in positive]
    parts = [letterbox.content(cam) for cam in positive]
    return parts[0] if len(parts) == 1 else np.mean(parts, axis=0, dtype=np.float32)


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


def only_in_box(heatmap: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the heatmap scaled to 0..1 inside a box and zero outside; zeros where it is the same all over the box."""
    inside = pixels_in_box(xyxy, heatmap.shape)
    kept = np.zeros_like(heatmap)
    if kept[inside].size:
        kept[inside] = normalise(heatmap[inside].copy())
    return kept


def peak(heatmap: np.ndarray) -> tuple[int, int] | None:
    """Return the pixel (x, y) where the heatmap is highest, the first one in reading order; None for an empty map."""
    y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return (int(x), int(y)) if heatmap[y, x] > 0 else None
