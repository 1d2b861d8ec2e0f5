"""Pictures and videos small enough to write in every test."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def two_colours(width: int = 60, height: int = 40) -> Image.Image:
    """Return an RGB picture: red on the left, blue on the right."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2, 0] = 255
    rgb[:, width // 2 :, 2] = 255
    return Image.fromarray(rgb)


def write_video(
    path: Path, frames: int = 5, size: tuple[int, int] = (64, 48), fps: float = 30, codec: str = "mp4v"
) -> Path:
    """Write a video whose frames of `size` (w, h) have the greys 0, 40, 80, ...; return its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), i * 40 % 256, np.uint8))
    writer.release()
    return path


def claiming_jpeg(path: Path, width: int, height: int, *, whole: bool = False) -> Path:
    """Write a small JPEG that claims another size, up to 65535 a side, and unless `whole` ends too early."""
    file = io.BytesIO()
    two_colours().save(file, "JPEG")
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    path.write_bytes(data if whole else data[:-2])
    return path


def claiming_png(path: Path, width: int, height: int) -> Path:
    """Write a PNG of a few bytes that claims a size, and ends as it should."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path
