"""Images that lie elsewhere, such as s3://bucket/images: what pyarrow or fsspec opens."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from explainer.errors import UnreadableImageError, UsageError
from explainer.files.sources import first_line, is_url

ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+]+)://.+", re.IGNORECASE)
PATTERN = re.compile(r"[*?\[]")


def is_remote(source: object) -> bool:
    """Return whether a source is the address of files that are opened by pyarrow or fsspec, not of a page or a stream."""
    return isinstance(source, str) and ADDRESS.fullmatch(source) is not None and not is_url(source)


def listed(source: str) -> list[str]:
    """Return the addresses of the images and videos of a folder, a pattern or a list.txt, in order, or the one address.

    UsageError where nothing is there, or it cannot be looked at.
    """
    try:
        found = list(addresses(source))
    except Exception as error:  # Each file system has errors of its own, and so has each package that brings one.
        raise UsageError(f"source '{source}' cannot be opened ({first_line(error)})") from error
    if not found:
        raise UsageError(
            f"source '{source}' holds no image or video; give a folder, a pattern, a .txt list or an image"
        )
    return found


def addresses(source: str) -> Iterator[str]:
    """Yield the addresses that a source stands for."""
    from pyarrow.fs import FileSelector, FileType

    from utils.dataloaders import IMG_FORMATS, VID_FORMATS

    scheme = source.partition("://")[0]
    system, path = opened(source)
    pattern = PurePosixPath(path).name if PATTERN.search(path) else None
    folder = str(PurePosixPath(path).parent) if pattern else path
    if not pattern and path.lower().endswith(".txt"):
        with system.open_input_stream(path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
        yield from (line.strip() for line in lines if line.strip() and not line.startswith("#"))
    elif not pattern and system.get_file_info(path).type == FileType.File:
        yield source
    else:
        names = sorted(entry.path for entry in system.get_file_info(FileSelector(folder)) if entry.is_file)
        known = (*IMG_FORMATS, *VID_FORMATS)
        for name in names:
            if PurePosixPath(name).suffix[1:].lower() in known and fnmatch(PurePosixPath(name).name, pattern or "*"):
                yield f"{scheme}://{name}"


def opened(address: str):
    """Return the file system of an address, and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(address)
    except ArrowInvalid:
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
        return PyFileSystem(FSSpecHandler(system)), path


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """Give a copy of a file, under its own name, for the time of the context; UnreadableImageError where there is none."""
    with TemporaryDirectory(prefix="explainer-") as folder:
        path = Path(folder) / PurePosixPath(address).name
        try:
            system, there = opened(address)
            with system.open_input_stream(there) as file:
                path.write_bytes(file.read())
        except Exception as error:  # As above.
            raise UnreadableImageError(first_line(error)) from error
        yield path
