"""What is explained in an image, as scores of raw predictions: detections, classes, or what sets a class apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from explainer.heads import Target
from explainer.scores import Matches, log_score_slopes, log_scores, match, summed_class_probability, weighted_sum

SIMILAR_CLASSES = 3
# Probabilities this close to 0 and 1 count as that far from them.
NEARLY_ZERO = 1e-7


def detections_target(raw: Tensor, boxes_xyxy: Tensor, classes: list[int], items: tuple[str, ...]) -> Target:
    """Return the scores of D detections with boxes (D, 4) in input pixels: the log of their matched raw predictions."""
    matches = match(raw, boxes_xyxy, torch.tensor(classes, dtype=torch.long, device=raw.device))
    return Target(
        matches.rows,
        lambda predictions: log_scores(predictions, matches, items),
        lambda predictions: log_score_slopes(predictions, matches, items),
    )


def finer_target(raw: Tensor, boxes_xyxy: Tensor, classes: list[int], items: tuple[str, ...]) -> Target:
    """Return how far each detection's class c stands out among the three classes i that come closest to it.

    The score is the mean of logit(p_c) - logit(p_i), weighted with p_i. The probabilities are those of the matched raw
    predictions, each class by itself: the head has a sigmoid for each class, where the paper's classifier has a softmax.
    Logits, since the gradient of log(p_c) vanishes for the sure detections that are asked about.
    Finer-CAM, https://arxiv.org/abs/2501.11309.
    """
    matches = match(raw, boxes_xyxy, torch.tensor(classes, dtype=torch.long, device=raw.device))
    return Target(matches.rows, lambda predictions: finer_scores(predictions, matches))


def finer_scores(predictions: Tensor, matches: Matches) -> Tensor:
    """Return the finer score (..., D) from matched predictions (..., D, k, 5 + classes)."""
    probabilities = weighted_sum(predictions[..., 5:], matches)
    logits = probabilities.logit(eps=NEARLY_ZERO)
    own = matches.classes[:, None].expand(*logits.shape[:-1], 1)
    distance = (logits - logits.gather(-1, own)).abs().scatter(-1, own, torch.inf)
    similar = distance.topk(min(SIMILAR_CLASSES, logits.shape[-1] - 1), largest=False).indices
    weights = probabilities.gather(-1, similar)
    lead = logits.gather(-1, own) - logits.gather(-1, similar)
    return (weights * lead).sum(dim=-1) / weights.sum(dim=-1).clamp_min(NEARLY_ZERO)


def classes_target(groups: list[list[int]], scales: Sequence[list[slice]] = ()) -> Target:
    """Return, for each group of classes, the sum of all raw probabilities of its classes.

    scales: for each scale the raw predictions that come from it; the sum of all these classes over them follows.
    """
    together = sorted({index for group in groups for index in group})

    def score(raw: Tensor) -> Tensor:
        sums = [summed_class_probability(raw, group) for group in groups]
        sums += [sum(summed_class_probability(raw[..., rows, :], together) for rows in scale) for scale in scales]
        return torch.stack(sums, dim=-1)

    return Target(None, score)
