"""Does a heatmap depend on what the model has learnt? Maps of copies whose weights are shuffled, from the head down.

Sanity checks for saliency maps, https://arxiv.org/abs/1810.03292.
"""

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.predictions import Predictions
from explainer.detectors.white_box import WhiteBox
from explainer.explain import Explainer
from explainer.explanation import DetectionExplanation
from explainer.maps.measures import spearman, structural_similarity

# Heatmaps are compared at this longer side in pixels: what a map says does not depend on fine detail.
COMPARED_SIDE = 160


def shuffled_copies(detector: WhiteBox, seed: int) -> dict[str, WhiteBox]:
    """Return copies of a detector by stage: of a YOLOv5 with the weights of the head shuffled, of head and neck, and of all.

    Each parameter's values stay and change places, so that activations keep their scale. The model itself is not touched.
    """
    copies, latest, generator = {}, detector.copy(), torch.Generator().manual_seed(seed)
    for stage in latest.randomisable():
        for layer in latest.randomisable()[stage]:
            shuffle(layer, generator)
        copies[stage], latest = latest, latest.copy()
    return copies


@torch.no_grad()
def shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    """Give the values of each parameter of a layer other places in it."""
    for parameter in layer.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


class Sanity:
    """Compares the maps of one method with those of copies of the model, and of another class."""

    def __init__(self, explainer: Explainer, copies: dict[str, WhiteBox]):
        settings = explainer.settings
        self.explainer = explainer
        self.copies = {stage: Explainer(copy, **vars(settings)) for stage, copy in copies.items()}

    def figures(
        self, image_rgb: np.ndarray, explained: list[DetectionExplanation], predictions: Predictions
    ) -> list[dict]:
        """Return the figures of each explained detection, given the predictions (N) for the image."""
        size = compared_size(image_rgb.shape[:2])
        maps = [entry.heatmap_at(size) for entry in explained]
        own = [entry.detection.class_index for entry in explained]
        others = [
            second_class(predictions.probabilities[entry.detection.row], index)
            for entry, index in zip(explained, own, strict=True)
        ]
        asked = [(stage, copy, own) for stage, copy in self.copies.items()]
        if None not in others:
            asked.append(("class", self.explainer, others))
        rows = [{} for _ in explained]
        for name, explainer, classes in asked:
            boxes = [(*e.detection.xyxy.tolist(), index) for e, index in zip(explained, classes, strict=True)]
            answers = explainer(image_rgb, boxes=boxes).detections
            for row, heatmap, answer in zip(rows, maps, answers, strict=True):
                row |= compared(heatmap, answer.heatmap_at(size), name)
        return rows


def compared(first: np.ndarray, second: np.ndarray, name: str) -> dict[str, float | None]:
    """Return the similarities of two maps; None where one of them is empty."""
    if not first.any() or not second.any():
        return {f"spearman_{name}": None, f"ssim_{name}": None}
    return {f"spearman_{name}": spearman(first, second), f"ssim_{name}": structural_similarity(first, second)}


def second_class(probabilities: Tensor, own: int) -> int | None:
    """Return the most probable class besides a detection's own; None for a model of one class."""
    ranked = probabilities.argsort(descending=True).tolist()
    return next((index for index in ranked if index != own), None)


def compared_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width at which maps of an image are compared."""
    scale = COMPARED_SIDE / max(image_size)
    return tuple(max(round(side * scale), 1) for side in image_size)
