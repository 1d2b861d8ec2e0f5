"""How much pairs of boxes overlap: IoU and its variants that also tell distant boxes apart, for use as a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from utils.boxes import xywh2xyxy


def bbox_iou(
    box1: Tensor,
    box2: Tensor,
    xywh: bool = True,
    GIoU: bool = False,  # noqa: N803
    DIoU: bool = False,  # noqa: N803
    CIoU: bool = False,  # noqa: N803
    eps: float = 1e-7,
) -> Tensor:
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


def _sides(xyxy: Tensor, eps: float) -> Tensor:
    """Return width and height (..., 2), never exactly zero in height, by which widths are divided."""
    return xyxy[..., 2:4] - xyxy[..., :2] + xyxy.new_tensor([0.0, eps])


def _proportion_penalty(size1: Tensor, size2: Tensor, iou: Tensor, eps: float) -> Tensor:
    """Return how far the proportions (..., 2) of two boxes differ, weighted by their overlap."""
    angle1, angle2 = (torch.atan(size[..., 0] / size[..., 1]) for size in (size1, size2))
    difference = (2 / math.pi * (angle2 - angle1)).square()
    # The weight is a constant to the gradient, as in the paper.
    with torch.no_grad():
        weight = difference / (1 + eps - iou + difference)
    return weight * difference
