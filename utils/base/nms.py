"""Non-maximum suppression of a detection head's raw predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torchvision

from utils.base.boxes import xywh2xyxy

# Boxes of different classes are moved this many pixels apart, so that they never overlap.
CLASS_OFFSET = 7680
# More candidates than this cost seconds and change nothing: the weakest are left out.
MAX_CANDIDATES = 30_000


def non_max_suppression(
    prediction: torch.Tensor | Sequence[torch.Tensor],
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Iterable[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
) -> list[torch.Tensor]:
    """Keep the most confident of the predictions that overlap, per image and class.

    A prediction's confidence is objectness x class probability; its objectness alone must also exceed `conf_thres`.

    Args:
        prediction: (B, N, 5 + nc + nm) rows x, y, w, h (pixels), objectness, nc class probabilities, nm more columns;
            or a tuple or list that begins with it, as the models return. It is not changed.
        conf_thres: the least confidence, 0..1, exclusive.
        iou_thres: boxes that overlap a kept one by more than this, 0..1, are dropped.
        classes: the classes to keep; None keeps all.
        agnostic: whether boxes of different classes suppress each other too.
        multi_label: whether one prediction may give a detection for each of its classes, instead of the best alone.
        labels: per image (n, 5) rows class, x, y, w, h (pixels) that are added as certain predictions (autolabelling).
        max_det: the most detections per image.
        nm: number of further columns (mask coefficients); like the class columns they are multiplied by the objectness.

    Returns:
        Per image a tensor (n, 6 + nm) with rows x1, y1, x2, y2 (pixels), confidence, class, further columns; most
        confident first.

    Raises:
        ValueError: for thresholds outside 0..1, a prediction of another shape, or classes that it does not have.
    """
    if isinstance(prediction, list | tuple):
        prediction = prediction[0]
    num_classes = _checked_num_classes(prediction, nm)
    _check_thresholds(conf_thres, iou_thres, max_det)
    keep_classes = _checked_classes(classes, num_classes)

    detections = []
    for i, rows in enumerate(prediction):
        rows = rows[rows[:, 4] > conf_thres]
        # An exported model can give boxes that are none.
        rows = rows[rows[:, :4].isfinite().all(1)]
        if len(labels) and len(labels[i]):
            rows = torch.cat((rows, _certain_predictions(labels[i], rows)))
        candidates = _candidates(rows, num_classes, conf_thres, multi_label and num_classes > 1)
        if keep_classes is not None:
            wanted = torch.tensor(keep_classes, device=candidates.device)
            candidates = candidates[torch.isin(candidates[:, 5].long(), wanted)]
        detections.append(_suppress(candidates, iou_thres, agnostic)[:max_det])
    return detections


def _candidates(rows: torch.Tensor, num_classes: int, conf_thres: float, multi_label: bool) -> torch.Tensor:
    """Turn raw rows (n, 5 + nc + nm) into x1, y1, x2, y2, confidence, class, further columns; drop the weak ones."""
    boxes = xywh2xyxy(rows[:, :4])
    scores, extra = (rows[:, 5:] * rows[:, 4:5]).tensor_split((num_classes,), dim=1)
    if multi_label:
        index, category = (scores > conf_thres).nonzero(as_tuple=True)
        confidence = scores[index, category]
    else:
        confidence, category = scores.max(1)
        index = (confidence > conf_thres).nonzero()[:, 0]
        confidence, category = confidence[index], category[index]
    return torch.cat((boxes[index], confidence[:, None], category[:, None].float(), extra[index]), 1)


def _suppress(candidates: torch.Tensor, iou_thres: float, agnostic: bool) -> torch.Tensor:
    """Sort candidate rows by confidence and drop those that overlap a better one."""
    order = candidates[:, 4].argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    candidates = candidates[order]
    offset = 0 if agnostic else candidates[:, 5:6] * CLASS_OFFSET
    kept = torchvision.ops.nms(candidates[:, :4] + offset, candidates[:, 4], iou_thres)
    return candidates[kept]


def _certain_predictions(label: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return label rows (n, 5) = class, x, y, w, h as raw prediction rows with objectness and class probability 1."""
    label = label.to(like.device)
    rows = like.new_zeros((len(label), like.shape[1]))
    rows[:, :4] = label[:, 1:5]
    rows[:, 4] = 1
    rows[torch.arange(len(label)), 5 + label[:, 0].long()] = 1
    return rows


def _checked_num_classes(prediction: torch.Tensor, nm: int) -> int:
    shape = tuple(prediction.shape)
    if len(shape) != 3 or shape[2] < 6 + nm:
        raise ValueError(f"prediction has shape {shape}; needed is (images, rows, 5 + classes + {nm} further columns)")
    return shape[2] - 5 - nm


def _check_thresholds(conf_thres: float, iou_thres: float, max_det: int) -> None:
    for name, value in (("conf_thres", conf_thres), ("iou_thres", iou_thres)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; give a number from 0 to 1")
    if max_det < 0:
        raise ValueError(f"max_det is {max_det}; give 0 or more")


def _checked_classes(classes: Iterable[int] | None, num_classes: int) -> list[int] | None:
    if classes is None:
        return None
    indices = [int(c) for c in classes]
    unknown = [c for c in indices if not 0 <= c < num_classes]
    if unknown:
        raise ValueError(f"class {unknown[0]} is unknown; this model has the classes 0 to {num_classes - 1}")
    return indices
