"""Label files as YOLO training reads them: which one belongs to an image, and the boxes that it holds.

A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...` for an outline, of which the enclosing box counts; all
but the class are shares of the image's width and height, 0..1. An image without a label file has no objects.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from explainer.boxes import Written
from explainer.errors import UsageError

SHAPES = "class x y width height, or class and the corners of an outline"
# What rounding may add to a share of the image.
SLACK = 1e-3


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
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"label file {path} cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return list(dict.fromkeys(parse_line(line, f"{path}:{number}") for number, line in numbered))


def parse_line(line: str, where: str) -> Label:
    """Return the label in one line; UsageError where it is none. `where`: file and line, for the message."""
    try:
        class_number, *shares = map(float, line.split())
    except ValueError as error:
        raise UsageError(f"{where}: '{line.strip()[:60]}' is not all numbers; a line holds {SHAPES}") from error
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise UsageError(f"{where}: {len(shares) + 1} numbers; a line holds {SHAPES}")
    if not class_number.is_integer() or class_number < 0:
        raise UsageError(f"{where}: class {class_number:g} is no whole number from 0 on")
    outside = [share for share in shares if not -SLACK <= share <= 1 + SLACK]
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
