"""Paths: of this tree, and of results."""

from __future__ import annotations

import errno
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from zlib import crc32

ROOT = Path(__file__).resolve().parents[2]
# What file systems take for one name. NUL, and a name that is no text in UTF-8, only some of them take.
NAME_BYTES = 255
NO_NAME = re.compile("[\0\ud800-\udfff]+")


class FailedWriteError(OSError):
    """A result that could not be written: something is lost, though nothing was wrong with what was asked for."""


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """Return `path`, or where it exists the first of path2, path3, ... that does not: `runs/exp` -> `runs/exp{sep}2`.

    Args:
        path: a folder, or a file, whose number then stands before the suffix.
        exist_ok: return `path` itself though it exists.
        sep: stands between the name and the number.
        mkdir: also make the folder, so that no other process that does so is given the same one.
    """
    path = Path(path)
    if exist_ok:
        if mkdir:
            path.mkdir(parents=True, exist_ok=True)
        return path
    take = _make_new if mkdir else _is_free
    return next(candidate for candidate in chain((path,), _numbered(path, sep)) if take(candidate))


def _is_free(path: Path) -> bool:
    return not path.exists()


def _make_new(folder: Path) -> bool:
    """Make a folder and return True, or False where there is something of that name already."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _numbered(path: Path, sep: str) -> Iterator[Path]:
    """Yield path2, path3, ...; a dot in a folder's name is not a suffix."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    yield from (path.with_name(f"{stem}{sep}{n}{suffix}") for n in count(2))


class UniqueNames:
    """Gives every result of one run a name of its own: the second `a.jpg` becomes `a_2.jpg`; case does not count."""

    def __init__(self, *, by_stem: bool = False) -> None:
        """With `by_stem` names must differ before the suffix: `a.png` after `a.jpg` becomes `a_2.png`."""
        self._by_stem = by_stem
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return `name`, or with `_2`, `_3`, ... before its suffix where it was given out before.

        What a file system may refuse is left out, as `file_name` does.
        """
        path = Path(name)
        names = (file_name(path.stem, path.suffix if n == 1 else f"_{n}{path.suffix}") for n in count(1))
        free = next(candidate for candidate in names if self._key(candidate) not in self._taken)
        self._taken.add(self._key(free))
        return free

    def _key(self, name: str) -> str:
        return (Path(name).stem if self._by_stem else name).casefold()


def file_name(stem: str, end: str = "") -> str:
    """Return stem and end as a name that file systems take: of 255 bytes at most, and of characters that are text."""
    end = NO_NAME.sub("_", end)
    kept = NO_NAME.sub("_", stem).encode("utf-8")[: max(NAME_BYTES - len(end.encode("utf-8")), 0)]
    return kept.decode("utf-8", "ignore") + end


def check_writable(folder: str | Path) -> None:
    """Raise OSError when a folder that may not exist yet cannot be made or written to."""
    folder = Path(folder).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{folder} cannot be a folder for results: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to: {existing} is read-only; choose another --project")


@contextmanager
def naming_failed_writes(path: str | Path) -> Iterator[None]:
    """Turn an OSError inside the block into a FailedWriteError that names the file; a full disk's names none by itself."""
    try:
        yield
    except FailedWriteError:
        raise
    except OSError as error:
        raise FailedWriteError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error


@contextmanager
def writing_whole(path: str | Path) -> Iterator[Path]:
    """Give the path of a file to write in place of `path`, beside it; it takes that place at the end of the block.

    After any error it is deleted, and what there was before stays.

    Raises:
        FailedWriteError: naming `path`.
    """
    path = Path(path)
    part = part_of(path)
    try:
        with naming_failed_writes(path):
            yield part
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def part_of(path: Path, suffix: str = "") -> Path:
    """Return where a file grows before it takes its place: beside it, hidden, under a name that is always short."""
    name = crc32(path.name.encode("utf-8", "surrogatepass"))
    return path.with_name(f".{name:08x}.{os.getpid()}.part{suffix}")


def append_whole(path: str | Path, text: str, *, header: str = "") -> None:
    """Add a text at the end of a file, after `header` where the file is new or empty; all of it or nothing.

    What is no text in UTF-8, as in some names of files, is spelled out.

    Raises:
        FailedWriteError: naming the file.
    """
    path = Path(path)
    with naming_failed_writes(path), path.open("ab", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        data = (text if length else header + text).encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[file.write(data) :]
        except BaseException:
            os.ftruncate(file.fileno(), length)
            raise


class ResultFolder:
    """A folder of results, made where it is not there yet; `check` tells when it is deleted or moved meanwhile."""

    def __init__(self, path: Path) -> None:
        with naming_failed_writes(path):
            path.mkdir(parents=True, exist_ok=True)
            self.path, self._made = path, path.stat()
            if os.name == "posix":
                # While it is open no other folder is given its number.
                weakref.finalize(self, os.close, os.open(path, os.O_RDONLY))

    def check(self) -> None:
        """Raise FailedWriteError where the folder is no longer there, or is another one."""
        try:
            if os.path.samestat(self._made, self.path.stat()):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise FailedWriteError(errno.ENOENT, "was deleted or moved while results were written to it", str(self.path))
