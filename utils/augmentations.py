"""Image transforms on numpy arrays: the letterbox, and with it from a picture to what a model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np


def letterbox(
    im: np.ndarray,
    new_shape: int | tuple[int, int] = (640, 640),
    color: tuple[int, int, int] = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,  # noqa: N803
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Resize an image into a frame without distorting it, and fill the rest of the frame evenly on both sides.

    Args:
        im: (H, W) or (H, W, C) uint8.
        new_shape: (height, width) of the frame, or the side of a square.
        color: of the padding.
        auto: pad each side only to the next multiple of `stride`, instead of to the whole frame.
        scaleFill: stretch to the frame instead; there is no padding then. `auto` comes first.
        scaleup: whether a small image may be enlarged.
        stride: the model's largest stride, pixels.

    Returns:
        The image; (ratio_w, ratio_h) = new size / old size; (dw, dh) = padding on each side in pixels.
    """
    height, width = im.shape[:2]
    frame_h, frame_w = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
    ratio = min(frame_h / height, frame_w / width)
    if not scaleup:
        ratio = min(ratio, 1.0)
    ratio_wh = (ratio, ratio)
    # A side of a very narrow image would round to nothing.
    inner_w, inner_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    pad_w, pad_h = frame_w - inner_w, frame_h - inner_h
    if auto:
        pad_w, pad_h = pad_w % stride, pad_h % stride
    elif scaleFill:
        inner_w, inner_h, pad_w, pad_h = frame_w, frame_h, 0, 0
        ratio_wh = (frame_w / width, frame_h / height)

    if (inner_w, inner_h) != (width, height):
        im = cv2.resize(im, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    if pad_w or pad_h:
        im = _pad_evenly(im, pad_w, pad_h, color)
    return im, ratio_wh, (pad_w / 2, pad_h / 2)


def _pad_evenly(im: np.ndarray, pad_w: int, pad_h: int, color: tuple[int, int, int]) -> np.ndarray:
    """Add `pad_w` columns and `pad_h` rows, half of them on each side; an odd one goes right or below."""
    left, top = pad_w // 2, pad_h // 2
    return cv2.copyMakeBorder(im, top, pad_h - top, left, pad_w - left, cv2.BORDER_CONSTANT, value=color)


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
