"""Does a heatmap stay when the picture hardly changes? Maps of the same boxes under small noise, mirrored, and shifted.

Sensitivity, https://arxiv.org/abs/1901.09392: by how much a map moves, at most and on average, when every pixel changes by no
more than a few levels. Repeatability: how far the map of a mirrored or shifted picture, laid back, agrees.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from explainer.explain import Explainer
from explainer.explanation import DetectionExplanation
from explainer.files.labels import Written

# How many levels of 255 noise changes a pixel by at most, and how often it is drawn.
LEVELS_OF_NOISE, DRAWS = 5, 8
# Right and down, in pixels of the picture: none is a multiple of a stride.
SHIFTS = ((3, 5), (-5, 2), (2, -3), (-2, -6))


@dataclass(frozen=True)
class Moved:
    """A picture, RGB uint8 (H, W, 3), that is mirrored, or shifted right and down by pixels; its border goes on outside."""

    mirrored: bool = False
    right: int = 0
    down: int = 0

    def picture(self, image_rgb: np.ndarray) -> np.ndarray:
        """Return the picture moved."""
        image_rgb = image_rgb[:, ::-1] if self.mirrored else image_rgb
        rows, columns = (
            np.clip(np.arange(side) - step, 0, side - 1)
            for side, step in zip(image_rgb.shape, (self.down, self.right), strict=False)
        )
        return np.ascontiguousarray(image_rgb[rows[:, None], columns])

    def box(self, box: Written, size: tuple[int, int]) -> Written:
        """Return where a box (x1, y1, x2, y2, class) of a picture (height, width) lies in the moved one, inside of it."""
        (height, width), (x1, y1, x2, y2, name) = size, box
        x1, x2 = (width - x2, width - x1) if self.mirrored else (x1, x2)
        (x1, x2), (y1, y2) = within(x1, x2, self.right, width), within(y1, y2, self.down, height)
        return x1, y1, x2, y2, name

    def both(self, heatmap: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what a map (H, W) and one of the moved picture, laid back, have in common."""
        back = moved[there(self.down), there(self.right)]
        whole = heatmap[:, ::-1] if self.mirrored else heatmap
        return whole[there(-self.down), there(-self.right)], back


FLIPPED, SHIFTED = (Moved(mirrored=True),), tuple(Moved(right=right, down=down) for right, down in SHIFTS)


def within(low: float, high: float, step: int, side: int) -> tuple[float, float]:
    """Return both ends of a box along an axis after a step, cut off at the edge; one that would be gone stays at it."""
    low, high = max(low + step, 0.0), min(high + step, float(side))
    return (low, high) if high - low >= 1 else (max(min(low, side - 1.0), 0.0), min(max(high, 1.0), float(side)))


def there(step: int) -> slice:
    """Return the pixels along an axis that a picture shifted by a step has of it."""
    return slice(step, None) if step >= 0 else slice(None, step)


class Robustness:
    """Compares the maps of one method with those of nearly the same picture.

    seed  of the noise, which is the same for every method
    """

    def __init__(self, explainer: Explainer, seed: int):
        self.explainer, self.seed = explainer, seed

    def figures(self, image_rgb: np.ndarray, explained: list[DetectionExplanation]) -> list[dict[str, float | None]]:
        """Return the figures of each explained detection; None each where nothing is shown of it."""
        boxes = [(*entry.detection.xyxy.tolist(), entry.detection.class_index) for entry in explained]
        # Asked for by its box, as in the changed pictures.
        maps = self._maps(image_rgb, boxes)
        changes = [list(map(relative_change, maps, self._maps(noisy, boxes))) for noisy in self._noisy(image_rgb)]
        flipped, shifted = (self._agreements(image_rgb, boxes, maps, ways) for ways in (FLIPPED, SHIFTED))
        return [
            {
                "max_sensitivity": None if None in moved else max(moved),
                "mean_sensitivity": None if None in moved else float(np.mean(moved)),
                "repeat_flip": None if None in flips else float(np.mean(flips)),
                "repeat_shift": None if None in shifts else float(np.mean(shifts)),
            }
            for moved, flips, shifts in zip(zip(*changes, strict=True), flipped, shifted, strict=True)
        ]

    def _maps(self, image_rgb: np.ndarray, boxes: list[Written]) -> list[np.ndarray]:
        """Return the heatmaps (H, W) of boxes of an image."""
        return [entry.heatmap for entry in self.explainer(image_rgb, boxes=boxes).detections]

    def _noisy(self, image_rgb: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the image with every value changed by at most a few levels, each alike probable."""
        generator = np.random.default_rng(self.seed)
        for _ in range(DRAWS):
            noise = generator.integers(-LEVELS_OF_NOISE, LEVELS_OF_NOISE, image_rgb.shape, np.int16, endpoint=True)
            yield np.uint8(np.clip(image_rgb + noise, 0, 255))

    def _agreements(
        self, image_rgb: np.ndarray, boxes: list[Written], maps: list[np.ndarray], ways: tuple[Moved, ...]
    ) -> list[list[float | None]]:
        """Return for each box how its map agrees with those of the image moved in several ways, laid back."""
        found = []
        for way in ways:
            moved = self._maps(way.picture(image_rgb), [way.box(box, image_rgb.shape[:2]) for box in boxes])
            found.append([agreement(*way.both(*pair)) for pair in zip(maps, moved, strict=True)])
        return [list(of_box) for of_box in zip(*found, strict=True)]


def relative_change(heatmap: np.ndarray, changed: np.ndarray) -> float | None:
    """Return the length of the difference of two maps over that of the first one; None where that is empty."""
    length = np.linalg.norm(np.float64(heatmap))
    return float(np.linalg.norm(np.float64(heatmap) - changed) / length) if length > 0 else None


def agreement(heatmap: np.ndarray, other: np.ndarray) -> float | None:
    """Return the correlation of two maps, -1..1: 0 where the other one has no contrast, None where the first one has none."""
    first, second = (np.float64(each).ravel() - each.mean(dtype=np.float64) for each in (heatmap, other))
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    if not lengths[0] > 0:
        return None
    return float(first @ second / np.prod(lengths)) if lengths[1] > 0 else 0.0
