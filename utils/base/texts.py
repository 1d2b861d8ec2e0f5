"""Text files that a user wrote, on any system: texts, lists of paths, YAMLs.

All are read with or without a byte order mark, as UTF-8 or, where the mark says so, as UTF-16. A ValueError names the file.
"""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

GLOB_CHARACTERS = "*?["
# Entries of a YAML with its aliases written out, and its bytes: a few short lines of aliases stand for billions.
MOST_YAML_ENTRIES, MOST_YAML_BYTES = 1_000_000, 8_000_000
# What the YAML reader raises at values that do not suit their own tag, such as !!int x, a date in month 13, or depth.
VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def read_text(path: str | Path) -> str:
    """Return the text in a file, with newlines as line ends.

    Raises:
        ValueError: naming the file and the line, for what is no such text; OSError where it cannot be read.
    """
    data = Path(path).read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} is no text: it holds NUL characters; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file; no tags but YAML's own, and bounds on what aliases stand for.

    Raises:
        ValueError: naming the file, for what is no YAML or beyond the bounds; OSError where it cannot be read.
    """
    size = Path(path).stat().st_size
    if size > MOST_YAML_BYTES:
        raise ValueError(f"{path} has {size / 1e6:.0f} MB; at most {MOST_YAML_BYTES / 1e6:.0f} MB of YAML are read")
    text = read_text(path)
    try:
        return yaml.load(text, BoundedLoader)
    except (yaml.YAMLError, *VALUE_ERRORS) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML: {reason}") from error


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader, which looks how much aliases stand for before anything is made of them."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count_entries(node, {})
        return node


def _count_entries(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many entries a node has with all aliases written out. `known`: of nodes by id, 0 of those not done yet."""
    if id(node) not in known:
        known[id(node)] = 0
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        entries = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(_count_entries(entry, known) for entry in entries)
    if not known[id(node)]:
        raise yaml.YAMLError("an alias stands for something that holds it")
    if known[id(node)] > MOST_YAML_ENTRIES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_YAML_ENTRIES} entries")
    return known[id(node)]


def read_list(path: str | Path) -> list[str]:
    """Return the paths in a list, one in each line; those that are not there are as they would be.

    A path is relative to the working folder or else to the list's; one that begins with ./ to the list's first. Lines may
    be quoted, and written with the backslashes of Windows; empty ones and those that begin with # do not count.

    Raises:
        ValueError: naming the list, for what is no text; FileNotFoundError: when none of its paths is there.
    """
    lines = [line.strip() for line in read_text(path).split("\n")]
    found = [_path_in(line, Path(path).parent) for line in lines if line and (line[0] != "#" or os.path.exists(line))]
    if found and not any(map(is_there, found)):
        raise FileNotFoundError(f"{path} names nothing that is there, the first is {found[0]}; write one path per line")
    return found


class Listings:
    """Knows which line of some lists names a path; the lists are read when that is first asked."""

    def __init__(self, lists: Iterable[str | Path]) -> None:
        self._lists = list(lists)

    def where(self, path: str | Path) -> str:
        """Return the end of a sentence about a path, such as `; it is named in line 3 of val.txt`; empty for no line."""
        place = self._places.get(os.path.abspath(path))
        return f"; it is named in {place}" if place else ""

    @cached_property
    def _places(self) -> dict[str, str]:
        """The first line that names each path."""
        places = {}
        for listing in self._lists:
            lines = map(str.strip, read_text(listing).split("\n"))
            for number, line in enumerate(lines, start=1):
                path = os.path.abspath(_path_in(line, Path(listing).parent))
                places.setdefault(path, f"line {number} of {listing}")
        return places


def _path_in(line: str, folder: Path) -> str:
    """Return what a line of a list in `folder` names: the first reading of it that is there, else the plainest."""
    unquoted = line[1:-1].strip() if len(line) > 2 and line[0] == line[-1] and line[0] in "'\"" else line
    readings = dict.fromkeys((line, unquoted, unquoted.replace("\\", "/")))
    candidates = [path for reading in readings for path in _places(reading, folder)]
    return next((path for path in candidates if is_there(path)), candidates[-1])


def _places(reading: str, folder: Path) -> tuple[str, str]:
    beside = str(folder / reading)
    return (beside, reading) if reading.startswith("./") else (reading, beside)


def is_utf8(name: str) -> bool:
    """Return whether a file's name is text, and not bytes that are none in UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def is_there(path: str) -> bool:
    """Whether a path, or a file that suits a pattern, exists."""
    is_pattern = any(character in path for character in GLOB_CHARACTERS)
    return os.path.exists(path) or (is_pattern and any(glob.iglob(path, recursive=True)))
