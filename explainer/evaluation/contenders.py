"""What takes part in an evaluation: the explainer's methods, and a blob on the box that explains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from explainer.explain import Explainer
from explainer.explanation import Detection, DetectionExplanation
from explainer.maps.measures import gaussian_in_box
from explainer.network import Network
from explainer.settings import Settings

GAUSSIAN = "GaussianBox"


@dataclass(frozen=True)
class Answer:
    """What a contender says about some detections of an image.

    heatmaps   one for each, float32 (H, W) in 0..1 at the size of the image
    layers     where each was read, for the table
    explained  the explanations themselves, where there are any
    shared_by  how many detections were explained at once, and share the cost
    """

    heatmaps: list[np.ndarray]
    layers: list[str]
    shared_by: int
    explained: list[DetectionExplanation] = field(default_factory=list)


class ByExplainer:
    """One method of the explainer, as it is set."""

    def __init__(self, network: Network, layer: str, settings: Settings):
        self.explainer = Explainer(network, **vars(settings))
        self.method, self.layer = settings.method, layer

    def __call__(self, image_rgb: np.ndarray, detections: Sequence[Detection]) -> Answer:
        """Return the heatmaps of an image's detections."""
        explanation = self.explainer(image_rgb)
        by_row = {entry.detection.row: entry for entry in explanation.detections}
        entries = [by_row[found.row] for found in detections]
        return Answer(
            [entry.heatmap for entry in entries], [" ".join(entry.layers) for entry in entries], len(by_row), entries
        )


class GaussianBox:
    """A Gaussian on the detected box: what is known before anything is explained."""

    method, layer = GAUSSIAN, ""

    def __call__(self, image_rgb: np.ndarray, detections: Sequence[Detection]) -> Answer:
        """Return the heatmaps of an image's detections."""
        maps = [gaussian_in_box(found.xyxy, image_rgb.shape[:2]) for found in detections]
        return Answer(maps, [""] * len(maps), len(maps))


Contender = ByExplainer | GaussianBox
