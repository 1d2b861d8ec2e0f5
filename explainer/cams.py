"""Maps of one recorded image: gradients go in, class activation maps come out."""

from functools import cached_property

import numpy as np
from torch import Tensor

from explainer.gradients import HeadGradient, layer_gradients
from explainer.maps import Letterbox, heatmap_of, hottest
from explainer.methods import Formula
from explainer.network import Recording

Gradients = list[Tensor] | None


class GradientSum:
    """Gradients of several scores, added up for each group of layers they were read from.

    Scores are sums, so their gradients are too: the map of a class, or of everything, needs no further pass.
    """

    def __init__(self):
        self.by_layers: dict[tuple[str, ...], Gradients] = {}

    def add(self, layers: tuple[str, ...], gradients: Gradients) -> None:
        """Add the gradients of one score at these layers; None for a method that uses none."""
        so_far = self.by_layers.get(layers)
        if so_far is not None:
            gradients = [a + b for a, b in zip(so_far, gradients, strict=True)]
        self.by_layers[layers] = gradients

    def merge(self, other: "GradientSum") -> None:
        """Add everything that another sum holds."""
        for layers, gradients in other.by_layers.items():
            self.add(layers, gradients)


class CamReader:
    """Reads maps of one recorded image by one formula."""

    def __init__(self, formula: Formula, uses_gradients: bool, recording: Recording, letterbox: Letterbox):
        self.formula, self.uses_gradients = formula, uses_gradients
        self.recording, self.letterbox = recording, letterbox
        self._without_gradients: dict[str, np.ndarray] = {}

    @cached_property
    def _activations(self) -> dict[str, np.ndarray]:
        return {name: as_array(activation) for name, activation in self.recording.activations.items()}

    def gradients(self, head_gradient: HeadGradient, layers: tuple[str, ...]) -> Gradients:
        """Return the gradient (1, C, h, w) at each layer of a score with this gradient at the head's inputs."""
        return list(layer_gradients(self.recording, head_gradient, layers)) if self.uses_gradients else None

    def cams(self, layers: tuple[str, ...], gradients: Gradients) -> tuple[np.ndarray, ...]:
        """Return one float32 map (h, w) per layer, in cells of the layer; it may be negative."""
        if gradients is None:
            return tuple(self._cam_without_gradients(name) for name in layers)
        return tuple(
            self.formula(self._activations[name], as_array(gradient))
            for name, gradient in zip(layers, gradients, strict=True)
        )

    def _cam_without_gradients(self, name: str) -> np.ndarray:
        """Return the map of a method that looks at the activations alone: the same for every detection."""
        if name not in self._without_gradients:
            self._without_gradients[name] = self.formula(self._activations[name], None)
        return self._without_gradients[name]

    def heatmap(self, total: GradientSum) -> np.ndarray:
        """Return the heatmap of a sum of scores: float32 (H, W) in 0..1 at the size of the original image.

        Where the detections were read from different layers, each pixel shows the hottest of them.
        """
        parts = [heatmap_of(self.cams(*entry), self.letterbox) for entry in total.by_layers.items()]
        return hottest(parts, self.letterbox.image_size)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()
