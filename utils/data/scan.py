"""Find the images and labels of a split, and look at each before work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from utils.base.image_io import PILLOW_ERRORS, check_pixels, open_picture, read_image
from utils.base.logger import LOGGER
from utils.base.media import IMG_FORMATS
from utils.base.texts import Listings, read_list
from utils.data.labels import Labels, img2label_paths, read_labels

THREADS = 8
# More files of one kind than this are counted instead of named.
NAMED = 10
SMALLEST_SIDE = 10
# Photographs have less than a hundred; a file with more is one colour, or claims what it does not hold.
MOST_PIXELS_PER_BYTE = 500
EXIF_ORIENTATION = 0x0112
LAST_BYTES = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class Entry:
    """One image as it was found: its size, its labels, and a problem that rules it out."""

    image: str
    label_file: str
    size: tuple[int, int] = (0, 0)
    labels: Labels = field(default_factory=Labels)
    has_label_file: bool = True
    problem: str = ""


def find_images(path: str | Path | Iterable[str | Path]) -> list[str]:
    """Return the sorted paths of the images of a split.

    Args:
        path: a folder (with all below it), a text file with one image per line ('./' is the list's own folder), or several.

    Raises:
        FileNotFoundError: when there is no such file or folder, or no image in it.
    """
    given = [path] if isinstance(path, str | Path) else list(path)
    files = [file for part in given for file in _listed(Path(part))]
    # What a list names and is not there is reported with the images that cannot be read.
    images = sorted(str(file) for file in files if file.suffix[1:].lower() in IMG_FORMATS or not file.exists())
    if not images:
        named = ", ".join(map(str, given))
        raise FileNotFoundError(f"no images in {named}; images end in {' '.join(IMG_FORMATS)}")
    return images


def _listed(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a folder with images, or a text file with one per line")
    return [Path(listed) for listed in read_list(path)]


def lists_in(path: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return which parts of the path of a split, see `find_images`, are lists."""
    given = [path] if isinstance(path, str | Path) else path
    return [Path(part) for part in given if Path(part).is_file()]


def scan(images: list[str], prefix: str = "", lists: Iterable[Path] = ()) -> list[Entry]:
    """Return the usable images with their sizes and labels, after a line for each file that has a problem.

    Corrupt images, and images whose labels cannot be used, are left out. Images without a label file have no objects. Of
    an image that is not there the line says where the `lists` name it.

    Raises:
        ValueError: when no image is left, naming the first problem.
    """
    from tqdm import tqdm

    pairs, listings = zip(images, img2label_paths(images), strict=True), Listings(lists)
    with ThreadPool(THREADS) as pool:
        examined = pool.imap(lambda pair: _examine(*pair), pairs)
        entries = list(tqdm(examined, f"{prefix}Scanning", len(images), leave=False, disable=len(images) < 1000))
    entries = [entry if os.path.exists(entry.image) else _placed(entry, listings) for entry in entries]
    _report(entries, prefix)
    usable = [entry for entry in entries if not entry.problem]
    if not usable:
        raise ValueError(f"none of the {len(images)} images can be used; the first: {entries[0].problem}")
    return usable


def _examine(image: str, label_file: str) -> Entry:
    """Look at one image and its labels."""
    entry = Entry(image, label_file)
    try:
        entry = replace(entry, size=_image_size(image))
        if not Path(label_file).is_file():
            return replace(entry, has_label_file=False)
        return replace(entry, labels=read_labels(label_file))
    except OSError as error:
        text = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        return replace(entry, problem=text if image in text or label_file in text else f"{image}: {text}")
    except ValueError as error:
        text = str(error)
        return replace(entry, problem=text if label_file in text else f"{label_file}: {text}")


def _placed(entry: Entry, listings: Listings) -> Entry:
    """Return the entry of an image that is not there, with the place that names it in its problem."""
    return replace(entry, problem=entry.problem + listings.where(entry.image))


def _image_size(path: str) -> tuple[int, int]:
    """Return width and height of an upright image; OSError for one that cannot be read, or is too small or too large."""
    try:
        with open_picture(path) as image:
            width, height = image.size
            is_sideways = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except Image.UnidentifiedImageError as error:
        raise OSError(f"{path} cannot be read: it is damaged, or no image in a known format") from error
    except Image.DecompressionBombError:
        # Pillow looks at no picture of this size; it may still be one that is read.
        height, width = read_image(path).shape[:2]
        return width, height
    except PILLOW_ERRORS as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"{path} cannot be read as an image: {error}") from error
    check_pixels(path, width * height)
    if not _looks_whole(Path(path), width * height):
        read_image(path)
    if min(width, height) < SMALLEST_SIDE:
        raise OSError(f"{path} is too small: {width}x{height} pixels, at least {SMALLEST_SIDE} are needed")
    return (height, width) if is_sideways else (width, height)


def _looks_whole(path: Path, pixels: int) -> bool:
    """Whether a file of so many pixels need not be decoded: it ends as it should, and has about enough bytes for them."""
    return _ends_as_it_should(path) and pixels < MOST_PIXELS_PER_BYTE * path.stat().st_size


def _ends_as_it_should(path: Path) -> bool:
    """Whether the last bytes are those of a whole file, which saves decoding it; other formats are taken as whole."""
    last = LAST_BYTES.get(path.suffix.lower(), b"")
    with path.open("rb") as file:
        file.seek(-min(len(last), path.stat().st_size), 2)
        return file.read() == last or not last


def _report(entries: list[Entry], prefix: str) -> None:
    """Log a line per problem, and one that sums up."""
    for entry in entries:
        if entry.problem:
            LOGGER.warning(f"{prefix}WARNING: left out: {entry.problem}")
        elif entry.labels.duplicates:
            LOGGER.warning(f"{prefix}WARNING: {entry.label_file}: {entry.labels.duplicates} duplicate labels removed")
    missing = [entry.label_file for entry in entries if not entry.has_label_file]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        LOGGER.warning(f"{prefix}WARNING: no label file, so no objects: {', '.join(missing[:NAMED])}{more}")
    background = sum(not len(entry.labels.rows) and not entry.problem for entry in entries)
    corrupt = sum(bool(entry.problem) for entry in entries)
    LOGGER.info(f"{prefix}{len(entries)} images, {background} backgrounds, {corrupt} corrupt")


def check_classes(label_files: list[str], labels: list[np.ndarray], nc: int) -> None:
    """Raise ValueError, naming the file, for a label (n, 5) whose class is not below `nc`."""
    for path, rows in zip(label_files, labels, strict=True):
        if len(rows) and rows[:, 0].max() >= nc:
            raise ValueError(
                f"{path} has class {int(rows[:, 0].max())}, but the data set has the classes 0 to {nc - 1}; "
                f"correct the label, or add the class to names in the dataset YAML"
            )
