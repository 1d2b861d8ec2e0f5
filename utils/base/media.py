"""What a `--source` names: files to read, a stream, or the screen."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

IMG_FORMATS = "bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm"
VID_FORMATS = "asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "wmv"
URL_SCHEMES = "rtsp", "rtmp", "http", "https", "tcp", "udp"
GLOB_CHARACTERS = "*?["


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
            these per line, relative to the working folder or else to the list; or a sequence of these.

    Raises:
        FileNotFoundError: when something named is not there, or holds no image or video.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    files = [file for item in named for file in _expand(str(item))]
    images = [file for file in files if _suffix(file) in IMG_FORMATS]
    videos = [file for file in files if _suffix(file) in VID_FORMATS]
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
    if path.is_dir():
        return sorted(_absolute(file) for file in path.iterdir() if file.is_file())
    if path.is_file():
        return _listed_files(path) if path.suffix.lower() == ".txt" else [_absolute(path)]
    if any(character in item for character in GLOB_CHARACTERS):
        return [_absolute(Path(file)) for file in sorted(glob.glob(item, recursive=True)) if Path(file).is_file()]
    raise FileNotFoundError(f"{item} does not exist; give a file, a folder, a pattern like 'dir/*.jpg' or a .txt list")


def _absolute(path: Path) -> str:
    # A link keeps the name that the user gave it.
    return str(path.parent.resolve() / path.name)


def _listed_files(listing: Path) -> list[str]:
    """Return the files that the lines of a text file name."""
    try:
        lines = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise OSError(f"{listing} is no UTF-8 text with one path per line") from error
    relative = listing.parent
    paths = [line if Path(line).exists() else str(relative / line) for line in lines if line]
    return [file for path in paths for file in _expand(path)]
