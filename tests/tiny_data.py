"""A data set small enough to train on in every test: coloured squares on grey."""

from pathlib import Path

import cv2
import numpy as np
import yaml

# Class 0 is blue, class 1 green, class 2 red (BGR).
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def draw_squares(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """Return a picture (h, w, 3) with three squares side by side, and its label lines."""
    width, height = size
    im = np.full((height, width, 3), 128, np.uint8)
    lines = []
    for category, color in enumerate(COLORS):
        third = width // 3
        side = int(rng.integers(third // 2, third - 2))
        left = category * third + int(rng.integers(0, third - side))
        top = int(rng.integers(0, height - side))
        im[top : top + side, left : left + side] = color
        x, y = (left + side / 2) / width, (top + side / 2) / height
        lines.append(f"{category} {x:.6f} {y:.6f} {side / width:.6f} {side / height:.6f}")
    return im, lines


def make_dataset(folder: Path, count: int = 6, size: tuple[int, int] = (64, 48)) -> Path:
    """Write `count` pictures of `size` (w, h) and their labels below `folder`; return the dataset YAML."""
    rng = np.random.default_rng(0)
    for split in ("images", "labels"):
        (folder / split).mkdir(parents=True)
    for i in range(count):
        im, lines = draw_squares(rng, size)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), im)
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines), encoding="utf-8")
    data = {"path": str(folder), "train": "images", "val": "images", "names": ["blue", "green", "red"]}
    path = folder / "squares.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path
