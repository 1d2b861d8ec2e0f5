"""Files that try to be more than data, and files as older versions wrote them."""

import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class Call:
    """Unpickles to `function(*arguments)`: what the reader in the standard library runs without asking."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def write_archive(path: Path, data_pkl: bytes, **records: bytes) -> Path:
    """Write a checkpoint of the zip format around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_legacy(path: Path, *pickles: bytes, tail: bytes = b"") -> Path:
    """Write a checkpoint of the format before torch 1.6 from the pickles after its first two."""
    start = [pickle.dumps(number, 2) for number in (0x1950A86A20F9469CFC6C, 1001)]
    path.write_bytes(b"".join([*start, *pickles]) + tail)
    return path


def name(module: str, qualified_name: str) -> bytes:
    """Return the opcodes of protocol 4 that put a global on the stack; its name may have dots."""
    return text(module) + text(qualified_name) + pickle.STACK_GLOBAL


def text(value: str) -> bytes:
    """Return the opcodes that put a string on the stack."""
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def program(*opcodes: bytes) -> bytes:
    """Return a pickle of protocol 4 made of these opcodes."""
    return b"\x80\x04" + b"".join(opcodes) + pickle.STOP


def save(content: Any, path: Path, *, legacy: bool = False) -> Path:
    """Write a checkpoint with torch, in the zip format or the one before it."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@contextmanager
def called(cls: type, name: str) -> Iterator[None]:
    """Let pickles written inside find a class under another of its names."""
    before = cls.__qualname__
    cls.__qualname__ = name
    try:
        yield
    finally:
        cls.__qualname__ = before
