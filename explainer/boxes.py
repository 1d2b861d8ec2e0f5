"""Boxes that the user gives to be explained, detected or not.

One is written (x1, y1, x2, y2, class): its left, top, right and bottom edge in pixels of the original image, and the name
or the index of a class. A label of an image is written alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real

import numpy as np

from explainer.errors import UsageError, unknown

Written = tuple[float, float, float, float, str | int]

EXAMPLE = "10 20 110 220 dog"
# What rounding may add to a box that ends at the edge of the image, in pixels.
SLACK = 1.0


@dataclass(frozen=True)
class Box:
    """A box (x1, y1, x2, y2), float32 in pixels of the original image, and the class that it is asked about."""

    xyxy: np.ndarray
    class_index: int


def written_boxes(given: Iterable[Sequence] | None, option: str) -> tuple[Written, ...] | None:
    """Return boxes with their corners as numbers, None where none are asked about; UsageError for one that is no box.

    given: boxes as the user wrote them; one alone is a list of one. option: the name of what they were given to.
    """
    if given is None:
        return None
    entries = list(given)
    alone = bool(entries) and isinstance(entries[0], Real)
    return tuple(written_box(entry, option) for entry in ([entries] if alone else entries))


def written_box(entry: Sequence, option: str) -> Written:
    """Return a box with its corners as numbers; UsageError where they are none, or enclose nothing."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 5:
        shown = as_written(entry) if isinstance(entry, (list, tuple)) else entry
        raise UsageError(f"--{option} takes x1 y1 x2 y2 and a class, such as {EXAMPLE}; given: {shown}")
    *corners, name = entry
    try:
        x1, y1, x2, y2 = map(float, corners)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--{option} {as_written(entry)}: the corners are no numbers of pixels; write it like {EXAMPLE}"
        ) from error
    if not all(map(isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
        raise UsageError(
            f"--{option} {as_written(entry)} encloses nothing: x2 must lie right of x1 and y2 below y1 "
            "(two corners, not width and height)"
        )
    return x1, y1, x2, y2, name


def boxes_in(
    image_size: tuple[int, int], given: Iterable[Sequence] | None, names: dict[int, str], option: str
) -> list[Box] | None:
    """Return the boxes given for an image of this size (height, width), None where none are asked about.

    UsageError for one that is no box, that reaches out of the image, or whose class is not among the model's `names`.
    """
    written = written_boxes(given, option)
    if written is None:
        return None
    return [Box(corners_in(image_size, entry, option), class_index_of(entry[4], names, option)) for entry in written]


def corners_in(image_size: tuple[int, int], entry: Written, option: str) -> np.ndarray:
    """Return the corners of a box, float32 (4,); UsageError where it reaches out of the image by more than rounding."""
    height, width = image_size
    corners = np.float32(entry[:4])
    limits = np.float32([width, height, width, height])
    if (corners < -SLACK).any() or (corners > limits + SLACK).any():
        raise UsageError(
            f"--{option} {as_written(entry)} reaches out of the image, which has {width}x{height} pixels; "
            "give corners in pixels of the original image"
        )
    return np.clip(corners, 0, limits)


def class_index_of(name: str | int, names: dict[int, str], option: str) -> int:
    """Return the index of a class given by name or index; UsageError, with the known ones, where the model lacks it."""
    for index, known in names.items():
        if known == name:
            return index
    number = int(name) if isinstance(name, Integral) or str(name).isdecimal() else None
    if number not in names:
        raise unknown(f"class of --{option}", name, [f"{index} {known}" for index, known in names.items()])
    return number


def check_classes_of(written: Iterable[Written] | None, names: dict[int, str], option: str) -> None:
    """Raise UsageError for a box of a class that the model lacks."""
    for entry in written or ():
        class_index_of(entry[4], names, option)


def as_written(entry: Sequence) -> str:
    """Return a box as it would be typed."""
    return " ".join(format(part, "g") if isinstance(part, float) else str(part) for part in entry)
