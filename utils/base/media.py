"""What a `--source` names: files to read, a stream, or the screen."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from utils.base.texts import GLOB_CHARACTERS, is_there, read_list

IMG_FORMATS = "bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm"
VID_FORMATS = "asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "wmv"
URL_SCHEMES = "rtsp", "rtmp", "http", "https", "tcp", "udp"


def is_url(source: str) -> bool:
    """Whether `source` is an address on the network, by its first letters alone."""
    return str(source).lower().startswith(tuple(f"{scheme}://" for scheme in URL_SCHEMES))


def hide_password(source: object) -> str:
    """Return a source as text for the log, with `***` for the `user:password` in a network address."""
    text = str(source)
    scheme, separator, rest = text.partition("://")
    login, at, host = rest.partition("@")
    return f"{scheme}{separator}***@{host}" if is_url(text) and at and "/" not in login else text


def is_media_file(source: str) -> bool:
    """Whether the suffix of a path or of a web address is one of an image or a video; other addresses are streams."""
    if is_url(source) and not source.lower().startswith("http"):
        return False
    path = urlsplit(source).path if is_url(source) else str(source)
    return _suffix(path) in IMG_FORMATS + VID_FORMATS


def is_stream(source: str) -> bool:
    """Whether `source` is a webcam's number, a `.streams` list, or a URL that is no file to download."""
    return source.isdecimal() or source.endswith(".streams") or (is_url(source) and not is_media_file(source))


def is_screen(source: str) -> bool:
    """Whether `source` is `screen`, alone or followed by numbers."""
    return source.lower().split(" ")[0] == "screen" and not Path(source).exists()


def find_media(source: str | Path | Iterable[str | Path]) -> tuple[list[str], list[str]]:
    """Return the absolute paths of the images and of the videos that `source` names.

    Args:
        source: a file; a folder (its own files, sorted); a pattern such as `photos/**/*.jpg`; a `.txt` file with one of
            these per line, see `utils.base.texts.read_list`; or a sequence of these.

    Raises:
        FileNotFoundError: when something named is not there, or holds no image or video. Of the lines of a list one
            must be there; the others are among the images, and cannot be read.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    files = [file for item in named for file in _expand(str(item))]
    # What a list names and is not there counts as an image that cannot be read.
    images = [file for file in files if _suffix(file) in IMG_FORMATS or not os.path.exists(file)]
    videos = [file for file in files if _suffix(file) in VID_FORMATS and os.path.exists(file)]
    if not images and not videos:
        raise FileNotFoundError(
            f"no image or video in {', '.join(map(str, named))}; "
            f"images end in {' '.join(IMG_FORMATS)}, videos in {' '.join(VID_FORMATS)}"
        )
    return images, videos


def _suffix(path: str) -> str:
    return Path(path).suffix[1:].lower()


def _expand(item: str) -> list[str]:
    """Return the absolute paths of the files that one item of a source names."""
    path = Path(item)
    # Unlike those of Path these take a name that no file can have.
    if os.path.isdir(item):
        return sorted(_absolute(file) for file in path.iterdir() if file.is_file())
    if os.path.isfile(item):
        return _listed_files(path) if path.suffix.lower() == ".txt" else [_absolute(path)]
    if any(character in item for character in GLOB_CHARACTERS):
        return [_absolute(Path(file)) for file in sorted(glob.glob(item, recursive=True)) if Path(file).is_file()]
    raise FileNotFoundError(f"{item} does not exist; give a file, a folder, a pattern like 'dir/*.jpg' or a .txt list")


def _absolute(path: Path) -> str:
    # A link keeps the name that the user gave it.
    return str(path.parent.resolve() / path.name)


def _listed_files(listing: Path) -> list[str]:
    """Return the files that the lines of a text file name, and what is not there but was named."""
    return [file for path in read_list(listing) for file in (_expand(path) if is_there(path) else [path])]
