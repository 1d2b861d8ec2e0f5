"""Run a detector over labelled images and measure how well it does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.base.boxes import scale_boxes, xywh2xyxy
from utils.base.devices import Profile
from utils.base.logger import LOGGER
from utils.base.nms import non_max_suppression
from utils.data.training_data import Shapes
from utils.validating.curves import Curves, compute_curves
from utils.validating.metrics import true_positives

HEADER = ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")
ROW = "%22s" + "%11i" * 2 + "%11.3g" * 4


@dataclass(frozen=True)
class ValSettings:
    """How to get detections out of a model.

    Attributes:
        conf_thres, iou_thres, max_det: as for `non_max_suppression`.
        single_cls: whether all classes count as one.
        augment: whether to also detect on scaled and mirrored copies.
        half: whether to compute in half precision.
        autolabel: whether the labels go into the suppression as certain predictions, so that what is saved holds both.
    """

    conf_thres: float = 0.001
    iou_thres: float = 0.6
    max_det: int = 300
    single_cls: bool = False
    augment: bool = False
    half: bool = False
    autolabel: bool = False


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image.

    Attributes:
        path: of the image; shape: its (height, width).
        detections: (n, 6) x1, y1, x2, y2 in its pixels, confidence, class; most confident first.
        labels: (m, 5) class, x1, y1, x2, y2 in its pixels.
    """

    path: str
    shape: tuple[int, int]
    detections: Tensor
    labels: Tensor


@dataclass(frozen=True)
class BatchResult:
    """What was found in one batch.

    Attributes:
        number: of the batch, from 0 on.
        images: (B, 3, h, w) 0..1; targets: (n, 6) image, class, x, y, w, h in pixels of the batch.
        detections: per image (n, 6) in pixels of the batch.
        results: per image the same in pixels of the image.
    """

    number: int
    images: Tensor
    targets: Tensor
    detections: list[Tensor]
    results: list[ImageResult]


Observer = Callable[[BatchResult], Any]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one validation.

    Attributes:
        curves: of the k classes with labels; nc: number of all classes.
        images: how many were seen.
        losses: (3,) box, objectness, class; zeros where they were not computed.
        milliseconds: per image: before, during, after the forward pass.
    """

    curves: Curves
    nc: int
    images: int
    losses: tuple[float, float, float]
    milliseconds: tuple[float, float, float]

    @property
    def by_class(self) -> np.ndarray:
        """Precision, recall, mAP50, mAP50-95 (k, 4) of each class with labels."""
        best, ap = self.curves.best, self.curves.ap
        return np.stack((self.curves.precision[:, best], self.curves.recall[:, best], ap[:, 0], ap.mean(1)), axis=1)

    @property
    def means(self) -> tuple[float, float, float, float]:
        """Precision, recall, mAP50, mAP50-95 over all classes with labels."""
        return tuple(self.by_class.mean(0).tolist()) if len(self.curves.classes) else (0.0, 0.0, 0.0, 0.0)

    @property
    def maps(self) -> np.ndarray:
        """(nc,) mAP50-95 of each class, the mean for those without labels."""
        maps = np.full(self.nc, self.means[3])
        maps[self.curves.classes.astype(int)] = self.curves.ap.mean(1)
        return maps

    def as_tuple(self) -> tuple[tuple[float, ...], np.ndarray, tuple[float, float, float]]:
        """Return ((P, R, mAP50, mAP50-95, box, objectness, class loss), maps, milliseconds)."""
        return (*self.means, *self.losses), self.maps, self.milliseconds


@dataclass
class _Tally:
    """What is collected over all images."""

    hits: list[np.ndarray] = field(default_factory=list)
    confidences: list[np.ndarray] = field(default_factory=list)
    detected: list[np.ndarray] = field(default_factory=list)
    labelled: list[np.ndarray] = field(default_factory=list)

    def add(self, result: ImageResult) -> None:
        self.hits.append(true_positives(result.detections, result.labels).cpu().numpy())
        self.confidences.append(result.detections[:, 4].cpu().numpy())
        self.detected.append(result.detections[:, 5].cpu().numpy())
        self.labelled.append(result.labels[:, 0].cpu().numpy())

    def curves(self) -> Curves:
        parts = (self.hits, self.confidences, self.detected, self.labelled)
        return compute_curves(*(np.concatenate(part) for part in parts))


class Validator:
    """Measures a model on the batches of a loader.

    Attributes:
        timers: of what comes before, in and after the forward pass.
    """

    def __init__(
        self,
        model: Any,
        loader: Iterable,
        settings: ValSettings,
        *,
        nc: int,
        device: torch.device,
        compute_loss: Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Take a model that returns predictions, alone or first; with `compute_loss` the raw maps must be second."""
        self.model, self.loader, self.settings, self.nc, self.device = model, loader, settings, nc, device
        self.compute_loss = compute_loss
        self.timers = tuple(Profile(device=device) for _ in range(3))
        self._losses = torch.zeros(3, device=device)

    def run(self, observers: Iterable[Observer] = ()) -> Evaluation:
        """Detect in all images, show each batch to the observers, and return the figures."""
        tally, images, batches = _Tally(), 0, 0
        for batch in self._batches():
            for result in batch.results:
                tally.add(result)
            for observe in observers:
                observe(batch)
            images += len(batch.results)
            batches += 1
        if not images:
            raise ValueError("there is no image to validate on")
        return Evaluation(
            curves=tally.curves(),
            nc=self.nc,
            images=images,
            losses=tuple((self._losses / batches).tolist()),
            milliseconds=tuple(timer.t / images * 1e3 for timer in self.timers),
        )

    def _batches(self) -> Iterator[BatchResult]:
        from tqdm import tqdm

        header = ("%22s" + "%11s" * 6) % HEADER
        for number, (images, targets, paths, shapes) in enumerate(tqdm(self.loader, header, dynamic_ncols=True)):
            # Without the yield inside: what others do between two batches is theirs.
            with torch.inference_mode():
                result = self._detect(number, images, targets, list(zip(paths, shapes, strict=True)))
            yield result

    def _detect(self, number: int, images: Tensor, targets: Tensor, origins: list[tuple[str, Shapes]]) -> BatchResult:
        with self.timers[0]:
            images = images.to(self.device, non_blocking=True)
            images = (images.half() if self.settings.half else images.float()) / 255
            targets = targets.to(self.device)
        with self.timers[1]:
            predictions = self._forward(images, targets)
        height, width = images.shape[2:]
        targets[:, 2:] *= targets.new_tensor([width, height, width, height])
        with self.timers[2]:
            detections = self._suppress(predictions, targets)
        results = [
            _in_image(detections[i], targets[targets[:, 0] == i, 1:], (height, width), origin)
            for i, origin in enumerate(origins)
        ]
        return BatchResult(number, images, targets, detections, results)

    def _forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the predictions (B, N, 5 + nc); the losses are added up."""
        if self.compute_loss is None:
            output = self.model(images, augment=True) if self.settings.augment else self.model(images)
            return output[0] if isinstance(output, (list, tuple)) else output
        predictions, maps = self.model(images)[:2]
        self._losses += self.compute_loss([each.float() for each in maps], targets)[1]
        return predictions

    def _suppress(self, predictions: Tensor, targets: Tensor) -> list[Tensor]:
        settings = self.settings
        known = [targets[targets[:, 0] == i, 1:] for i in range(len(predictions))] if settings.autolabel else []
        detections = non_max_suppression(
            predictions,
            settings.conf_thres,
            settings.iou_thres,
            labels=known,
            multi_label=True,
            agnostic=settings.single_cls,
            max_det=settings.max_det,
        )
        if settings.single_cls:
            for rows in detections:
                rows[:, 5] = 0
        return [rows.float() for rows in detections]


def evaluate_loaded(
    model: nn.Module,
    loader: Iterable,
    settings: ValSettings,
    *,
    nc: int,
    compute_loss: Callable | None = None,
    observers: Iterable[Observer] = (),
) -> Evaluation:
    """Measure a model in memory, which afterwards is as it was; half precision works on a copy of it."""
    training = model.training
    measured = copy.deepcopy(model).half() if settings.half else model
    device = next(model.parameters()).device
    try:
        measured.eval()
        return Validator(measured, loader, settings, nc=nc, device=device, compute_loss=compute_loss).run(observers)
    finally:
        model.train(training)


def _in_image(detections: Tensor, labels: Tensor, frame: tuple[int, int], origin: tuple[str, Shapes]) -> ImageResult:
    """Bring what belongs to one image of a batch to that image's own pixels."""
    path, (shape, (ratio, pad)) = origin
    moved = detections.clone()
    scale_boxes(frame, moved[:, :4], shape, (ratio, pad))
    boxes = scale_boxes(frame, xywh2xyxy(labels[:, 1:]), shape, (ratio, pad))
    return ImageResult(path, shape, moved, torch.cat((labels[:, :1], boxes), dim=1))


def log_evaluation(evaluation: Evaluation, names: Mapping[int, str], *, verbose: bool) -> None:
    """Log a row for all classes, and with `verbose` one for each."""
    objects = evaluation.curves.objects
    LOGGER.info(ROW, "all", evaluation.images, objects.sum(), *evaluation.means)
    if not objects.sum():
        LOGGER.warning("WARNING: no labels in the images to validate on: nothing can be measured")
    if not verbose or evaluation.nc < 2:
        return
    for c, count, figures in zip(evaluation.curves.classes.astype(int), objects, evaluation.by_class, strict=True):
        LOGGER.info(ROW, names[c], evaluation.images, count, *figures)
