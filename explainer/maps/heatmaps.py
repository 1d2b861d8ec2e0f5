"""From the cells of a layer to the pixels of the photograph: pure functions on arrays.

map          float32 (height, width) of any size: in cells of a layer, in pixels of the network's input or of the image
heatmap      a map at the size of the original image with values in 0..1
signed map   one at that size with values in -1..1: what speaks for a score is positive, what speaks against it negative
merge        the maps of several layers become one, before they are laid on the image: `merged_by_...`
combine      what several detections show becomes one picture: `hottest`, `for_and_against`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil

import numpy as np

# The maps that a score was read from, float32 (h, w) each: one of each layer, or a merged one.
Cams = tuple[np.ndarray, ...]

# The standard deviation, in cells, of the narrowest Gaussian that widens a deep map.
CELLS_AROUND = 0.65


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input: sizes as (height, width), the padding's left and top edge in pixels."""

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    content_size: tuple[int, int]
    top: int
    left: int

    @property
    def gains(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the image, across and down: alike, as in YOLOv5's scale_boxes."""
        gain = min(inner / outer for inner, outer in zip(self.input_size, self.image_size, strict=True))
        return gain, gain

    @property
    def corner(self) -> tuple[float, float]:
        """Where the image begins in the input, (x, y) in pixels and fractions of them: it lies in the middle."""
        (height, width), (gain, _) = self.image_size, self.gains
        return (self.input_size[1] - width * gain) / 2, (self.input_size[0] - height * gain) / 2

    def boxes_to_image(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return boxes (D, 4), float32, in pixels of the input as boxes in pixels of the image, clipped to it."""
        height, width = self.image_size
        moved = [
            np.clip((side - start) / gain, 0, end)
            for side, start, gain, end in zip(
                boxes_xyxy.T, self.corner * 2, self.gains * 2, (width, height) * 2, strict=True
            )
        ]
        return np.stack(moved, axis=1).astype(np.float32)

    def boxes_to_input(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Return boxes (D, 4), float32, in pixels of the image as boxes in pixels of the input: the way back."""
        return boxes_xyxy * np.float32(self.gains * 2) + np.float32(self.corner * 2)

    @property
    def content_pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the network's input that hold the image."""
        height, width = self.content_size
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

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

        return cv2.resize(np.float32(cam), self.input_size[::-1])[self.content_pixels]

    def enlarge(self, content: np.ndarray) -> np.ndarray:
        """Return a map of the input without its padding as a map of the original image."""
        import cv2

        return cv2.resize(content, self.image_size[::-1])


class Stretched(Letterbox):
    """An image that fills its part of the input to the pixel, with a gain of its own for each axis."""

    @property
    def gains(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the image, across and down."""
        return self.content_size[1] / self.image_size[1], self.content_size[0] / self.image_size[0]

    @property
    def corner(self) -> tuple[float, float]:
        """Where the image begins in the input, (x, y) in pixels."""
        return self.left, self.top


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
    return normalise(letterbox.enlarge(positive_mean(cams, letterbox)))


def heatmap_of_all(several: Sequence[Sequence[np.ndarray]], letterbox: Letterbox) -> np.ndarray:
    """Return the heatmap that shows, at each pixel, the hottest of what several groups of layers show.

    The groups meet at the size of the input, so that only one map is enlarged to the image.
    """
    if len(several) == 1:
        return heatmap_of(several[0], letterbox)
    parts = [normalise(positive_mean(cams, letterbox)) for cams in several]
    whole = letterbox.enlarge(hottest(parts, letterbox.content_size))
    highest = whole.max()
    return whole if highest == 0 else np.divide(whole, highest, out=whole)


def positive_mean(cams: Sequence[np.ndarray], letterbox: Letterbox) -> np.ndarray:
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
    return np.where(among_largest(heatmap, percent), heatmap, 0).astype(np.float32)


def among_largest(values: np.ndarray, percent: float) -> np.ndarray:
    """Return whether each of the values is among the largest `percent` of them, one at least and all that equal it."""
    count = max(1, round(values.size * percent / 100))
    threshold = np.partition(values, values.size - count, axis=None)[values.size - count]
    return values >= threshold


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


def scaled_by_magnitude(cam: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return a map divided by the largest magnitude of a part of it; zeros where that part is zero."""
    largest = np.abs(part).max(initial=0)
    return cam / largest if largest > 0 else np.zeros_like(cam)


def signed_map_of(cams: list[np.ndarray], letterbox: Letterbox) -> np.ndarray:
    """Return the signed map of one or several layers' maps: each scaled to -1..1 within the image, then averaged."""
    if len(cams) > 1:
        cams = [scaled_by_magnitude(cam, cam[letterbox.content_cells(cam.shape)]) for cam in cams]
    parts = [letterbox.to_image(cam) for cam in cams]
    whole = parts[0] if len(parts) == 1 else np.mean(parts, axis=0, dtype=np.float32)
    return scaled_by_magnitude(whole, whole)


def signed_map_of_all(several: Sequence[Sequence[np.ndarray]], letterbox: Letterbox) -> np.ndarray:
    """Return the signed map of several groups of layers together; see `for_and_against`."""
    return for_and_against([signed_map_of(list(cams), letterbox) for cams in several], letterbox.image_size)


def for_and_against(maps: list[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    """Return at each pixel the most that several signed maps say for, and the most that they say against, together.

    The sum is scaled again, and has no edges where maps that contradict each other meet. Zeros (height, width) without any.
    """
    if len(maps) == 1:
        return maps[0]
    nothing = np.zeros(image_size, dtype=np.float32)
    together = reduce(np.maximum, maps, nothing) + reduce(np.minimum, maps, nothing)
    return scaled_by_magnitude(together, together)


def keep_strongest(signed: np.ndarray, percent: float) -> np.ndarray:
    """Return the signed map with all but the `percent` of pixels of largest magnitude set to zero."""
    if percent >= 100:
        return signed
    return np.where(among_largest(np.abs(signed), percent), signed, 0).astype(np.float32)


def merged_by_product(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the product of the maps, each scaled to 0..1 and at the input's size."""
    whole = np.prod([scaled_to_input([cam], letterbox) for cam in cams], axis=0, dtype=np.float32)
    return (whole,)


def merged_by_max(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the largest value of the maps at each pixel, each scaled to 0..1 and at the input's size."""
    return (np.max([scaled_to_input([cam], letterbox) for cam in cams], axis=0),)


def merged_fine_times_deep(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the first map, which has fine cells, times the mean of the others, widened; at the input's size.

    A fine layer shows what there is but not whose it is, a deep one where the object lies but not its outline. Widened, the
    deep ones let through what lies around their few hot cells. Their mean is that of the square roots, squared: what one
    layer alone points at counts less than what all do.
    """
    import cv2

    fine, *deep = cams
    if not deep:
        return (fine,)
    size = letterbox.input_size[::-1]
    where = np.mean([np.sqrt(cv2.resize(widened(cam), size)) for cam in deep], axis=0, dtype=np.float32) ** 2
    return (scaled_to_input([fine], letterbox) * where,)


def widened(cam: np.ndarray) -> np.ndarray:
    """Return the positive part of a map (h, w), 0..1, under three Gaussians, each twice as wide and a tenth as strong."""
    import cv2

    positive = np.maximum(cam, 0)
    wide = sum(
        0.1**step * cv2.GaussianBlur(positive, (0, 0), CELLS_AROUND * 2**step, borderType=cv2.BORDER_CONSTANT)
        for step in range(3)
    )
    return wide / max(wide.max(), np.finfo(np.float32).tiny)


def merged_by_sum(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the sum of the maps at the input's size."""
    import cv2

    whole = np.zeros(letterbox.input_size, dtype=np.float32)
    for cam in cams:
        whole += cv2.resize(cam, letterbox.input_size[::-1])
    return (whole,)


def scaled_to_input(cams: list[np.ndarray] | Cams, letterbox: Letterbox) -> np.ndarray:
    """Return the mean of the positive parts of maps as one map of the letterboxed input, its content in 0..1."""
    import cv2

    inside = letterbox.content_cells(letterbox.input_size)
    total = np.zeros(letterbox.input_size, dtype=np.float32)
    for cam in cams:
        positive = np.maximum(cam, 0)
        total += cv2.resize(
            normalise(positive, positive[letterbox.content_cells(cam.shape)]), letterbox.input_size[::-1]
        )
    return np.clip(normalise(total, total[inside]), 0, 1)
