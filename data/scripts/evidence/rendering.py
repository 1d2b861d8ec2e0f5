"""From the description of a scene to pixels, masks and labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.scripts.evidence.figures import EMBLEMS
from data.scripts.evidence.scene import Body, Figure, Scene

CLASSES = tuple(EMBLEMS)


@dataclass(frozen=True)
class Picture:
    """A drawn scene.

    image_rgb        uint8 (H, W, 3)
    bodies, emblems  uint8 (H, W): number of the object + 1, 0 where there is none. A body counts where it can be seen; an
                     emblem is the convex hull of its pixels.
    labels           float64 (n, 5): class, x, y, w, h of the visible part of each body, relative to the picture; class -1
                     without an emblem
    """

    image_rgb: np.ndarray
    bodies: np.ndarray
    emblems: np.ndarray
    labels: np.ndarray


def render(scene: Scene) -> Picture:
    """Draw a scene."""
    canvas = scene.background.paint(scene.size)
    bodies, emblems = (np.zeros((scene.size, scene.size), np.uint8) for _ in range(2))
    for figure in scene.clutter:
        stamp(canvas, figure)
    for number, body in enumerate(scene.bodies, start=1):
        inside = body.mask(scene.size)
        canvas[inside] = body.texture.paint(scene.size)[inside]
        bodies[inside] = number
        stamp(canvas, body.mark)
        if body.emblem:
            stamp(canvas, body.emblem)
            emblems[hull(body.emblem.mask(scene.size))] = number
    labels = np.array([label(body, bodies == number) for number, body in enumerate(scene.bodies, start=1)])
    return Picture(canvas.round().astype(np.uint8), bodies, emblems, labels.reshape(-1, 5))


def stamp(canvas: np.ndarray, figure: Figure) -> None:
    """Colour the pixels of a figure."""
    canvas[figure.mask(len(canvas))] = figure.color


def hull(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of the pixels of a mask, bool (H, W)."""
    filled = np.zeros(mask.shape, np.uint8)
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled > 0


def label(body: Body, visible: np.ndarray) -> tuple[float, ...]:
    """Return class, x, y, w, h of the visible pixels of a body, relative to the picture."""
    rows, columns = (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
    (y1, y2), (x1, x2) = ((line[0], line[-1] + 1) for line in (rows, columns))
    size = len(visible)
    index = CLASSES.index(body.emblem.name) if body.emblem else -1
    return index, (x1 + x2) / 2 / size, (y1 + y2) / 2 / size, (x2 - x1) / size, (y2 - y1) / size
