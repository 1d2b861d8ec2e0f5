"""Evidence without gradients: what happens to the scores when a channel is taken away, or is all that is left.

All scores of an image are read in the same passes, each of which runs a batch of channels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from explainer.evidence import Evidence
from explainer.heads import Target
from explainer.network import Network, Recording
from explainer.rerun import Above, head_inputs_of

# A batch holds so many channels at 640x640, more where inputs are smaller.
CHANNELS_PER_BATCH = 16
# Single cells of the head are small.
CHANNELS_AT_CELLS = 64


class ChannelWeights(Evidence):
    """A weight for each channel, computed for all scores at once when a layer is first asked for."""

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        super().__init__(network, recording, target, at_head=at_head)
        self._weights: dict[str, Tensor] = {}

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the weights (1, C, 1, 1) of one score at each layer."""
        for name in layers:
            if name not in self._weights:
                with torch.no_grad():
                    self._weights[name] = self.weights(name)
        return [self._weights[name][:, index].reshape(1, -1, 1, 1) for name in layers]

    def weights(self, layer: str) -> Tensor:
        """Return the weight (C, D) of each channel of a layer for each score."""
        raise NotImplementedError

    def batches(self, layer: str) -> Iterator[Tensor]:
        """Yield the layer's channels, some indices at a time."""
        height, width = self.recording.image.shape[2:]
        size = max(1, CHANNELS_PER_BATCH * 640 * 640 // (height * width))
        yield from torch.arange(self.factor(layer).shape[1], device=self.recording.raw.device).split(size)


class Ablation(ChannelWeights):
    """How much a score falls when a channel is set to zero; only what lies above the layer is run again.

    The paper divides the drop by the score. Scores here are logarithms, whose differences are relative already.
    """

    nothing = "does not change with"

    @staticmethod
    def reads(network: Network, layers: tuple[str, ...]) -> list[str]:
        """Return the layers whose outputs are needed to run what lies above again."""
        return [name for layer in layers for name in Above.reads(network, layer)]

    def weights(self, layer: str) -> Tensor:
        """Return how much each score falls without each channel, (C, D)."""
        level = next((i for i, tensor in enumerate(self.recording.head_inputs) if tensor is self.factor(layer)), None)
        if self.at_head and level is not None:
            return self.scores - torch.cat(list(self._scores_at_head(level)))
        return self.scores - torch.cat(list(self._scores_above(layer)))

    def _scores_at_head(self, level: int) -> Iterator[Tensor]:
        """Yield the scores (B, D) without some channels of a head input each, as the head alone sees it."""
        features = list(self.base)
        for channels in torch.arange(features[level].shape[1], device=features[level].device).split(CHANNELS_AT_CELLS):
            features[level] = without(self.base[level], channels)
            yield self.head.scores(features)

    def _scores_above(self, layer: str) -> Iterator[Tensor]:
        """Yield the scores (B, D) without some channels of a layer each, running what lies above it."""
        above = Above(self.network, self.recording, layer, self.head.levels)
        for channels in self.batches(layer):
            inputs = above.head_inputs(without(self.factor(layer), channels))
            yield self.head.scores(self.head.select(inputs)).expand(len(channels), -1)


class Masking(ChannelWeights):
    """How well a score holds when the image shows only what a channel responds to.

    The weights are the softmax of the scores over the channels. Scores are logarithms, so that a weight is the share of
    the value that is left, and channels differ; the softmax of probabilities would be nearly the same for all.
    """

    nothing = "does not change with"

    def weights(self, layer: str) -> Tensor:
        """Return the share of each channel, (C, D); over the channels it sums to 1."""
        return torch.cat(list(self._scores_of_masked(layer))).softmax(dim=0)

    def _scores_of_masked(self, layer: str) -> Iterator[Tensor]:
        """Yield the scores (B, D) of the image, multiplied by some channels each."""
        image, activations = self.recording.image, self.factor(layer)
        for channels in self.batches(layer):
            maps = functional.interpolate(
                activations[:, channels], image.shape[2:], mode="bilinear", align_corners=True
            )
            low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
            masks = ((maps - low) / (high - low + 1e-8)).movedim(1, 0)
            inputs = head_inputs_of(self.network, image * masks, self.head.levels)
            known = [
                new if new is not None else old for new, old in zip(inputs, self.recording.head_inputs, strict=True)
            ]
            yield self.head.scores(self.head.select(known))


def without(activations: Tensor, channels: Tensor) -> Tensor:
    """Return copies (B, C, ...) of activations (1, C, ...), each with one of the B channels set to zero."""
    ablated = activations.detach().repeat(len(channels), *[1] * (activations.ndim - 1))
    ablated[torch.arange(len(channels), device=channels.device), channels] = 0
    return ablated
