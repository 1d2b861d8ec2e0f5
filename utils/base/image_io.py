"""Reading and writing image files."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from utils.base.paths import naming_failed_writes

# First bytes of a format whose reader may return half a picture, and the last bytes of a whole file.
END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}


def read_image(path: str | Path) -> np.ndarray:
    """Return the picture in a file as (H, W, 3) uint8 BGR, turned upright as its EXIF data say.

    Grey, palette, CMYK, RGBA (the alpha is dropped) and 16-bit files (scaled to 8 bits) are converted.

    Raises:
        OSError: naming the file, when it is missing, empty, truncated or no image.
    """
    # Reading the bytes here lets any name work on any system.
    data = Path(path).read_bytes()
    if not data:
        raise OSError(f"{path} is empty (0 bytes)")
    _check_complete(path, data)
    try:
        im = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise OSError(f"{path} cannot be read as an image: {error.err}") from error
    if im is None:
        raise OSError(f"{path} cannot be read: it is damaged, or no image in a format that OpenCV knows")
    return im


def _check_complete(path: str | Path, data: bytes) -> None:
    """Raise OSError for a JPEG or PNG that ends too early: OpenCV fills its missing part with grey and says nothing."""
    for start, end in END_MARKERS.items():
        if data.startswith(start) and not data.rstrip(b"\0").endswith(end):
            _check_decodes(path, data)


def _check_decodes(path: str | Path, data: bytes) -> None:
    """Decode an image whole, for cameras that write data of their own behind the end of the picture."""
    try:
        Image.open(io.BytesIO(data)).load()
    except (OSError, SyntaxError) as error:
        raise OSError(f"{path} cannot be read: the file is truncated or damaged ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return "no image format recognised" if isinstance(error, Image.UnidentifiedImageError) else str(error)


def write_image(path: str | Path, im_bgr: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 BGR picture in the format that the suffix of `path` names; make its folder first.

    Raises:
        OSError: naming the file, when it cannot be written.
        ValueError: for a suffix that OpenCV cannot write (`writable_suffix` tells).
    """
    path = Path(path)
    if not writable_suffix(path.suffix):
        raise ValueError(f"{path}: pictures cannot be written as {path.suffix!r}; use .jpg or .png")
    done, data = cv2.imencode(path.suffix, im_bgr)
    if not done:
        raise OSError(f"{path} cannot be written: OpenCV does not encode this picture as {path.suffix}")
    with naming_failed_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def writable_suffix(suffix: str) -> bool:
    """Whether pictures can be written as `suffix`: .jpg, .png, ... but not .dng or .mpo."""
    return bool(suffix) and cv2.haveImageWriter(f"picture{suffix}")


def exif_transpose(image: Image.Image) -> Image.Image:
    """Return a PIL image turned upright as its EXIF orientation says, without that entry; upright ones as they are."""
    return ImageOps.exif_transpose(image)
