"""Faster R-CNN and what is built on it: regions of interest, each of which is classified by itself.

A prediction is a region together with a class: the region's box for that class, and its probabilities of all classes. Each
region is there with its best class, and with every other that is likely enough. Its score is that of its own region: the
region stays where the recorded pass put it, whatever is changed in the image.

The mask of a detection is read from its box, which is cut out of the pyramid again, finer than its region was.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from explainer.detectors.head import HeadScores
from explainer.detectors.local import Found, Local, LocalScores, PyramidRecording
from explainer.detectors.predictions import IN_MASK, Detection, Predictions, Target, clarity
from explainer.detectors.pyramid import Pyramidal, corners_to_centres
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox


class TwoStage(Pyramidal):
    """A torchvision model with `rpn` and `roi_heads`: FasterRCNN, MaskRCNN, KeypointRCNN."""

    narrowest = 1e-2

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.predicts_masks = self.model.roi_heads.has_mask()

    def count_labels(self) -> int:
        """Return how many labels the head knows, with the background."""
        predictor = self.model.roi_heads.box_predictor
        scores = getattr(predictor, "cls_score", None)
        if not isinstance(scores, nn.Linear):
            raise UsageError(
                f"{type(predictor).__name__} has no cls_score, from which the classes of a Faster R-CNN are counted"
            )
        return scores.out_features

    def head_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that the head is run by: what proposes regions, and what reads them."""
        heads = self.model.roi_heads
        return self.model.rpn, heads.box_roi_pool, heads.box_head, heads.box_predictor

    def levels_read(self) -> tuple[int, ...]:
        """Return the numbers of the maps of the pyramid that regions are cut out of."""
        return self.maps_of(self.model.roi_heads.box_roi_pool)

    def maps_of(self, pool: nn.Module) -> tuple[int, ...]:
        """Return the numbers of the maps of the pyramid that a pool cuts out of."""
        read = getattr(pool, "featmap_names", self.map_names)
        return tuple(number for number, name in enumerate(self.map_names) if name in read)

    def _named(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Return the maps of a pyramid by the names that the poolers know them by."""
        return dict(zip(self.map_names, inputs, strict=True))

    def pooled(self, inputs: list[Tensor], regions: list[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Return what is cut out of a pyramid for the regions of each image: (R_1 + R_2 + ..., C, a, b)."""
        sizes = [self.content_of(image_size)] * len(regions)
        return self.model.roi_heads.box_roi_pool(self._named(inputs), regions, sizes)

    def level_of_regions(self, regions: Tensor) -> Tensor:
        """Return the number of the map that each region (R, 4) is cut out of, once some were."""
        mapper = getattr(self.model.roi_heads.box_roi_pool, "map_levels", None)
        if len(self.levels_read()) < 2 or mapper is None:
            return torch.zeros(len(regions), dtype=torch.long, device=regions.device)
        return mapper([regions])

    def read(self, parts: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return of parts (R, C, a, b) cut out for regions (R, 4) the probabilities (R, labels) and boxes (R, labels, 4)."""
        heads = self.model.roi_heads
        logits, offsets = heads.box_predictor(heads.box_head(parts))
        boxes = heads.box_coder.decode(offsets, [regions])
        return logits.float().softmax(dim=-1), boxes.reshape(len(regions), -1, 4).float()

    def found(self, inputs: list[Tensor], image_size: tuple[int, int]) -> list[Found]:
        """Return what the head makes of pyramids (B, C, h, w) each, of inputs of this size: one entry for each image."""
        from torchvision.models.detection.image_list import ImageList

        batch = len(inputs[0])
        empty = inputs[0].new_zeros(()).expand(batch, 3, *image_size)
        images = ImageList(empty, [self.content_of(image_size)] * batch)
        regions, _ = self.model.rpn(images, self._named(inputs))
        probabilities, boxes = self.read(self.pooled(inputs, regions, image_size), torch.cat(regions))
        counts = [len(each) for each in regions]
        parts = zip(regions, probabilities.split(counts), boxes.split(counts), strict=True)
        return [self._of_regions(*each) for each in parts]

    def _of_regions(self, regions: Tensor, probabilities: Tensor, boxes: Tensor) -> Found:
        """Return what the regions (P, 4) of one image say: each its best class, and all that are likely enough."""
        labels = self.labels.to(regions.device)
        probabilities, boxes = probabilities[:, labels], boxes[:, labels if boxes.shape[1] > 1 else [0] * len(labels)]
        likely = probabilities.detach() > self.model.roi_heads.score_thresh
        likely |= torch.zeros_like(likely).scatter_(1, probabilities.argmax(dim=1, keepdim=True), True)
        owner, own = likely.nonzero().unbind(1)
        level = self.level_of_regions(regions)[owner]
        order = level.argsort(stable=True)
        owner, own = owner[order], own[order]
        ends = torch.bincount(level, minlength=len(self.levels_read())).cumsum(0).tolist()
        predictions = Predictions(corners_to_centres(boxes[owner, own]), None, probabilities[owner])
        return Found(predictions, tuple(ends), regions[owner], own)

    def candidates(self, found: Found, confidences: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and classes that compete: each prediction for the class of its box."""
        rows = torch.arange(len(confidences), device=confidences.device)
        rows = rows[chosen[rows, found.labels]]
        return rows, found.labels[rows]

    def mask_boxes(self, recording: PyramidRecording, rows: Tensor) -> Tensor:
        """Return the boxes (R, 4) in input pixels, clipped to the image, that masks of predictions (R,) are read from."""
        from torchvision.ops import box_convert, clip_boxes_to_image

        boxes = box_convert(recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy")
        return clip_boxes_to_image(boxes, self.content_of(tuple(recording.image.shape[2:])))

    def pooled_for_masks(self, inputs: list[Tensor], boxes: list[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Return what is cut out of a pyramid for the masks in the boxes of each image: (R_1 + R_2 + ..., C, a, b)."""
        sizes = [self.content_of(image_size)] * len(boxes)
        return self.model.roi_heads.mask_roi_pool(self._named(inputs), boxes, sizes)

    def level_of_mask_boxes(self, recording: PyramidRecording, boxes: Tensor) -> Tensor:
        """Return the number of the map that the mask in each box (R, 4) is cut out of."""
        pool = self.model.roi_heads.mask_roi_pool
        # It knows the scales of its maps once it has seen some.
        self.pooled_for_masks(list(recording.head_inputs), [boxes[:0]], tuple(recording.image.shape[2:]))
        read = torch.tensor(self.maps_of(pool), device=boxes.device)
        mapper = getattr(pool, "map_levels", None)
        return read[torch.zeros(len(boxes), dtype=torch.long) if len(read) < 2 or mapper is None else mapper([boxes])]

    def levels_of(
        self, recording: PyramidRecording, detections: list[Detection], items: tuple[str, ...]
    ) -> list[tuple[int, ...]]:
        """Return the levels that the items of each detection are read from: of a mask the map that its box is cut out of."""
        own = super().levels_of(recording, detections, items)
        if "mask" not in items or not self.predicts_masks:
            return own
        boxes = self.mask_boxes(recording, torch.tensor([found.row for found in detections], device=self.device))
        maps, read = self.level_of_mask_boxes(recording, boxes).tolist(), self.levels_read()
        of_masks = [(read.index(number),) if number in read else () for number in maps]
        if items == ("mask",):
            return [levels or other for levels, other in zip(of_masks, own, strict=True)]
        return [tuple(dict.fromkeys(other + levels)) for levels, other in zip(of_masks, own, strict=True)]

    def mask_logits(self, parts: Tensor, classes: Tensor) -> Tensor:
        """Return the logits (R, m, m) over their boxes of masks of classes (R,), read from parts (R, C, a, b)."""
        heads = self.model.roi_heads
        logits, labels = heads.mask_predictor(heads.mask_head(parts)), self.labels.to(parts.device)[classes]
        return logits[torch.arange(len(logits), device=logits.device), labels].float()

    @torch.no_grad()
    def masks(
        self, recording: PyramidRecording, letterbox: Letterbox, detections: list[Detection]
    ) -> list[np.ndarray | None]:
        """Return which pixels of the image each detection covers: bool (H, W), as torchvision has them from 0.5 on."""
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        predicted = [index for index, found in enumerate(detections) if found.was_predicted]
        masks = [None] * len(detections)
        if not self.predicts_masks or not predicted:
            return masks
        rows = torch.tensor([detections[index].row for index in predicted], device=self.device)
        boxes = self.mask_boxes(recording, rows)
        parts = self.pooled_for_masks(list(recording.head_inputs), [boxes], tuple(recording.image.shape[2:]))
        probabilities = self.mask_logits(parts, recording.found.labels[rows]).sigmoid().cpu()
        # One of that size exists at a time.
        for index, one in zip(predicted, probabilities, strict=True):
            box = torch.from_numpy(detections[index].xyxy)[None]
            masks[index] = (paste_masks_in_image(one[None, None], box, letterbox.image_size)[0, 0] >= IN_MASK).numpy()
        return masks

    def local(self, recording: PyramidRecording, rows: Tensor) -> Local:
        """Return the regions that predictions (D, k) depend on."""
        return Regions(self, recording, rows)

    def scores(self, recording: PyramidRecording, target: Target, *, at_head: bool = False) -> HeadScores:
        """Return the scores of a target, from the regions that they depend on, and the masks where they read those."""
        if target.reads_masks and self.predicts_masks:
            return LocalScores(self, recording, target, RegionsWithMasks(self, recording, target.rows))
        return super().scores(recording, target, at_head=at_head)


class Regions(Local):
    """Regions of interest of one image, cut out of the pyramid and classified by themselves."""

    def __init__(self, detector: TwoStage, recording: PyramidRecording, rows: Tensor):
        self.detector, self.recording, self.rows = detector, recording, rows
        flat = rows.flatten()
        self.regions, self.labels = recording.found.origins[flat], recording.found.labels[flat]
        self.size = tuple(recording.image.shape[2:])
        self.of_level = self._by_map(detector.level_of_regions(self.regions))

    def _by_map(self, levels: Tensor) -> list[Tensor]:
        """Return for each map of the pyramid the numbers of those that lie in it, given the number of the map of each."""
        return [(levels == level).nonzero()[:, 0] for level in range(len(self.recording.head_inputs))]

    def pooled(self, inputs: list[Tensor], numbers: Tensor) -> Tensor:
        """Return the parts (B, R', C, a, b) with these numbers, which rise, of a pyramid (B, C, h, w)."""
        batch = len(inputs[0])
        parts = self.detector.pooled(inputs, [self.regions[numbers]] * batch, self.size)
        return parts.unflatten(0, (batch, len(numbers)))

    def cut(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the parts (B, R_l, C, a, b) of each map (B or 1, C, h, w) of a pyramid; of those without any (B, 0, ...)."""
        batch = max(len(each) for each in inputs)
        whole = [each.expand(batch, -1, -1, -1) for each in inputs]
        parts = self.pooled(whole, torch.cat(self.of_level).sort().values)
        return [parts[:, numbers] for numbers in self.of_level]

    def predictions(self, parts: list[Tensor]) -> Predictions:
        """Return the predictions (B, D, k) that the head makes of parts."""
        return self.read(self.in_order(parts))

    def in_order(self, parts: list[Tensor]) -> Tensor:
        """Return the parts of all maps by their numbers, (B, R, C, a, b)."""
        batch, order = max(len(each) for each in parts), torch.cat(self.of_level).argsort()
        return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], dim=1)[:, order]

    def read(self, parts: Tensor) -> Predictions:
        """Return the predictions (B, D, k) that the head makes of the regions' parts (B, R, C, a, b)."""
        batch = len(parts)
        probabilities, boxes = self.detector.read(parts.flatten(0, 1), self.regions.repeat(batch, 1))
        labels = self.detector.labels.to(boxes.device)
        own = labels[self.labels].repeat(batch) if boxes.shape[1] > 1 else torch.zeros_like(self.labels).repeat(batch)
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), own]
        shape = (batch, *self.rows.shape)
        return Predictions(
            corners_to_centres(boxes).unflatten(0, shape), None, probabilities[:, labels].unflatten(0, shape)
        )

    def spread(self, level: int, numbers: Tensor, gradients: Tensor) -> Tensor:
        """Return as a map (1, C, h, w) what was found at parts: (R', C, a, b) at those of a level with these numbers."""
        maps = [each.detach() for each in self.recording.head_inputs]
        maps[level] = maps[level].requires_grad_()
        with torch.enable_grad():
            (parts,) = self.pooled(maps, numbers)
        return torch.autograd.grad(parts, maps[level], gradients)[0]


class RegionsWithMasks(Regions):
    """Regions together with the boxes that their masks are read from: region r is part r, the box of its mask part R + r.

    inside  (R, m, m), which cells of its box each mask covered in the recorded image; float32, 0 or 1

    Both kinds of parts are cells in one line, (C, n, 1), with zeros behind those of the smaller kind.
    """

    def __init__(self, detector: TwoStage, recording: PyramidRecording, rows: Tensor):
        super().__init__(detector, recording, rows)
        self.boxes, maps = detector.mask_boxes(recording, rows.flatten()), [e.detach() for e in recording.head_inputs]
        with torch.no_grad():
            parts = detector.pooled_for_masks(maps, [self.boxes], self.size)
            logits = detector.mask_logits(parts, self.labels)
            self.shapes = super().pooled(maps, torch.arange(1)).shape[3:], parts.shape[2:]
        self.inside = (logits.sigmoid() > IN_MASK).float()
        boxes_of_level = self._by_map(detector.level_of_mask_boxes(recording, self.boxes))
        both = zip(self.of_level, boxes_of_level, strict=True)
        self.of_level = [torch.cat((regions, boxes + len(self.boxes))) for regions, boxes in both]

    @property
    def owners(self) -> list[Tensor]:
        """Which of the D scores each part of each map counts for."""
        return [numbers % len(self.boxes) // self.rows.shape[1] for numbers in self.of_level]

    def pooled(self, inputs: list[Tensor], numbers: Tensor) -> Tensor:
        """Return the parts (B, R', C, n, 1) with these numbers, which rise, of a pyramid (B, C, h, w)."""
        batch, count = len(inputs[0]), len(self.boxes)
        regions = super().pooled(inputs, numbers[numbers < count])
        boxes = [self.boxes[numbers[numbers >= count] - count]] * batch
        masks = self.detector.pooled_for_masks(inputs, boxes, self.size).unflatten(0, (batch, len(boxes[0])))
        longest = max(map(prod, self.shapes))
        flat = (each.flatten(3) for each in (regions, masks))
        return torch.cat([pad(each, (0, longest - each.shape[3])) for each in flat], dim=1)[..., None]

    def predictions(self, parts: list[Tensor]) -> Predictions:
        """Return the predictions (B, D, k) that the heads make of parts, with their masks."""
        both = self.in_order(parts)[..., 0].split(len(self.boxes), dim=1)
        regions, masks = (
            each[..., : prod(shape)].unflatten(3, shape) for each, shape in zip(both, self.shapes, strict=True)
        )
        batch, covered = len(masks), self.inside.sum(dim=(1, 2))
        logits = self.detector.mask_logits(masks.flatten(0, 1), self.labels.repeat(batch)).unflatten(0, (batch, -1))
        mean = (logits * self.inside).sum(dim=(2, 3)) / covered.clamp(min=1)
        return replace(self.read(regions), mask=clarity(mean, covered > 0).unflatten(1, self.rows.shape))
