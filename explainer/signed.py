"""Maps with a sign: what speaks for a score is positive, what speaks against it negative. Pure functions on arrays.

A signed map is a float32 array at the size of the original image with values in -1..1, of which the largest magnitude is 1.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from explainer.maps import Letterbox


def scaled(cam: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return a map divided by the largest magnitude of a part of it; zeros where that part is zero."""
    largest = np.abs(part).max(initial=0)
    return cam / largest if largest > 0 else np.zeros_like(cam)


def signed_map_of(cams: list[np.ndarray], letterbox: Letterbox) -> np.ndarray:
    """Return the signed map of one or several layers' maps: each scaled to -1..1 within the image, then averaged."""
    if len(cams) > 1:
        cams = [scaled(cam, cam[letterbox.content_cells(cam.shape)]) for cam in cams]
    parts = [letterbox.to_image(cam) for cam in cams]
    whole = parts[0] if len(parts) == 1 else np.mean(parts, axis=0, dtype=np.float32)
    return scaled(whole, whole)


def signed_map_of_all(several: Sequence[Sequence[np.ndarray]], letterbox: Letterbox) -> np.ndarray:
    """Return the signed map of several groups of layers together; see `strongest`."""
    return strongest([signed_map_of(list(cams), letterbox) for cams in several], letterbox.image_size)


def strongest(maps: list[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    """Return at each pixel the most that several signed maps say for, and the most that they say against, together.

    The sum is scaled again, and has no edges where maps that contradict each other meet. Zeros (height, width) without any.
    """
    if len(maps) == 1:
        return maps[0]
    nothing = np.zeros(image_size, dtype=np.float32)
    together = reduce(np.maximum, maps, nothing) + reduce(np.minimum, maps, nothing)
    return scaled(together, together)


def keep_strongest(signed: np.ndarray, percent: float) -> np.ndarray:
    """Return the signed map with all but the `percent` of pixels of largest magnitude set to zero."""
    if percent >= 100:
        return signed
    magnitude = np.abs(signed)
    count = max(1, round(signed.size * percent / 100))
    threshold = np.partition(magnitude, signed.size - count, axis=None)[signed.size - count]
    return np.where(magnitude >= threshold, signed, 0).astype(np.float32)
