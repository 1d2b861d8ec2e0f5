"""Read the scenes of the Evidence set as it was drawn, and cut emblems out of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Labelled:
    """A scene, all in pixels.

    Attributes:
        image_rgb: (side, side, 3) uint8.
        classes: (n,) from 0 on.
        boxes: (n, 4) float64, x1, y1, x2, y2.
        emblems: (n, 2) float64, the x and y of the middle of each object's emblem.
    """

    image_rgb: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    emblems: np.ndarray


def read_scenes(folder: Path, part: str, side: int) -> list[Labelled]:
    """Return all scenes of a part of the set by their names, `side` pixels wide; FileNotFoundError where there are none."""
    names = sorted(path.stem for path in (folder / "images" / part).glob("*.jpg"))
    if not names:
        raise FileNotFoundError(f"no scenes in {folder / 'images' / part}; data/scripts/draw_evidence.py draws them")
    return [read_scene(folder, part, name, side) for name in names]


def read_scene(folder: Path, part: str, name: str, side: int) -> Labelled:
    """Return one scene of a part of the set, resized to a side in pixels."""
    image_rgb = cv2.cvtColor(cv2.imread(str(folder / "images" / part / f"{name}.jpg")), cv2.COLOR_BGR2RGB)
    numbers = cv2.imread(str(folder / "masks" / part / f"{name}_emblem.png"), cv2.IMREAD_UNCHANGED)
    rows = np.loadtxt(folder / "labels" / part / f"{name}.txt", ndmin=2)
    centres, sides = rows[:, 1:3] * side, rows[:, 3:] * side
    emblems = [np.argwhere(numbers == number).mean(0)[::-1] for number in range(1, len(rows) + 1)]
    return Labelled(
        image_rgb if len(image_rgb) == side else cv2.resize(image_rgb, (side, side), interpolation=cv2.INTER_AREA),
        rows[:, 0].astype(int),
        np.concatenate((centres - sides / 2, centres + sides / 2), axis=1),
        (np.array(emblems) + 0.5) * side / len(image_rgb),
    )


def cut_out(scene: Labelled, side: int) -> Iterator[np.ndarray]:
    """Yield a picture (side, side, 3) uint8 RGB of each emblem, in the middle; what lies outside the scene is black."""
    for x, y in scene.emblems:
        yield cv2.getRectSubPix(scene.image_rgb, (side, side), (x - 0.5, y - 0.5))
