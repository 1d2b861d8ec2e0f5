"""Paths: of this tree, and of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
        """Return `name`, or with `_2`, `_3`, ... before its suffix where it was given out before."""
        path = Path(name)
        names = (name if n == 1 else f"{path.stem}_{n}{path.suffix}" for n in count(1))
        free = next(candidate for candidate in names if self._key(candidate) not in self._taken)
        self._taken.add(self._key(free))
        return free

    def _key(self, name: str) -> str:
        return (Path(name).stem if self._by_stem else name).casefold()


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
    """Turn an OSError inside the block into one that names the file; a full disk's, for one, does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
