"""Where a picture has something to see: how far its pixels stand out from those around them. It explains nothing alone."""

import numpy as np

from explainer.maps.heatmaps import Cams, Letterbox, normalise

# How far the surroundings of a pixel reach: the standard deviation of a Gaussian, in pixels of the network's input.
SURROUNDINGS = 10.0
# The power of the product of both factors: 1/2 would be their geometric mean.
POWER = 0.7


def detail_of(image_rgb: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Return how much there is to see at each pixel of an input (h, w, 3), float32 in 0..1: (h, w), 0..1.

    (|x - blurred x| |gradient of x|) ** 0.7, each of the colour where it is largest: a pixel has it that stands out from
    what is around it and lies on an edge. The padding has none.
    """
    import cv2

    content = np.ascontiguousarray(image_rgb[letterbox.content_pixels])
    around = cv2.GaussianBlur(content, (0, 0), SURROUNDINGS, borderType=cv2.BORDER_REFLECT)
    whole = np.zeros(letterbox.input_size, dtype=np.float32)
    product = np.abs(content - around).max(axis=2) * edges_of(content)
    whole[letterbox.content_pixels] = normalise(product**POWER)
    return whole


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
