"""Boxes: conversions between layouts, clipping, moving them between images, overlaps.

Layouts: `xyxy` = left, top, right, bottom; `xywh` = centre x, centre y, width, height; an `n` behind either means
"divided by the image's width and height". Every function but the overlaps takes torch tensors and numpy arrays (..., >=4)
and leaves the columns after the fourth as they are. Converters return a new array; `clip_boxes` and `scale_boxes` work in
place. Overlaps take tensors alone: `box_iou` of every pair, `bbox_iou` pair by pair, with the variants used as a loss.
"""

from __future__ import annotations

import math
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


def bbox_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    xywh: bool = True,
    GIoU: bool = False,  # noqa: N803
    DIoU: bool = False,  # noqa: N803
    CIoU: bool = False,  # noqa: N803
    eps: float = 1e-7,
) -> torch.Tensor:
    """Return the overlap of boxes pair by pair, differentiable: plain IoU, or the variant asked for.

    Args:
        box1: (..., 4) boxes.
        box2: (..., 4) boxes, of a shape that broadcasts with `box1`.
        xywh: boxes are centre x, centre y, width, height; else left, top, right, bottom.
        GIoU: subtract the empty share of the box around both, https://arxiv.org/abs/1902.09630. In -1..1.
        DIoU: subtract the squared distance of the centres over the squared diagonal of the box around both.
        CIoU: as DIoU, and subtract how far the proportions differ, https://arxiv.org/abs/1911.08287.
        eps: keeps boxes without area from dividing by zero.

    Returns:
        (..., 1) values; IoU itself lies in 0..1.
    """
    first, second = (xywh2xyxy(b) if xywh else b for b in (box1, box2))
    size1, size2 = (box1[..., 2:4], box2[..., 2:4]) if xywh else (_sides(first, eps), _sides(second, eps))
    low, high = torch.maximum, torch.minimum
    shared = (high(first[..., 2:4], second[..., 2:4]) - low(first[..., :2], second[..., :2])).clamp(min=0).prod(-1)
    union = size1.prod(-1) + size2.prod(-1) - shared + eps
    iou = shared / union
    if not (GIoU or DIoU or CIoU):
        return iou[..., None]

    hull = low(first[..., 2:4], second[..., 2:4]) - high(first[..., :2], second[..., :2])
    if GIoU:
        hull_area = hull.prod(-1) + eps
        return (iou - (hull_area - union) / hull_area)[..., None]
    centre_shift = (first[..., :2] + first[..., 2:4] - second[..., :2] - second[..., 2:4]) / 2
    penalty = centre_shift.square().sum(-1) / (hull.square().sum(-1) + eps)
    if CIoU:
        penalty = penalty + _proportion_penalty(size1, size2, iou, eps)
    return (iou - penalty)[..., None]


def _sides(xyxy: torch.Tensor, eps: float) -> torch.Tensor:
    """Return width and height (..., 2), never exactly zero in height, by which widths are divided."""
    return xyxy[..., 2:4] - xyxy[..., :2] + xyxy.new_tensor([0.0, eps])


def _proportion_penalty(size1: torch.Tensor, size2: torch.Tensor, iou: torch.Tensor, eps: float) -> torch.Tensor:
    """Return how far the proportions (..., 2) of two boxes differ, weighted by their overlap."""
    angle1, angle2 = (torch.atan(size[..., 0] / size[..., 1]) for size in (size1, size2))
    difference = (2 / math.pi * (angle2 - angle1)).square()
    # The weight is a constant to the gradient, as in the paper.
    with torch.no_grad():
        weight = difference / (1 + eps - iou + difference)
    return weight * difference
