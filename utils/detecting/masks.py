"""Masks of segmentation checkpoints: from prototypes and coefficients to pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def crop_mask(masks: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return masks (n, H, W) with 0 outside their boxes (n, 4), xyxy in pixels of the masks."""
    _, height, width = masks.shape
    left, top, right, bottom = boxes[:, :4, None, None].unbind(1)
    x = torch.arange(width, device=masks.device)[None, None, :]
    y = torch.arange(height, device=masks.device)[None, :, None]
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return masks * inside


def process_mask(
    protos: torch.Tensor,
    masks_in: torch.Tensor,
    bboxes: torch.Tensor,
    shape: tuple[int, int],
    upsample: bool = False,
) -> torch.Tensor:
    """Return the masks of detections at the prototypes' resolution, or at the model input's.

    Args:
        protos: (nm, h, w) mask prototypes of one image.
        masks_in: (n, nm) coefficients, the columns after the sixth of `non_max_suppression(..., nm=nm)`.
        bboxes: (n, 4) boxes, xyxy in pixels of the model's input.
        shape: (height, width) of the model's input.
        upsample: whether the masks get the size of the model's input.

    Returns:
        (n, h, w), or (n, *shape) with `upsample`; 0 or 1 in the prototypes' dtype.
    """
    height, width = protos.shape[1:]
    scale = bboxes.new_tensor([width / shape[1], height / shape[0]] * 2)
    masks = crop_mask(_probabilities(protos, masks_in), bboxes * scale)
    if upsample:
        masks = _resized(masks, shape)
    return (masks > 0.5).to(protos.dtype)


def process_mask_native(
    protos: torch.Tensor, masks_in: torch.Tensor, bboxes: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Return the masks of detections at the original image's size: (n, *shape), 0 or 1 in the prototypes' dtype.

    Args:
        protos: (nm, h, w) mask prototypes of one letterboxed image.
        masks_in: (n, nm) coefficients.
        bboxes: (n, 4) boxes, xyxy in pixels of the original image.
        shape: (height, width) of the original image.
    """
    masks = _resized(without_padding(_probabilities(protos, masks_in), shape), shape)
    return (crop_mask(masks, bboxes) > 0.5).to(protos.dtype)


def without_padding(masks: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Cut from maps (n, h, w) of a letterboxed image the part that shows the original of `shape` (height, width)."""
    height, width = masks.shape[-2:]
    gain = min(height / shape[0], width / shape[1])
    pad_y, pad_x = (height - shape[0] * gain) / 2, (width - shape[1] * gain) / 2
    # A very narrow image would vanish between two paddings.
    top, left = min(round(pad_y - 0.1), height - 1), min(round(pad_x - 0.1), width - 1)
    bottom, right = max(top + 1, round(height - pad_y + 0.1)), max(left + 1, round(width - pad_x + 0.1))
    return masks[..., max(top, 0) : bottom, max(left, 0) : right]


def _probabilities(protos: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return the (n, h, w) probability that a pixel belongs to the detection."""
    return torch.einsum("nc,chw->nhw", coefficients.to(protos.dtype), protos).sigmoid()


def _resized(masks: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(masks[None], tuple(shape), mode="bilinear", align_corners=False)[0]
