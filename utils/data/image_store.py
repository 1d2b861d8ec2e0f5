"""The images of a data set at the size that training needs, optionally kept in memory or as arrays on the disk."""

from __future__ import annotations

import math
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
import numpy as np

from utils.base.image_io import read_image
from utils.base.logger import LOGGER
from utils.base.paths import writing_whole

THREADS = 8
CACHES = ("ram", "disk")
# What numpy raises at files that are no arrays, or only the beginning of one.
ARRAY_ERRORS = (OSError, ArithmeticError, AttributeError, EOFError, LookupError, SyntaxError, TypeError, ValueError)

# The image (H, W, 3) uint8 BGR, its (height, width) in the file, and as it is here.
Loaded = tuple[np.ndarray, tuple[int, int], tuple[int, int]]


class ImageStore:
    """Loads images so that the longer side has `img_size` pixels.

    With `always_linear` shrinking interpolates, which is quick; else it averages areas, which is smoother.
    """

    def __init__(self, files: list[str], img_size: int, *, always_linear: bool) -> None:
        self.files, self.img_size, self.always_linear = files, img_size, always_linear
        self._kept: list[Loaded | None] = [None] * len(files)
        self._arrays = False

    def __call__(self, index: int) -> Loaded:
        """Return image `index`. OSError, naming the file, when it cannot be read."""
        return self._kept[index] or self._load(index)

    def _load(self, index: int) -> Loaded:
        path = self.files[index]
        array = _array_path(path)
        im = _read_array(array) if self._arrays else None
        im = read_image(path) if im is None else im
        height, width = im.shape[:2]
        ratio = self.img_size / max(height, width)
        if ratio != 1:
            smooth = cv2.INTER_LINEAR if self.always_linear or ratio > 1 else cv2.INTER_AREA
            im = cv2.resize(im, (math.ceil(width * ratio), math.ceil(height * ratio)), interpolation=smooth)
        return im, (height, width), im.shape[:2]

    def cache(self, kind: str, prefix: str = "") -> None:
        """Keep all images in memory ("ram"), or as .npy arrays beside them ("disk").

        Raises:
            ValueError: for another kind; OSError: naming the array that cannot be written.
        """
        if kind not in CACHES:
            raise ValueError(f"--cache {kind} is unknown; give ram or disk")
        if kind == "ram" and not self._fits_into_memory(prefix):
            return
        keep = self._keep if kind == "ram" else self._write_array
        self._arrays = kind == "disk"
        with ThreadPool(THREADS) as pool:
            size = sum(pool.imap(keep, range(len(self.files))))
        LOGGER.info(f"{prefix}Cached {size / 1e9:.2f} GB of images ({kind})")

    def _keep(self, index: int) -> int:
        self._kept[index] = self._load(index)
        return self._kept[index][0].nbytes

    def _write_array(self, index: int) -> int:
        path = _array_path(self.files[index])
        if not _is_picture(_open_array(path)):
            im = read_image(self.files[index])
            with writing_whole(path) as part, part.open("wb") as file:
                np.save(file, im)
        return path.stat().st_size

    def _fits_into_memory(self, prefix: str, samples: int = 30, margin: float = 1.1) -> bool:
        """Whether there is room for all images, judged by some of them; where that cannot be told, yes."""
        if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
            return True
        some = np.linspace(0, len(self.files) - 1, min(samples, len(self.files))).astype(int)
        needed = float(np.mean([self._load(i)[0].nbytes for i in some])) * len(self.files) * margin
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free:
            LOGGER.warning(
                f"{prefix}WARNING: images need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: not cached"
            )
        return needed <= free


def _read_array(path: Path) -> np.ndarray | None:
    """Return the picture (H, W, 3) uint8 in an array's file; None for one that is cut off, damaged or not there."""
    array = _open_array(path)
    return np.array(array) if _is_picture(array) else None


def _open_array(path: Path) -> np.ndarray | None:
    """Return an array's file mapped into memory, which takes none for it; None for one that is cut off or not there."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS:
        return None


def _is_picture(array: np.ndarray | None) -> bool:
    """Whether an array is (H, W, 3) uint8."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        return False
    return array.ndim == 3 and array.shape[2] == 3 and array.size > 0


def _array_path(path: str) -> Path:
    return Path(path).with_suffix(".npy")
