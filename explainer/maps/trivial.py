"""Heatmaps that explain nothing: what is known of a detection before anyone asks why. A method that loses to one says less.

Pure functions from a photograph, RGB uint8 (H, W, 3), and a box in its pixels to a heatmap (H, W), float32 in 0..1.
"""

from collections.abc import Callable

import numpy as np

from explainer.maps.detail import detail_of_picture, edges_of
from explainer.maps.heatmaps import pixels_in_box

Trivial = Callable[[np.ndarray, np.ndarray], np.ndarray]

# How far the edges of a picture are smoothed, in its pixels: what is hardest to beat on photographs of COCO.
SMOOTHED = 4.0


def gaussian_in_box(xyxy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a Gaussian on a box in pixels as a heatmap (height, width), float32 in 0..1: a blob.

    Its standard deviations are a quarter of the box's sides, so that about nine tenths of it lie inside.
    """
    x1, y1, x2, y2 = np.asarray(xyxy, dtype=np.float64)
    bells = [
        np.exp(-8 * ((np.arange(cells) + 0.5 - (low + high) / 2) / max(high - low, 1e-9)) ** 2)
        for cells, low, high in zip(size, (y1, x1), (y2, x2), strict=True)
    ]
    return scaled(np.outer(*bells))


def gaussian_on_box(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the Gaussian on the box, which reaches out of it."""
    return gaussian_in_box(xyxy, image_rgb.shape[:2])


def gaussian_cut_off(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the Gaussian on the box, and nothing outside of the box."""
    return scaled(inside_alone(gaussian_in_box(xyxy, image_rgb.shape[:2]), xyxy))


def filled_box(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the box, every pixel as hot as the other."""
    return inside_alone(np.ones(image_rgb.shape[:2], np.float32), xyxy)


def nearness_to_centre(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return how near each pixel of the picture is to the centre of the box: 1 there, 0 at the pixel farthest away."""
    (height, width), (x1, y1, x2, y2) = image_rgb.shape[:2], np.asarray(xyxy, dtype=np.float64)
    down, across = np.arange(height) + 0.5 - (y1 + y2) / 2, np.arange(width) + 0.5 - (x1 + x2) / 2
    distance = np.hypot(down[:, None], across)
    return np.float32(1 - distance / distance.max())


def edges_in_box(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return how strong the edges of the bare picture are inside the box: the gradient's magnitude, smoothed a little."""
    import cv2

    edges = inside_alone(edges_of(image_rgb), xyxy)
    return scaled(inside_alone(cv2.GaussianBlur(edges, (0, 0), SMOOTHED), xyxy))


def edges_under_gaussian(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the edges of the bare picture, not smoothed, times the Gaussian on the box, and nothing outside of the box."""
    return scaled(inside_alone(edges_of(image_rgb) * gaussian_in_box(xyxy, image_rgb.shape[:2]), xyxy))


def detail_under_gaussian(image_rgb: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return the detail of the bare picture, a factor of DetailCAM, times the Gaussian, and nothing outside of the box."""
    return scaled(inside_alone(detail_of_picture(image_rgb) * gaussian_in_box(xyxy, image_rgb.shape[:2]), xyxy))


def inside_alone(heatmap: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Return a heatmap (H, W) with zeros outside of a box."""
    kept, inside = np.zeros_like(heatmap), pixels_in_box(xyxy, heatmap.shape)
    kept[inside] = heatmap[inside]
    return kept


def scaled(heatmap: np.ndarray) -> np.ndarray:
    """Return a heatmap whose largest value is 1, float32; zeros stay."""
    highest = heatmap.max()
    return np.float32(heatmap / highest) if highest > 0 else np.zeros(heatmap.shape, np.float32)


# By the names that tables have for them.
TRIVIAL: dict[str, Trivial] = {
    "GaussianBox": gaussian_on_box,
    "ClippedGaussian": gaussian_cut_off,
    "FilledBox": filled_box,
    "CentreDistance": nearness_to_centre,
    "BoxEdges": edges_in_box,
    "CentredEdges": edges_under_gaussian,
    "CentredDetail": detail_under_gaussian,
}
