"""Reading and writing image files."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

# Bound once: packages that read more formats put a reader of their own in its place, which may install what it misses.
from PIL.Image import open as open_picture

from utils.base.paths import naming_failed_writes, writing_whole

# First bytes of a format whose reader may return half a picture, and the last bytes of a whole file.
END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
# A larger picture is refused, from what its first bytes claim: as BGR it would take 600 MB, and a file that claims it
# need not hold it. OpenCV's own variable sets another limit.
MAX_PIXELS, MAX_PIXELS_VARIABLE = 200_000_000, "OPENCV_IO_MAX_IMAGE_PIXELS"
# What Pillow's readers raise at damaged files; only some of it is an OSError.
PILLOW_ERRORS = (
    OSError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: str | Path, max_pixels: float | None = None) -> np.ndarray:
    """Return the picture in a file as (H, W, 3) uint8 BGR, turned upright as its EXIF data say.

    Grey, palette, CMYK, RGBA (the alpha is dropped) and 16-bit files (scaled to 8 bits) are converted.

    Args:
        path: the file.
        max_pixels: of a picture; None for `most_pixels()`.

    Raises:
        OSError: naming the file, when it is missing, empty, truncated, too large or no image.
    """
    # Reading the bytes here lets any name work on any system.
    try:
        data = Path(path).read_bytes()
    except ValueError as error:
        raise OSError(f"{str(path)!r} is no path of a file: {error}") from error
    if not data:
        raise OSError(f"{path} is empty (0 bytes)")
    check_pixels(path, claimed_pixels(data), max_pixels)
    _check_complete(path, data)
    try:
        im = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise OSError(f"{path} cannot be read as an image: {error.err}") from error
    if im is None:
        raise OSError(f"{path} cannot be read: it is damaged, or no image in a format that OpenCV knows")
    return im


def most_pixels() -> float:
    """Return how many pixels a picture may have: `MAX_PIXELS`, or what the environment says."""
    given = os.environ.get(MAX_PIXELS_VARIABLE, "")
    return int(given) if given.isdecimal() else MAX_PIXELS


def claimed_pixels(data: bytes) -> int:
    """Return how many pixels a file says that it has, 0 where its format is not known to Pillow or it does not say."""
    try:
        with open_picture(io.BytesIO(data)) as image:
            return image.width * image.height
    except Image.DecompressionBombError as error:
        # Beyond a limit of its own Pillow tells the number alone.
        return int(re.search(r"\d+", str(error)).group())
    except PILLOW_ERRORS:
        return 0


def check_pixels(path: str | Path, pixels: int, max_pixels: float | None = None) -> None:
    """Raise OSError for a picture of more pixels than `max_pixels`, None for `most_pixels()`."""
    limit = most_pixels() if max_pixels is None else max_pixels
    if pixels > limit:
        hint = f"; {MAX_PIXELS_VARIABLE}={pixels} in the environment lets it pass" if max_pixels is None else ""
        raise OSError(
            f"{path} is too large: it says that it has {pixels / 1e6:.0f} megapixels, at most {limit / 1e6:.0f} are "
            f"read{hint}"
        )


def _check_complete(path: str | Path, data: bytes) -> None:
    """Raise OSError for a JPEG or PNG that ends too early: OpenCV fills its missing part with grey and says nothing."""
    for start, end in END_MARKERS.items():
        if data.startswith(start) and not data.rstrip(b"\0").endswith(end):
            _check_decodes(path, data)


def _check_decodes(path: str | Path, data: bytes) -> None:
    """Decode an image whole, for cameras that write data of their own behind the end of the picture."""
    try:
        open_picture(io.BytesIO(data)).load()
    except Image.DecompressionBombError as error:
        raise OSError(
            f"{path} cannot be read: the file does not end as it should, and is too large to look for why"
        ) from error
    except PILLOW_ERRORS as error:
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
    with writing_whole(path) as part:
        part.write_bytes(data)


def writable_suffix(suffix: str) -> bool:
    """Whether pictures can be written as `suffix`: .jpg, .png, ... but not .dng or .mpo."""
    return bool(suffix) and cv2.haveImageWriter(f"picture{suffix}")


def exif_transpose(image: Image.Image) -> Image.Image:
    """Return a PIL image turned upright as its EXIF orientation says, without that entry; upright ones as they are."""
    return ImageOps.exif_transpose(image)
