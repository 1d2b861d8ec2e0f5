"""From a picture to what a model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from utils.augmentations import letterbox


@dataclass(frozen=True)
class FrameTransform:
    """Turns a BGR picture (H, W, 3) uint8 into RGB (3, h, w) uint8, letterboxed.

    Attributes:
        img_size: the frame's side, or its (height, width), pixels.
        stride: the model's largest stride, pixels.
        auto: pad to the next multiple of `stride` only, instead of to the whole frame.
        transforms: replaces all this: called with the BGR picture, its result is the model's input.
    """

    img_size: int | tuple[int, int] = 640
    stride: int = 32
    auto: bool = True
    transforms: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, im_bgr: np.ndarray) -> np.ndarray:
        if self.transforms:
            return self.transforms(im_bgr)
        boxed, _, _ = letterbox(im_bgr, self.img_size, stride=self.stride, auto=self.auto)
        return np.ascontiguousarray(boxed.transpose(2, 0, 1)[::-1])
