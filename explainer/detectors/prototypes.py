"""Masks of YOLOv5's segmentation models: prototypes, which the detections of an image share, and coefficients of each.

The head predicts further columns of each prediction, the coefficients, and from its finest input a few maps, the prototypes.
The logit of a mask is the sum of the prototypes times the coefficients: YOLACT, https://arxiv.org/abs/1904.02689.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.predictions import IN_MASK
from explainer.maps.heatmaps import Letterbox


@dataclass(frozen=True)
class Prototypes:
    """What the masks of one image are made of.

    coefficients  (N, nm) float32, of each prediction
    maps          (nm, h, w) float32, over the input
    """

    coefficients: Tensor
    maps: Tensor

    def mask(self, row: int, box_xyxy: np.ndarray, letterbox: Letterbox) -> np.ndarray:
        """Return which pixels of the image the prediction of a row covers: bool (H, W).

        box_xyxy: its box (4,) in input pixels. As in YOLOv5 the mask is cut at the box before it is enlarged.
        """
        logits = torch.einsum("c,chw->hw", self.coefficients[row], self.maps)
        inside = cells_in_box(box_xyxy, logits.shape, letterbox.input_size)
        cut = np.zeros(logits.shape, np.float32)
        cut[inside] = logits.sigmoid().cpu().numpy()[inside]
        return letterbox.to_image(cut) > IN_MASK


def has_prototypes(head: nn.Module) -> bool:
    """Return whether a head predicts masks."""
    return isinstance(getattr(head, "proto", None), nn.Module) and hasattr(head, "nm")


def cells_in_box(box_xyxy: np.ndarray, shape: tuple[int, int], input_size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a map (h, w) of the input whose corners lie inside a box in input pixels."""
    edges = [
        (max(ceil(low * cells / side), 0), max(ceil(high * cells / side), 0))
        for cells, side, low, high in zip(shape, input_size, box_xyxy[1::-1], box_xyxy[:1:-1], strict=True)
    ]
    return tuple(slice(*pair) for pair in edges)
