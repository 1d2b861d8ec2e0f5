"""Masks of YOLO's segmentation models: prototypes, which the detections of an image share, and coefficients of each.

The head predicts further columns of each prediction, the coefficients, and from its finest input a few maps, the prototypes.
The logit of a mask is the sum of the prototypes times the coefficients: YOLACT, https://arxiv.org/abs/1904.02689.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.head import HeadRecording, HeadScores, WholeScores
from explainer.detectors.predictions import IN_MASK, Predictions, clarity
from explainer.detectors.white_box import in_full
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
        inside, logits = self.logits_in_box(row, box_xyxy, letterbox.input_size)
        cut = np.zeros(self.maps.shape[1:], np.float32)
        cut[inside] = logits.sigmoid().cpu().numpy()
        return letterbox.to_image(cut) > IN_MASK

    def logits_in_box(
        self, row: int, box_xyxy: np.ndarray, input_size: tuple[int, int]
    ) -> tuple[tuple[slice, slice], Tensor]:
        """Return the rows and columns of the maps inside a box (4,) in input pixels, and the logits (a, b) there."""
        inside = cells_in_box(box_xyxy, tuple(self.maps.shape[1:]), input_size)
        return inside, torch.einsum("c,chw->hw", self.coefficients[row], self.maps[(slice(None), *inside)])

    def covered(self, row: int, box_xyxy: np.ndarray, input_size: tuple[int, int]) -> Tensor:
        """Return the numbers (P,) of the cells of the maps, row by row, that the mask of a prediction covers in its box."""
        (rows, columns), logits = self.logits_in_box(row, box_xyxy, input_size)
        y, x = (logits.sigmoid() > IN_MASK).nonzero().unbind(1)
        return (y + rows.start) * self.maps.shape[2] + x + columns.start


class LatePrototypes(Prototypes):
    """Prototypes whose masks are cut at the box after they are enlarged, as the ultralytics package has them.

    Its own are those of the input; as with its `retina_masks` these are of the image.
    """

    def mask(self, row: int, box_xyxy: np.ndarray, letterbox: Letterbox) -> np.ndarray:
        """Return which pixels of the image the prediction of a row covers: bool (H, W), given its box (4,) in the input."""
        logits = torch.einsum("c,chw->hw", self.coefficients[row], self.maps).cpu().numpy()
        ((x1, y1, x2, y2),) = letterbox.boxes_to_image(box_xyxy[None])
        mask, (rows, columns) = in_image(logits, letterbox) > 0, map(np.arange, letterbox.image_size)
        mask &= ((rows >= y1) & (rows < y2))[:, None] & (columns >= x1) & (columns < x2)
        return mask


def in_image(logits: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Return a map (h, w) of the input over the image, (H, W), enlarged at once where the padding ends between cells.

    Else it is enlarged so far first that it does.
    """
    import cv2

    per_cell = letterbox.input_size[1] // logits.shape[1]
    edges = (letterbox.top, letterbox.left, *letterbox.content_size)
    factor = next(f for f in range(1, per_cell + 1) if not any(edge * f % per_cell for edge in edges))
    finer = cv2.resize(logits, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    top, left, height, width = (edge * factor // per_cell for edge in edges)
    return letterbox.enlarge(finer[top : top + height, left : left + width])


@dataclass(frozen=True, kw_only=True)
class MaskRecording(HeadRecording):
    """A recording of a model with a Segment head: of what the masks of the image are made."""

    prototypes: Prototypes


class ReadsMasks(HeadScores):
    """Scores that read masks: what heads with prototypes share.

    The mean logit of a mask over a region is the sum of the coefficients times the means of the prototypes there. The
    region, of each prediction by itself, is what its mask covered in the recorded image.

    prototypes  of the recorded image
    """

    prototypes: Prototypes

    @property
    def features_at_once(self) -> int:
        """How many variants of the head's inputs a batch should hold: prototypes are as large as images."""
        return self.at_once

    def with_masks(self, predictions: Predictions, coefficients: Tensor, prototypes: Tensor) -> Tensor:
        """Return the scores (B, D) of predictions (B, N) with coefficients (B, N, nm) of prototypes (B, nm, h, w)."""
        rows = self.target.rows
        logits = (in_full(coefficients[:, rows]) * self._means(in_full(prototypes))).sum(dim=-1)
        return self.target.score(replace(predictions.at(rows), mask=clarity(logits, self._is_there)))

    def _means(self, prototypes: Tensor) -> Tensor:
        """Return the means (B, D, k, nm) of prototypes (B, nm, h, w) over the regions; zeros where one is empty."""
        cells = prototypes.flatten(2).permute(2, 0, 1)
        means = torch.sparse.mm(self._regions.to(cells.dtype), cells.flatten(1)).unflatten(1, cells.shape[1:])
        return means.transpose(0, 1).unflatten(1, self.target.rows.shape)

    @cached_property
    def _regions(self) -> Tensor:
        """The regions of the D k predictions, (D k, h w) float32 and sparse; each adds up to 1 unless it is empty."""
        from torchvision.ops import box_convert

        parts, rows = self.prototypes, self.target.rows.flatten()
        boxes = box_convert(self.recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy").cpu().numpy()
        size = tuple(self.recording.image.shape[2:])
        cells = [parts.covered(row, box, size) for row, box in zip(rows.tolist(), boxes, strict=True)]
        counts = torch.tensor([len(each) for each in cells], device=rows.device)
        owner = torch.arange(len(cells), device=rows.device).repeat_interleave(counts)
        shape = (len(cells), parts.maps[0].numel())
        indices = torch.stack((owner, torch.cat(cells)))
        return torch.sparse_coo_tensor(indices, 1 / counts[owner], shape, check_invariants=False).coalesce()

    @cached_property
    def _is_there(self) -> Tensor:
        """Whether each prediction had a mask, (D, k) float32: 1 or 0."""
        return torch.sparse.sum(self._regions, dim=1).to_dense().round().view(self.target.rows.shape)


class MaskScores(ReadsMasks, WholeScores):
    """Scores that read masks, through the forward pass of the head itself."""

    recording: MaskRecording

    @property
    def prototypes(self) -> Prototypes:
        """What the masks of the recorded image are made of."""
        return self.recording.prototypes

    def of_features(self, features: list[Tensor]) -> Tensor:
        """Return the scores (B, D) that the head's inputs give."""
        outputs = self.outputs(features)
        predictions, prototypes, *_ = outputs[0]
        whole = Predictions.of_columns(self.detector.raw(outputs))
        return self.with_masks(whole, predictions[:, :, self.detector.columns :], prototypes)


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
