"""A scene as data: what is where, in pixels. Nothing here is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.scripts.evidence.figures import FIGURES, filled, turned
from data.scripts.evidence.textures import Color, Texture


@dataclass(frozen=True)
class Figure:
    """A small figure of one colour: its name in FIGURES, centre (x, y), radius and turn in degrees."""

    name: str
    centre: tuple[float, float]
    radius: float
    angle: float
    color: Color

    def mask(self, size: int) -> np.ndarray:
        """Return the pixels that it colours, bool (size, size)."""
        polygons = (turned(np.array(points), self.angle) for points in FIGURES[self.name])
        return filled([points * self.radius + self.centre for points in polygons], size)


@dataclass(frozen=True)
class Body:
    """An object: its outline, its surface, the emblem that decides its class (or None), and a mark that decides nothing."""

    outline: tuple[tuple[float, float], ...]
    texture: Texture
    emblem: Figure | None
    mark: Figure

    def mask(self, size: int) -> np.ndarray:
        """Return the pixels inside the outline, bool (size, size)."""
        return filled([np.array(self.outline)], size)


@dataclass(frozen=True)
class Scene:
    """A square picture of `size` pixels: a surface, clutter on it, and bodies, the last in front."""

    size: int
    background: Texture
    clutter: tuple[Figure, ...]
    bodies: tuple[Body, ...]
