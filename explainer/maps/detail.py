"""Where a picture has something to see: how far its pixels stand out from those around them. It explains nothing alone."""

import numpy as np

from explainer.maps.heatmaps import Cams, Letterbox, normalise

# How far the surroundings of a pixel reach: the standard deviation of a Gaussian, in pixels.
SURROUNDINGS = 10.0
# The power of the product of both factors: 1/2 would be their geometric mean.
POWER = 0.7


def detail_of(image_rgb: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Return how much there is to see at each pixel of an input (h, w, 3), float32 in 0..1: (h, w), 0..1.

    That of the picture in it; the padding has none.
    """
    whole = np.zeros(letterbox.input_size, dtype=np.float32)
    whole[letterbox.content_pixels] = detail_of_picture(image_rgb[letterbox.content_pixels])
    return whole


def detail_of_picture(image_rgb: np.ndarray) -> np.ndarray:
    """Return how much there is to see at each pixel of a picture (H, W, 3), on any scale: float32 (H, W) in 0..1.

    (|x - blurred x| |gradient of x|) ** 0.7, each of the colour where it is largest: a pixel has it that stands out from
    what is around it and lies on an edge.
    """
    import cv2

    pixels = np.ascontiguousarray(image_rgb, dtype=np.float32)
    around = cv2.GaussianBlur(pixels, (0, 0), SURROUNDINGS, borderType=cv2.BORDER_REFLECT)
    product = np.abs(pixels - around).max(axis=2) * edges_of(pixels)
    return normalise(product**POWER)


def edges_of(image_rgb: np.ndarray) -> np.ndarray:
    """Return the gradient's magnitude at each pixel of a picture, float32 (H, W): that of the channel where it is largest."""
    import cv2

    pixels = np.float32(image_rgb)
    across, down = (cv2.Sobel(pixels, cv2.CV_32F, *step) for step in ((1, 0), (0, 1)))
    return np.hypot(across, down).max(axis=2)


def times_detail(cams: Cams, detail: np.ndarray) -> Cams:
    """Return the positive parts of maps, each times the detail (h, w) of the input that they lie on."""
    import cv2

    return tuple(cv2.resize(np.maximum(cam, 0), detail.shape[::-1]) * detail for cam in cams)
