"""What speaks for each thing that is explained, at the layers of one recorded image.

Evidence at a layer is an array that broadcasts to the layer's activations: a gradient (1, C, h, w), or a weight for each
channel (1, C, 1, 1). That of several scores adds up to that of their sum. A kind of evidence is a class, and the entry of a
method names the one it wants. Evidence from masked images alone is in `explainer.methods.black_box`.

Importing this module imports no torch: the table of methods, which the command's help is made of, is built on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from explainer.detectors.detector import IMAGE, PLACES, Detector, Layers, Place, Scores
from explainer.detectors.predictions import Recording, Target
from explainer.methods.targets import BoxesTarget, ItemsTarget

if TYPE_CHECKING:
    from torch import Tensor


class Evidence:
    """The interface, and what most kinds share. One is made for a recording, a target and some Settings.

    nothing       how a sentence says that there is no evidence at a layer
    reads_layers  whether it reads layers of a network, which a model that gives predictions alone does not have
    graph         whether the recording needs the graph from the layers to the scores
    note          what else there is to say about how it came about, or ""
    """

    nothing = "does not depend on"
    reads_layers = True
    graph = False
    note = ""

    def __init__(
        self,
        detector: Detector,
        recording: Recording,
        target: Target,
        settings,
        *,
        at_head: bool = False,
    ):
        """Prepare the evidence. `settings` are `explainer.settings.Settings`; `at_head` is that of the `Layers`."""
        self.detector, self.recording, self.target = detector, recording, target
        self.settings, self.at_head = settings, at_head

    @staticmethod
    def layers(detector: Detector, requested: tuple[str | int, ...], place: Place | None) -> Layers:
        """Return which layers are read: those requested by the user, of ("auto",) those at the method's own place."""
        chosen = place if requested == ("auto",) else PLACES.get(requested[0])
        return detector.layers_at(chosen) if chosen else detector.layers_called(requested)

    @staticmethod
    def besides(detector: Detector, layers: tuple[str, ...]) -> list[str]:
        """Return the names of the layers that must be recorded besides those that the map is read from."""
        return []

    @staticmethod
    def shown(layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return how the layers that were read are named in an answer."""
        return layers

    @cached_property
    def scores(self) -> Scores:
        """The scores, and how they depend on what was recorded."""
        return self.detector.scores(self.recording, self.target, at_head=self.at_head)

    @property
    def values(self) -> list[float]:
        """What the target gives for the image as it is, one number for each thing that is explained."""
        return self.scores.baseline.tolist()

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray] | None:
        """Return the evidence for one score at each layer, float32; None where it is the activations alone."""
        raise NotImplementedError

    def factor(self, layer: str) -> np.ndarray:
        """Return what a layer's evidence is held against: its activations (1, C, h, w), float32."""
        return as_array(self.recording.activations[layer])


class Activations(Evidence):
    """None: the map is that of the activations, whatever is explained."""

    def at(self, index: int, layers: tuple[str, ...]) -> None:
        """Return None."""


class Gradients(Evidence):
    """The gradient of the score, (1, C, h, w)."""

    nothing = "has no gradient at"
    graph = True

    @property
    def values(self) -> list[float]:
        """What the target gives for the image as it is, one number for each thing that is explained."""
        return self.scores.values.tolist()

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient of one score at each layer."""
        return self.scores.gradients(index, layers)


class RandomWeights(Evidence):
    """A random weight between -1 and 1 for each channel, (1, C, 1, 1): drawn for each score, and the same on every run."""

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the weights of one score at each layer."""
        rows = self.target.rows
        generator = np.random.default_rng(index if rows is None else int(rows[index, 0]))
        counts = [self.recording.activations[name].shape[1] for name in layers]
        return [generator.uniform(-1, 1, (1, count, 1, 1)).astype(np.float32) for count in counts]


class Curvature(Evidence):
    """The gradient minus half the product of the score's Hessian and the activations, (1, C, h, w)."""

    nothing = "has no gradient at"
    graph = True

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return that of one score at each layer."""
        return [gradient - 0.5 * product for gradient, product in self.scores.curvatures(index, layers)]


class ItemGradients(Gradients):
    """The gradient of each item of a detection, (I, C, h, w): I of them stand where other evidence has one."""

    target: ItemsTarget

    @property
    def values(self) -> list[float]:
        """The score of each detection: the sum of those of its items."""
        return self.scores.values.view(-1, self.target.items).sum(dim=1).tolist()

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradients of the items of one detection at each layer."""
        first = index * self.target.items
        by_item = [super(ItemGradients, self).at(first + number, layers) for number in range(self.target.items)]
        return [np.concatenate(gradients) for gradients in zip(*by_item, strict=True)]


class RegionGradients(Gradients):
    """The gradient of the score, and which cells the detection's box covers, 1 or 0, as one array (2, C, h, w).

    Where there is no gradient there is no region either: both are zero.
    """

    target: BoxesTarget

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient of one score and its region at each layer."""
        box, size = self.target.boxes_xyxy[index].cpu().numpy(), tuple(self.recording.image.shape[2:])
        return [
            np.concatenate((gradient, region(box, size, gradient.shape) * gradient.any()))
            for gradient in super().at(index, layers)
        ]


def region(box_xyxy: np.ndarray, size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Return an array (1, C, h, w) that is 1 at the cells touched by a box in pixels of an input of `size`, 0 elsewhere."""
    x1, y1, x2, y2 = box_xyxy
    inside = [
        (np.arange(cells) < high * cells / side) & (np.arange(1, cells + 1) > low * cells / side)
        for cells, side, low, high in zip(shape[2:], size, (y1, x1), (y2, x2), strict=True)
    ]
    return np.broadcast_to(np.float32(inside[0][:, None] & inside[1]), shape)


class BiasGradients(Gradients):
    """The gradient at the image and behind every bias, held against the image and the biases."""

    @staticmethod
    def layers(detector: Detector, requested: tuple[str | int, ...], place: Place | None) -> Layers:
        """Return all layers that add a bias, and the image."""
        return Layers((detector.layers_with_bias(),) * len(detector.strides))

    @staticmethod
    def shown(layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return one name for all of them."""
        return ("biases",)

    def factor(self, layer: str) -> np.ndarray:
        """Return the bias (1, C, 1, 1) that a layer adds, or the image (1, 3, h, w)."""
        return as_array(self.recording.image if layer == IMAGE else self.detector.bias(layer))


class ChannelWeights(Evidence):
    """A weight for each channel, (1, C, 1, 1), computed for all scores at once when a layer is first asked for."""

    nothing = "does not change with"

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """The weights (C, D) of the layers that were asked for so far."""
        return {}

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the weights of one score at each layer."""
        for name in layers:
            if name not in self._weights:
                self._weights[name] = as_array(self.weights(name))
        return [self._weights[name][:, index].reshape(1, -1, 1, 1) for name in layers]

    def weights(self, layer: str) -> Tensor:
        """Return the weight (C, D) of each channel of a layer for each score."""
        raise NotImplementedError


class Ablation(ChannelWeights):
    """How much a score falls when a channel is set to zero; only what lies above the layer is run again.

    The paper divides the drop by the score. Scores here are logarithms, whose differences are relative already.
    """

    @staticmethod
    def besides(detector: Detector, layers: tuple[str, ...]) -> list[str]:
        """Return the layers whose outputs are needed to run what lies above again."""
        return [name for layer in layers for name in detector.needed_above(layer)]

    def weights(self, layer: str) -> Tensor:
        """Return how much each score falls without each channel, (C, D)."""
        import torch

        again = self.scores.rerun(layer)
        parts = channels_of(again.activations, again.at_once)
        return self.scores.baseline - torch.cat(
            [again(without_each(again.activations, channels)) for channels in parts]
        )


class Masking(ChannelWeights):
    """How well a score holds when the image shows only what a channel responds to.

    The weights are the softmax of the scores over the channels. Scores are logarithms, so that a weight is the share of
    the value that is left, and channels differ; the softmax of probabilities would be nearly the same for all.
    """

    def weights(self, layer: str) -> Tensor:
        """Return the share of each channel, (C, D); over the channels it sums to 1."""
        import torch

        image, activations = self.recording.image, self.recording.activations[layer].detach()
        parts = channels_of(activations, self.scores.at_once)
        left = [self.scores.of_images(image * spotlights(activations[:, part], image)) for part in parts]
        return torch.cat(left).softmax(dim=0)


def channels_of(activations: Tensor, count: int) -> Iterator[Tensor]:
    """Yield the channels of activations (1, C, ...), `count` indices at a time."""
    import torch

    yield from torch.arange(activations.shape[1], device=activations.device).split(count)


def without_each(activations: Tensor, channels: Tensor) -> Tensor:
    """Return copies (B, C, ...) of activations (1, C, ...), each with one of the B channels set to zero."""
    ablated = activations.repeat(len(channels), *[1] * (activations.ndim - 1))
    ablated[list(range(len(channels))), channels] = 0
    return ablated


def spotlights(maps: Tensor, image: Tensor) -> Tensor:
    """Return maps (1, B, h, w), each scaled to 0..1, as masks (B, 1, H, W) of an image (1, 3, H, W)."""
    from torch.nn.functional import interpolate

    maps = interpolate(maps, image.shape[2:], mode="bilinear", align_corners=True)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return ((maps - low) / (high - low + 1e-8)).movedim(1, 0)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()
