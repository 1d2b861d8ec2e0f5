"""How much of a detection is left among other raw predictions: the score of masked and perturbed images."""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from explainer.object_targets import BoxesTarget
from explainer.scores import iou, match

# Predictions with more objectness than this are few, and most detections are found among them.
SURE = 0.01
# A prediction with so much overlap with a box is one of that box.
SAME_BOX = 0.5


def similarities(raw: Tensor, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return how much of D detections is left in B images: (B, D), 0..1.

    The similarity of a detection with an image is the largest of IoU(box) x cosine(class probabilities) x objectness over
    all raw predictions of the image; no confidence is too low and nothing is suppressed. For the image that a detection
    was found in it is the objectness of its prediction, or more where a neighbour says the same with more confidence.
    raw: (B, N, 5 + classes); boxes_xyxy: (D, 4) in input pixels; directions: (D, classes), the class probabilities of the
    detections' own raw predictions as vectors of length 1. D-RISE, https://arxiv.org/abs/2006.03204.
    """
    return torch.stack([similarities_in_image(predictions, boxes_xyxy, directions) for predictions in raw])


def similarities_in_image(predictions: Tensor, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return the similarities (D,) with the predictions (N, 5 + classes) of one image.

    No similarity exceeds the objectness, nor IoU x objectness. So detections that the few sure predictions explain need no
    look at the others, and those that are left look at what can still be better.
    """
    objectness = predictions[:, 4]
    best = largest_products(predictions[objectness > SURE], boxes_xyxy, directions)
    if (best >= SURE).all():
        return best
    bounds = iou(boxes_xyxy, predictions[:, :4]) * objectness
    nearest = largest_products(predictions[bounds.argmax(dim=1)], boxes_xyxy, directions)
    best = torch.maximum(best, nearest)
    further = (bounds > best[:, None]).any(dim=0)
    return torch.maximum(best, largest_products(predictions[further], boxes_xyxy, directions))


def largest_products(rows: Tensor, boxes_xyxy: Tensor, directions: Tensor) -> Tensor:
    """Return the largest IoU x cosine x objectness (D,) of each detection with rows (R, 5 + classes) of predictions, or 0."""
    if not len(rows):
        return rows.new_zeros(len(boxes_xyxy))
    cosine = directions @ normalize(rows[:, 5:], dim=1).T
    return (iou(boxes_xyxy, rows[:, :4]) * cosine * rows[:, 4]).amax(dim=1)


def similarity_target(raw: Tensor, boxes_xyxy: Tensor, classes: list[int], items: tuple[str, ...]) -> BoxesTarget:
    """Return how much is left of D detections with boxes (D, 4) in input pixels: their similarity with all raw predictions.

    A detection is known by its box and the class probabilities of its raw prediction. A box that the model does not
    predict, since it was given, stands for its class alone.
    """
    indices = torch.tensor(classes, dtype=torch.long, device=raw.device)
    best = match(raw, boxes_xyxy, indices)
    rows = best.rows.gather(1, best.weights.argmax(dim=1, keepdim=True))[:, 0]
    own = iou(boxes_xyxy, raw[rows, :4]).diagonal() > SAME_BOX
    predicted = own & (raw[rows, 5:].argmax(dim=1) == indices)
    alone = one_hot(indices, raw.shape[1] - 5).to(raw)
    directions = normalize(torch.where(predicted[:, None], raw[rows, 5:], alone), dim=1)
    return BoxesTarget(None, lambda several: similarities(several, boxes_xyxy, directions), boxes_xyxy=boxes_xyxy)
