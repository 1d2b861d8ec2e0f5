"""Pictures and videos small enough to write in every test."""

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
