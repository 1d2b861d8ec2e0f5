"""Boxes that are known before the model looks: those that the user types, and those of label files.

typed   (x1, y1, x2, y2, class): left, top, right and bottom edge in pixels of the original image, and the name or the
        index of a class
label   a line of a file, as YOLO training reads it: `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...` for an
        outline, of which the enclosing box counts; all but the class are shares of the image's width and height, 0..1

An image without a label file has no objects. `boxes_of` turns labels into boxes as they are typed.
"""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from explainer.errors import UsageError, unknown

Written = tuple[float, float, float, float, str | int]

EXAMPLE = "10 20 110 220 dog"
LINE_SHAPES = "class x y width height, or class and the corners of an outline"
# What rounding may add to a box that ends at the edge of the image: in pixels, and as a share of the image.
SLACK_PIXELS, SLACK_SHARE = 1.0, 1e-3


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
    if (corners < -SLACK_PIXELS).any() or (corners > limits + SLACK_PIXELS).any():
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


@dataclass(frozen=True)
class Label:
    """One labelled object: its class, the box (x1, y1, x2, y2) that encloses it as shares of the image, and its line.

    `outline` holds its corners (x1, y1, x2, y2, ...) where the line gives an outline; else it is empty.
    """

    class_index: int
    xyxy: tuple[float, float, float, float]
    where: str = field(compare=False)
    outline: tuple[float, ...] = ()


class Labels:
    """The labels of a run: a folder of files called like the images, or one file."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise UsageError(f"--labels '{path}' does not exist; give a folder of YOLO .txt files, or one of them")
        if self.path.is_file() and self.path.suffix.lower() != ".txt":
            raise UsageError(f"--labels '{path}' is no .txt file; give a folder of YOLO .txt files, or one of them")
        if self.path.is_dir() and not any(self.path.rglob("*.txt")):
            raise UsageError(f"--labels '{path}' holds no .txt file; give the folder of YOLO labels of the images")

    def file_of(self, image: Path, number: int = 0) -> Path | None:
        """Return the label file of an image, or of the frame of a video with this number; None where there is none.

        In a folder it is the one under the longest end of the image's path, so that both labels/ and labels/train/ serve
        images/train/1.jpg. The file of a frame carries its number, clip_12.txt, as detect.py writes it.
        """
        if self.path.is_file():
            return self.path
        name = f"{image.stem}_{number}.txt" if number else f"{image.stem}.txt"
        folders = image.absolute().parent.parts[1:]
        candidates = (self.path.joinpath(*folders[start:], name) for start in range(len(folders) + 1))
        return next((path for path in candidates if path.is_file()), None)

    def of(self, image: Path, number: int = 0) -> list[Label]:
        """Return the labels of an image, or of a frame of a video; none without a file. UsageError for a bad line."""
        path = self.file_of(image, number)
        return read_labels(path) if path else []

    def check(self, images: Iterable[Path], class_count: int | None = None) -> int:
        """Return how many of the images have a label file; UsageError for a bad line, or a class that the model lacks."""
        found = [path for path in map(self.file_of, images) if path]
        for path in found:
            for label in read_labels(path):
                check_class(label, class_count)
        return len(found)


def check_class(label: Label, class_count: int | None) -> None:
    """Raise UsageError for a label of a class that a model with so many does not have."""
    if class_count is not None and label.class_index >= class_count:
        raise UsageError(
            f"{label.where}: class {label.class_index}, and the model knows 0..{class_count - 1}; "
            "give the labels that belong to its classes"
        )


def boxes_of(labels: Iterable[Label], image_size: tuple[int, int]) -> list[Written]:
    """Return labels as boxes in pixels of an image of this size (height, width)."""
    height, width = image_size
    return [
        (x1 * width, y1 * height, x2 * width, y2 * height, label.class_index)
        for label in labels
        for x1, y1, x2, y2 in [label.xyxy]
    ]


def read_labels(path: str | Path) -> list[Label]:
    """Return the labels of a file, repeated ones once; UsageError names the file and the line that is none."""
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        raise UsageError(f"label file {path} cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return list(dict.fromkeys(parse_line(line, f"{path}:{number}") for number, line in numbered))


def read_text(path: str | Path) -> str:
    """Return the text in a file, with newlines as line ends: UTF-8 or, after its byte order mark, UTF-16.

    UsageError, naming the file and the line, for what is no such text; OSError where it cannot be read.
    """
    data = Path(path).read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise UsageError(f"{path} is no text: it holds NUL characters; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_line(line: str, where: str) -> Label:
    """Return the label in one line; UsageError where it is none. `where`: file and line, for the message."""
    try:
        class_number, *shares = map(float, line.split())
    except ValueError as error:
        raise UsageError(f"{where}: '{line.strip()[:60]}' is not all numbers; a line holds {LINE_SHAPES}") from error
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise UsageError(f"{where}: {len(shares) + 1} numbers; a line holds {LINE_SHAPES}")
    if not class_number.is_integer() or class_number < 0:
        raise UsageError(f"{where}: class {class_number:g} is no whole number from 0 on")
    outside = [share for share in shares if not -SLACK_SHARE <= share <= 1 + SLACK_SHARE]
    if outside:
        raise UsageError(
            f"{where}: {outside[0]:g} is no share of the image, 0..1; divide pixels by its width and height"
        )
    x1, y1, x2, y2 = box_of(shares) if len(shares) == 4 else enclosing_box(shares)
    if x2 <= x1 or y2 <= y1:
        raise UsageError(f"{where}: a box without an area")
    outline = tuple(shares) if len(shares) > 4 else ()
    return Label(int(class_number), (x1, y1, x2, y2), where, outline)


def box_of(shares: list[float]) -> tuple[float, float, float, float]:
    """Return the corners of a box given as centre, width and height, clipped to the image."""
    x, y, width, height = shares
    return enclosing_box([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def enclosing_box(outline: list[float]) -> tuple[float, float, float, float]:
    """Return the corners of the box around points x, y, x, y, ..., clipped to the image."""
    x, y = ([min(max(value, 0.0), 1.0) for value in outline[start::2]] for start in (0, 1))
    return min(x), min(y), max(x), max(y)
