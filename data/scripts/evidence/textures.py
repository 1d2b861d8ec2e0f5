"""Surfaces: two colours mixed by stripes, checks, dots, a gradient or noise, with a finer noise on top."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Color = tuple[int, int, int]
GRAIN = 9.0


@dataclass(frozen=True)
class Texture:
    """A surface: how two colours (RGB) mix, the pattern's period in pixels and direction in degrees, and the noise's seed."""

    kind: str
    colors: tuple[Color, Color]
    period: float
    angle: float
    seed: int

    def paint(self, size: int) -> np.ndarray:
        """Return the surface, float32 RGB (size, size, 3) in 0..255."""
        rng = np.random.default_rng(self.seed)
        y, x = np.mgrid[:size, :size].astype(np.float32) / self.period
        along, across = (np.float32(f(np.radians(self.angle))) for f in (np.cos, np.sin))
        share = KINDS[self.kind](x * along + y * across, y * along - x * across, rng)[..., None]
        first, second = (np.array(color, np.float32) for color in self.colors)
        grain = rng.normal(0, GRAIN, (size, size, 1)).astype(np.float32)
        return (first + (second - first) * share + grain).clip(0, 255)


def stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return soft stripes."""
    return np.clip(0.5 + np.sin(2 * np.pi * u), 0, 1)


def checks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a chessboard."""
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def dots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return round dots in rows."""
    return (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3).astype(np.float32)


def gradient(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a steady change from one side to the other."""
    return (u - u.min()) / (u.max() - u.min())


def clouds(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return noise of three sizes."""
    size = u.shape[0]
    layers = [
        cv2.resize(rng.random((cells, cells), np.float32), (size, size), interpolation=cv2.INTER_CUBIC) / weight
        for cells, weight in ((6, 1), (16, 1.5), (48, 2.5))
    ]
    total = sum(layers)
    return (total - total.min()) / (total.max() - total.min())


KINDS = {"stripes": stripes, "checks": checks, "dots": dots, "gradient": gradient, "clouds": clouds}
