"""Random masks for the black-box methods: pure functions on arrays.

A mask is a float32 array (h, w) in cells over the network's input: 1 where the image is kept, 0 where it is not, and between
the centres of its cells interpolated like the map of a layer. So a sum of masks is exact in cells, and needs no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

# Focused masks: a window around a box is all there inside this share of the box's half sides, and gone outside the other.
INNER, OUTER = 0.8, 1.5
# The power of its superellipse: 2 would be an ellipse, infinity a rectangle.
ROUNDNESS = 3
# Knots along a box at least, and along the longer side of the image around the boxes.
COARSEST, AROUND = 1.0, 6
# How far the share that is kept strays from its mean: 0 not at all, 1 as far as can be.
SPREAD = 0.8


def grid_masks(size: tuple[int, int], grid: int, keep: float, seed: int) -> Iterator[np.ndarray]:
    """Yield the masks of RISE, endlessly: random grids, interpolated, each shifted at random.

    size: (h, w) of a mask. grid: knots along its longer side, which are 1 with probability `keep` and 0 otherwise.
    """
    generator = np.random.default_rng(seed)
    spacing = max(size) / grid
    while True:
        yield random_grid(generator, size, (spacing, spacing), keep)


def random_grid(
    generator: np.random.Generator, size: tuple[int, int], spacing: tuple[float, float], keep: float
) -> np.ndarray:
    """Return a mask (h, w) through the knots of a grid that are 1 with probability `keep` and 0 otherwise.

    spacing: the distance of the knots (y, x) in cells. The grid is shifted at random by up to one of them.
    """
    import cv2

    rows, columns = (ceil(side / step) + 2 for side, step in zip(size, spacing, strict=True))
    knots = (generator.random((rows, columns)) < keep).astype(np.float32)
    (step_y, step_x), (shift_y, shift_x) = spacing, generator.random(2)
    # Where the centre of the first cell lies among the knots, and how far each further one.
    to_knots = np.float32([[1 / step_x, 0, shift_x + 0.5 / step_x], [0, 1 / step_y, shift_y + 0.5 / step_y]])
    return cv2.warpAffine(knots, to_knots, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@dataclass(frozen=True)
class Window:
    """The surroundings of a box in a mask.

    rows, columns  the part of the mask that it lies in
    box            height and width of the box in cells
    weight         how much each cell of the part belongs to it, 0..1
    """

    rows: slice
    columns: slice
    box: tuple[float, float]
    weight: np.ndarray


def focused_masks(size: tuple[int, int], boxes: np.ndarray, grid: int, keep: float, seed: int) -> Iterator[np.ndarray]:
    """Yield masks, endlessly, that are random grids of another coarseness and density around each box in every mask.

    Small boxes lie on top of large ones; around them all a coarse grid is left.
    size: (h, w) of a mask. boxes: (D, 4) xyxy in its cells. grid: knots along the sides of a box where they are finest.
    """
    generator = np.random.default_rng(seed)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    windows = [window_around(boxes[index], size) for index in np.argsort(-areas, kind="stable")]
    windows = [window for window in windows if window.weight.size]
    spacing, stray = max(size) / AROUND, SPREAD * min(keep, 1 - keep)
    while True:
        mask = random_grid(generator, size, (spacing, spacing), keep)
        for window in windows:
            knots, kept = generator.uniform(COARSEST, grid), generator.uniform(keep - stray, keep + stray)
            here = mask[window.rows, window.columns]
            height, width = window.box
            here += window.weight * (random_grid(generator, here.shape, (height / knots, width / knots), kept) - here)
        yield mask


def surroundings(size: tuple[int, int], boxes: np.ndarray) -> np.ndarray:
    """Return how much each cell of a mask (h, w) belongs to the window around each box, float32 (D, h, w) in 0..1."""
    whole = np.zeros((len(boxes), *size), np.float32)
    for weight, box in zip(whole, boxes, strict=True):
        window = window_around(box, size)
        weight[window.rows, window.columns] = window.weight
    return whole


def window_around(box_xyxy: np.ndarray, size: tuple[int, int]) -> Window:
    """Return the window around a box (4,) in cells of a mask (h, w); it may lie outside of it, and be empty."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    sides = max(y2 - y1, 1.0), max(x2 - x1, 1.0)
    axes = []
    for centre, side, limit in zip(((y1 + y2) / 2, (x1 + x2) / 2), sides, size, strict=True):
        first, after = floor(centre - OUTER * side / 2), ceil(centre + OUTER * side / 2)
        cells = np.arange(min(max(first, 0), limit), max(min(after, limit), 0))
        axes.append((cells, (np.abs(cells + 0.5 - centre) / (side / 2)) ** ROUNDNESS))
    (rows, down), (columns, across) = axes
    distance = (down[:, None] + across) ** (1 / ROUNDNESS)
    weight = smooth_step((OUTER - distance) / (OUTER - INNER)).astype(np.float32)
    return Window(span(rows), span(columns), sides, weight)


def span(cells: np.ndarray) -> slice:
    """Return neighbouring cells as a slice."""
    return slice(cells[0], cells[-1] + 1) if len(cells) else slice(0, 0)


def smooth_step(share: np.ndarray) -> np.ndarray:
    """Return a share, 0 below 0 and 1 above 1, that leaves both ends slowly."""
    share = share.clip(0, 1)
    return share * share * (3 - 2 * share)
