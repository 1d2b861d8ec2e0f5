"""The small figures of a scene as polygons: the emblems that decide a class, marks that decide nothing, and clutter.

A figure lies in the square -1..1 with y down. Where polygons overlap there is a hole (even-odd rule).
"""

from __future__ import annotations

import cv2
import numpy as np

Polygon = list[tuple[float, float]]
# Coordinates are handed to OpenCV in sixteenths of a pixel.
SHIFT = 4


def arc(radius: float, start: float = 0, stop: float = 360, points: int = 40) -> Polygon:
    """Return points on a circle between two angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, points))
    return list(zip(radius * np.cos(angles), radius * np.sin(angles), strict=True))


def bar(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    """Return an upright rectangle."""
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def path(*percents: int) -> Polygon:
    """Return the polygon of x, y, x, y and so on in percent."""
    return [(x / 100, y / 100) for x, y in zip(percents[::2], percents[1::2], strict=True)]


# Emblems look the same in a mirror, and their areas are alike: only the shape tells them apart.
EMBLEMS: dict[str, list[Polygon]] = {
    "ring": [arc(0.95), arc(0.74)],
    "cross": [
        path(-16, -95, 16, -95, 16, -16, 95, -16, 95, 16, 16, 16, 16, 95, -16, 95, -16, 16, -95, 16, -95, -16, -16, -16)
    ],
    "chevron": [[(-0.88, 0.85), (0, -0.9), (0.88, 0.85), (0.55, 0.85), (0, -0.25), (-0.55, 0.85)]],
    "bars": [bar(-0.85, -0.7, 0.85, -0.38), bar(-0.85, 0.38, 0.85, 0.7)],
}
MARKS: dict[str, list[Polygon]] = {
    "square": [bar(-0.72, -0.72, 0.72, 0.72), bar(-0.5, -0.5, 0.5, 0.5)],
    "zed": [path(-75, -75, 75, -75, 75, -45, -25, 45, 75, 45, 75, 75, -75, 75, -75, 45, 25, -45, -75, -45)],
    "ell": [[(-0.65, -0.9), (-0.3, -0.9), (-0.3, 0.5), (0.75, 0.5), (0.75, 0.85), (-0.65, 0.85)]],
    "wedge": [[(-0.85, -0.6), (0.85, -0.6), (-0.85, 0.75)]],
}
CLUTTER: dict[str, list[Polygon]] = {
    "stroke": [bar(-0.95, -0.14, 0.95, 0.14)],
    "half ring": [arc(0.95, 0, 180) + arc(0.74, 180, 0)],
    "corner": [[(-0.8, -0.8), (0.8, -0.8), (0.8, -0.5), (-0.5, -0.5), (-0.5, 0.8), (-0.8, 0.8)]],
    "leg": [[(-0.88, 0.85), (-0.2, -0.5), (0.1, -0.5), (-0.55, 0.85)]],
}
FIGURES = EMBLEMS | MARKS | CLUTTER


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Return points (n, 2) turned clockwise about the origin, as seen with y down."""
    angle = np.radians(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def filled(polygons: list[np.ndarray], size: int) -> np.ndarray:
    """Return the pixels inside polygons (n, 2) of pixels, even-odd: bool (size, size), with hard edges."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 2**SHIFT).astype(np.int32) for points in polygons], 1, cv2.LINE_8, SHIFT)
    return mask > 0
