"""What is explained in an image, as scores of predictions: detections, what sets a class apart, classes, similarity.

A maker of targets takes the predictions (N) of an image, the boxes (D, 4) xyxy in input pixels and the classes (D,) int64 of
what is explained, the items of it, and where they are known the rows of its own predictions, and returns a `Target`: one
score for each. The ten predictions that overlap a box most stand for it, or its own alone (`match`); they and their weights
are constants of the score, and no part of what is explained.

Importing this module imports no torch: the table of methods, which the command's help is made of, is built on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explainer.detectors.predictions import Predictions, Target, read_boxes

if TYPE_CHECKING:
    from torch import Tensor

# How many predictions stand for a detection at most.
NEIGHBOURS = 10
# The value below which a logarithm is no longer taken.
SMALLEST = float(np.finfo(np.float32).tiny)
SIMILAR_CLASSES = 3
# Probabilities this close to 0 and 1 count as that far from them.
NEARLY_ZERO = 1e-7
# Predictions that are surer than this of an object are few, and most detections are found among them.
SURE = 0.01
# A prediction with so much overlap with a box is one of that box.
SAME_BOX = 0.5


@dataclass(frozen=True)
class Matches:
    """The predictions that stand for each of D detections.

    rows     (D, k) int64 indices of predictions, sorted by falling overlap with the detection
    weights  (D, k) float32, each row sums to 1; 0 for predictions that do not count
    classes  (D,) int64 class of each detection
    """

    rows: Tensor
    weights: Tensor
    classes: Tensor

    @property
    def heaviest(self) -> Tensor:
        """The row with the most weight of each detection, (D,)."""
        return self.rows.gather(1, self.weights.argmax(dim=1, keepdim=True))[:, 0]


def match(predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, own: Tensor | None = None) -> Matches:
    """Return the predictions that stand for each box and class.

    Of the ten with the highest overlap with the box those count whose best class is the box's; if there is none, the
    single best by overlap. Their weights are the softmax of the overlaps.
    own: (D,) int64, the row of the prediction that stands for a box alone, -1 where those around it do.
    """
    if own is not None and (own >= 0).all():
        return Matches(own[:, None], own.new_ones((len(own), 1), dtype=boxes_xyxy.dtype), classes)
    overlap = iou(boxes_xyxy, predictions.boxes_xywh)
    overlap, rows = overlap.topk(min(NEIGHBOURS, overlap.shape[1]), dim=1)
    counts = predictions.probabilities[rows].argmax(dim=2) == classes[:, None]
    counts[:, 0] |= ~counts.any(dim=1)
    weights = overlap.masked_fill(~counts, -np.inf).softmax(dim=1)
    if own is not None:
        known = own >= 0
        rows[known, 0], weights[known] = own[known], weights.new_tensor([1.0] + [0.0] * (rows.shape[1] - 1))
    return Matches(rows, weights, classes)


def iou(boxes_xyxy: Tensor, others_xywh: Tensor) -> Tensor:
    """Return the intersection over union (D, N) of boxes (D, 4) with boxes (N, 4) given by centre and size.

    0 where both are empty. Edge by edge: no array has more than D * N numbers.
    """
    x1, y1, x2, y2 = boxes_xyxy.T[..., None]
    x, y, w, h = others_xywh.T.contiguous()
    width = (x2.minimum(x + w / 2) - x1.maximum(x - w / 2)).clamp_(min=0)
    height = (y2.minimum(y + h / 2) - y1.maximum(y - h / 2)).clamp_(min=0)
    both = width.mul_(height)
    return (both / ((x2 - x1) * (y2 - y1) + w * h - both)).nan_to_num_(0.0)


def values(predictions: Predictions, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the values (..., D, n) that the items are the product of: each the weighted sum of one factor.

    predictions: (..., D, k), the matched ones.
    """
    return (matches.weights[..., None] * predictions.factors(items, matches.classes)).sum(dim=-2)


def log_scores(predictions: Predictions, matches: Matches, items: tuple[str, ...]) -> Tensor:
    """Return the score (..., D) of each detection: the sum over the items of the logarithm of their value."""
    return values(predictions, matches, items).clamp_min(SMALLEST).log().sum(dim=-1)


def log_scores_with_slopes(
    predictions: Predictions, matches: Matches, items: tuple[str, ...]
) -> tuple[Tensor, Predictions]:
    """Return the score (D,) of each detection, and its gradient with respect to the matched predictions (D, k)."""
    read = values(predictions, matches, items)
    each = (1 / read).masked_fill(read < SMALLEST, 0)[:, None] * matches.weights[..., None]
    return read.clamp_min(SMALLEST).log().sum(dim=-1), predictions.slopes(items, matches.classes, each)


def detections_target(
    predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, items: tuple[str, ...], own: Tensor | None = None
) -> Target:
    """Return the scores of D detections: the logarithm of the items of their matched predictions."""
    matches = match(predictions, boxes_xyxy, classes, own)
    return Target(
        matches.rows,
        lambda chosen: log_scores(chosen, matches, items),
        lambda chosen: log_scores_with_slopes(chosen, matches, items),
        reads_masks="mask" in items,
        reads_boxes=read_boxes(items),
    )


def finer_target(
    predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, items: tuple[str, ...], own: Tensor | None = None
) -> Target:
    """Return how far each detection's class c stands out among the three classes i that come closest to it.

    The score is the mean of logit(p_c) - logit(p_i), weighted with p_i. The probabilities are those of the matched
    predictions, each class by itself: the head has a sigmoid for each class, where the paper's classifier has a softmax.
    Logits, since the gradient of log(p_c) vanishes for the sure detections that are asked about.
    Finer-CAM, https://arxiv.org/abs/2501.11309.
    """
    matches = match(predictions, boxes_xyxy, classes, own)
    return Target(matches.rows, lambda chosen: finer_scores(chosen, matches), reads_boxes=False)


def finer_scores(predictions: Predictions, matches: Matches) -> Tensor:
    """Return the finer score (..., D) from matched predictions (..., D, k)."""
    probabilities = (matches.weights[..., None] * predictions.probabilities).sum(dim=-2)
    logits = probabilities.logit(eps=NEARLY_ZERO)
    own = matches.classes[:, None].expand(*logits.shape[:-1], 1)
    distance = (logits - logits.gather(-1, own)).abs().scatter(-1, own, np.inf)
    similar = distance.topk(min(SIMILAR_CLASSES, logits.shape[-1] - 1), largest=False).indices
    weights = probabilities.gather(-1, similar)
    lead = logits.gather(-1, own) - logits.gather(-1, similar)
    return (weights * lead).sum(dim=-1) / weights.sum(dim=-1).clamp_min(NEARLY_ZERO)


@dataclass(frozen=True, kw_only=True)
class ItemsTarget(Target):
    """The scores of D detections, item by item: `items` scores for the first detection, then those of the next."""

    items: int


def items_target(
    predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, items: tuple[str, ...], own: Tensor | None = None
) -> ItemsTarget:
    """Return the score of each item of each detection: D times the items."""
    import torch

    matches = match(predictions, boxes_xyxy, classes, own)

    def of_each(function: Callable, chosen: Predictions) -> list:
        # Each score reads rows of its own, so that the gradients of all of them can be taken at once.
        shares = (chosen.at_detections(slice(number, None, len(items))) for number in range(len(items)))
        return [function(share, matches, (item,)) for share, item in zip(shares, items, strict=True)]

    def scores(chosen: Predictions) -> Tensor:
        return torch.stack(of_each(log_scores, chosen), dim=-1).flatten(-2)

    def with_slopes(chosen: Predictions) -> tuple[Tensor, Predictions]:
        of_items, slopes = zip(*of_each(log_scores_with_slopes, chosen), strict=True)
        return torch.stack(of_items, dim=-1).flatten(-2), Predictions.interleaved(slopes)

    rows = matches.rows.repeat_interleave(len(items), dim=0)
    return ItemsTarget(
        rows, scores, with_slopes, reads_masks="mask" in items, reads_boxes=read_boxes(items), items=len(items)
    )


@dataclass(frozen=True, kw_only=True)
class BoxesTarget(Target):
    """The scores of D detections whose boxes (D, 4), xyxy in input pixels, count as well."""

    boxes_xyxy: Tensor


def boxes_target(
    predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, items: tuple[str, ...], own: Tensor | None = None
) -> BoxesTarget:
    """Return the scores of D detections, as `detections_target` has them, and their boxes."""
    scores = detections_target(predictions, boxes_xyxy, classes, items, own)
    return BoxesTarget(**vars(scores), boxes_xyxy=boxes_xyxy)


def classes_target(groups: list[list[int]], scales: Sequence[list[slice]] = ()) -> Target:
    """Return, for each group of classes, the sum of the probabilities of its classes over all predictions.

    scales: for each scale the predictions that come from it; the sum of all these classes over them follows.
    """
    together = sorted({index for group in groups for index in group})

    def score(predictions: Predictions) -> Tensor:
        import torch

        sums = [summed_probability(predictions, group) for group in groups]
        sums += [sum(summed_probability(predictions.at(rows), together) for rows in scale) for scale in scales]
        return torch.stack(sums, dim=-1)

    return Target(None, score)


def summed_probability(predictions: Predictions, classes: list[int]) -> Tensor:
    """Return the sum (...) of the probabilities of `classes` over all predictions (..., N)."""
    return predictions.probabilities[..., classes].sum(dim=(-2, -1))


def similarity_target(
    predictions: Predictions, boxes_xyxy: Tensor, classes: Tensor, items: tuple[str, ...], own: Tensor | None = None
) -> BoxesTarget:
    """Return how much is left of D detections: their similarity with all predictions.

    A detection is known by its box and the class probabilities of its prediction. A box that the model does not predict,
    since it was given, stands for its class alone.
    """
    rows = match(predictions, boxes_xyxy, classes, own).heaviest
    best = predictions.at(rows)
    predicted = (iou(boxes_xyxy, best.boxes_xywh).diagonal() > SAME_BOX) & (best.probabilities.argmax(dim=1) == classes)
    if own is not None:
        predicted |= own >= 0
    alone = best.probabilities.new_zeros(best.probabilities.shape).scatter_(1, classes[:, None], 1)
    directions = normalised(best.probabilities.where(predicted[:, None], alone))
    return BoxesTarget(None, lambda several: similarities(several, boxes_xyxy, directions), boxes_xyxy=boxes_xyxy)


def similarities(predictions: Predictions, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return how much of D detections is left in B images: (B, D), 0..1, given the predictions (B, N).

    The similarity of a detection with an image is the largest of IoU(box) x cosine(class probabilities) x certainty over all
    predictions of the image; no confidence is too low and nothing is suppressed. For the image that a detection was found in
    it is the certainty of its prediction, or more where a neighbour says the same with more confidence.
    boxes_xyxy: (D, 4) in input pixels; directions: (D, classes), the class probabilities of the detections' own predictions
    as vectors of length 1. D-RISE, https://arxiv.org/abs/2006.03204, whose objectness the certainty is where a model has one.
    """
    import torch

    return torch.stack([similarities_in_image(one, boxes_xyxy, directions) for one in predictions])


def similarities_in_image(predictions: Predictions, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return the similarities (D,) with the predictions (N) of one image.

    No similarity exceeds the certainty, nor IoU x certainty. So detections that the few sure predictions explain need no look
    at the others, and those that are left look at what can still be better.
    """
    certainty = predictions.certainty
    best = largest_products(predictions.at((certainty > SURE).nonzero()[:, 0]), boxes_xyxy, directions)
    if (best >= SURE).all():
        return best
    bounds = iou(boxes_xyxy, predictions.boxes_xywh) * certainty
    best = best.maximum(largest_products(predictions.at(bounds.argmax(dim=1)), boxes_xyxy, directions))
    further = (bounds > best[:, None]).any(dim=0).nonzero()[:, 0]
    return best.maximum(largest_products(predictions.at(further), boxes_xyxy, directions))


def largest_products(some: Predictions, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return the largest IoU x cosine x certainty (D,) of each detection with some predictions (R), or 0."""
    if not len(some.boxes_xywh):
        return some.boxes_xywh.new_zeros(len(boxes_xyxy))
    cosine = directions @ normalised(some.probabilities).T
    return (iou(boxes_xyxy, some.boxes_xywh) * cosine * some.certainty).amax(dim=1)


def normalised(vectors: Tensor) -> Tensor:
    """Return vectors (N, C) divided by their lengths; vectors of zeros stay."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
