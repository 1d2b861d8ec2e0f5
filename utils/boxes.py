"""Boxes: conversions between layouts, clipping, moving them between images, overlap.

Layouts: `xyxy` = left, top, right, bottom; `xywh` = centre x, centre y, width, height; an `n` behind either means
"divided by the image's width and height". Every function takes torch tensors and numpy arrays (..., >=4) and leaves the
columns after the fourth as they are. Converters return a new array; `clip_boxes` and `scale_boxes` work in place.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", torch.Tensor, np.ndarray)


def _with_coordinates(boxes: Boxes, *coordinates: Boxes) -> Boxes:
    """Return a copy of `boxes` whose first four columns are `coordinates`; integer boxes become floating point."""
    if isinstance(boxes, torch.Tensor):
        floating = boxes if boxes.is_floating_point() else boxes.float()
        return torch.cat((torch.stack(coordinates, -1).to(floating.dtype), floating[..., 4:]), -1)
    floating = boxes if np.issubdtype(boxes.dtype, np.floating) else boxes.astype(np.float32)
    return np.concatenate((np.stack(coordinates, -1).astype(floating.dtype), floating[..., 4:]), -1)


def _columns(boxes: Boxes) -> tuple[Boxes, Boxes, Boxes, Boxes]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def xyxy2xywh(x: Boxes) -> Boxes:
    """Convert left, top, right, bottom to centre x, centre y, width, height."""
    left, top, right, bottom = _columns(x)
    return _with_coordinates(x, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def xywh2xyxy(x: Boxes) -> Boxes:
    """Convert centre x, centre y, width, height to left, top, right, bottom."""
    x_c, y_c, w, h = _columns(x)
    return _with_coordinates(x, x_c - w / 2, y_c - h / 2, x_c + w / 2, y_c + h / 2)


def xywhn2xyxy(x: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Convert normalised centre boxes to pixel corners in an image of `w` x `h` that begins at (`padw`, `padh`)."""
    x_c, y_c, box_w, box_h = _columns(x)
    left, right = w * (x_c - box_w / 2) + padw, w * (x_c + box_w / 2) + padw
    top, bottom = h * (y_c - box_h / 2) + padh, h * (y_c + box_h / 2) + padh
    return _with_coordinates(x, left, top, right, bottom)


def xyxy2xywhn(x: Boxes, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Boxes:
    """Convert pixel corners in an image of `w` x `h` to normalised centre boxes.

    With `clip` the corners are first moved into the image, at least `eps` pixels from its right and bottom edge.
    """
    if clip:
        x = clip_boxes(x.clone() if isinstance(x, torch.Tensor) else x.copy(), (h - eps, w - eps))
    x_c, y_c, box_w, box_h = _columns(xyxy2xywh(x))
    return _with_coordinates(x, x_c / w, y_c / h, box_w / w, box_h / h)


def clip_boxes(boxes: Boxes, shape: tuple[float, ...]) -> Boxes:
    """Move corners (xyxy) that lie outside an image of `shape` (height, width, ...) onto its edge, in place."""
    height, width = shape[:2]
    clip = torch.clamp if isinstance(boxes, torch.Tensor) else np.clip
    boxes[..., 0:4:2] = clip(boxes[..., 0:4:2], 0, width)
    boxes[..., 1:4:2] = clip(boxes[..., 1:4:2], 0, height)
    return boxes


def scale_boxes(
    img1_shape: tuple[int, ...],
    boxes: Boxes,
    img0_shape: tuple[int, ...],
    ratio_pad: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Boxes:
    """Move boxes (xyxy, floating point) from the letterboxed image to the original one, in place, and clip them to it.

    Args:
        img1_shape: (height, width, ...) of the letterboxed image.
        boxes: (..., >=4) corners in its pixels; changed in place and returned.
        img0_shape: (height, width, ...) of the original image.
        ratio_pad: ((ratio, ratio), (pad x, pad y)) when known; else it follows from the two shapes.
    """
    if ratio_pad is None:
        gain = min(img1_shape[0] / img0_shape[0], img1_shape[1] / img0_shape[1])
        pad_y, pad_x = ((img1_shape[i] - img0_shape[i] * gain) / 2 for i in (0, 1))
    else:
        gain = ratio_pad[0][0]
        pad_x, pad_y = ratio_pad[1]
    boxes[..., 0:4:2] -= pad_x
    boxes[..., 1:4:2] -= pad_y
    boxes[..., :4] /= gain
    return clip_boxes(boxes, img0_shape)


def box_iou(box1: torch.Tensor, box2: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Return the (N, M) intersection over union of every box of `box1` (N, 4) with every box of `box2` (M, 4), xyxy."""
    corner_a1, corner_a2 = box1[:, None, :2], box1[:, None, 2:4]
    corner_b1, corner_b2 = box2[None, :, :2], box2[None, :, 2:4]
    sides = torch.minimum(corner_a2, corner_b2) - torch.maximum(corner_a1, corner_b1)
    intersection = sides.clamp(min=0).prod(-1)
    union = (corner_a2 - corner_a1).prod(-1) + (corner_b2 - corner_b1).prod(-1) - intersection
    return intersection / (union + eps)
