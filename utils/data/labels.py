"""Label files: one line per object, with its class and its box or outline relative to the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.base.texts import read_text

# float32, which labels are kept in, tells no larger whole numbers apart.
MOST_CLASSES = 2**24


@dataclass(frozen=True)
class Labels:
    """The objects of one image.

    Attributes:
        rows: (n, 5) float32: class, x centre, y centre, width, height, relative to the image.
        segments: n outlines (k, 2) x, y relative to the image; or nothing where the file has boxes alone.
        duplicates: how many lines were left out because they repeat another.
    """

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    segments: tuple[np.ndarray, ...] = ()
    duplicates: int = 0


def img2label_paths(img_paths: list[str]) -> list[str]:
    """Return the label file of each image: the last folder called images becomes labels, the suffix .txt."""
    return [str(_label_path(Path(path))) for path in img_paths]


def _label_path(image: Path) -> Path:
    parts = list(image.parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(path: str | Path) -> Labels:
    """Return the labels in a file; an empty file means an image without objects.

    A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...` for an outline; all but the class in 0..1.

    Raises:
        ValueError: naming the line, for what is no such line; OSError: where the file cannot be read.
    """
    texts = read_text(path).split("\n")
    lines = [(number, line.split()) for number, line in enumerate(texts, start=1) if line.strip()]
    parsed = [_parse(number, words) for number, words in lines]
    if not parsed:
        return Labels()
    rows = np.array([_box(values) for values in parsed], np.float32)
    _, kept = np.unique(rows, axis=0, return_index=True)
    kept.sort()
    has_outlines = any(len(values) > 5 for values in parsed)
    segments = tuple(_outline(parsed[i]) for i in kept) if has_outlines else ()
    return Labels(rows[kept], segments, len(rows) - len(kept))


def _parse(number: int, words: list[str]) -> list[float]:
    """Return the numbers of one line, checked."""
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"line {number}: {' '.join(words)[:60]!r} is not all numbers") from error
    if len(values) < 5 or (len(values) > 5 and (len(values) < 7 or len(values) % 2 == 0)):
        raise ValueError(f"line {number}: {len(values)} numbers; needed are class x y width height, or an outline")
    category, *coordinates = values
    if not category.is_integer() or not 0 <= category < MOST_CLASSES:
        raise ValueError(f"line {number}: class {category:g} is no whole number from 0 on")
    outside = [value for value in coordinates if not 0 <= value <= 1]
    if outside:
        raise ValueError(f"line {number}: coordinate {outside[0]:g} is not between 0 and 1, relative to the image")
    return values


def _box(values: list[float]) -> list[float]:
    """Return class, x, y, width, height of a line."""
    if len(values) == 5:
        return values
    points = np.array(values[1:]).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return [values[0], *(low + high) / 2, *(high - low)]


def _outline(values: list[float]) -> np.ndarray:
    """Return the outline of a line (k, 2); that of a box has four corners."""
    if len(values) > 5:
        return np.array(values[1:], np.float32).reshape(-1, 2)
    x, y, w, h = values[1:]
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
