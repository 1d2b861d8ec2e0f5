"""What speaks for each thing that is explained, at the layers of one recorded image.

Evidence at a layer is an array that broadcasts to the layer's activations: a gradient (1, C, h, w), or a weight for each
channel (1, C, 1, 1). That of several scores adds up to that of their sum. A kind of evidence is built for one recording
and one target; `EVIDENCE` names the kinds, and a method says which one it wants.
"""

import numpy as np
import torch
from torch import Tensor

from explainer.gradients import head_gradients, layer_gradients
from explainer.heads import Target, head_for
from explainer.network import Network, Recording


class Evidence:
    """The interface, and what most kinds share.

    scores   (D,) what the target gives for the image as it is
    nothing  how a sentence says that there is no evidence at a layer
    graph    whether the recording needs the graph from the layers to the head
    note     what else there is to say about how it came about, or ""
    """

    nothing = "does not depend on"
    graph = False
    note = ""

    @classmethod
    def configured(cls, settings) -> type["Evidence"]:
        """Return this kind of evidence as some Settings want it."""
        return cls

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        """Prepare the evidence. `at_head`: layers that feed the head count for what the head alone makes of them."""
        self.network, self.recording, self.at_head = network, recording, at_head
        self.head = head_for(network, recording, target)
        with torch.no_grad():
            self.base = self.head.select([tensor.detach() for tensor in recording.head_inputs])
            self.scores = self.head.scores(self.base)[0]

    @staticmethod
    def reads(network: Network, layers: tuple[str, ...]) -> list[str]:
        """Return the names of the layers that must be recorded besides those that the map is read from."""
        return []

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor] | None:
        """Return the evidence for one score at each layer; None where it is the activations alone."""
        raise NotImplementedError

    def factor(self, layer: str) -> Tensor:
        """Return what a layer's evidence is held against: its activations (1, C, h, w)."""
        return self.recording.activations[layer]


class Activations(Evidence):
    """None: the map is that of the activations, whatever is explained."""

    def at(self, index: int, layers: tuple[str, ...]) -> None:
        """Return None."""


class Gradients(Evidence):
    """The gradient of the score."""

    nothing = "has no gradient at"
    graph = True

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        self.network, self.recording = network, recording
        self.gradients = head_gradients(network, recording, target)
        self.scores = self.gradients.scores

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the gradient (1, C, h, w) of one score at each layer."""
        return layer_gradients(self.recording, self.gradients.at(index), layers)


class RandomWeights(Evidence):
    """A random weight between -1 and 1 for each channel: drawn for each score, and the same on every run."""

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the weights (1, C, 1, 1) of one score at each layer."""
        rows = self.head.target.rows
        seed = index if rows is None else int(rows[index, 0])
        generator = np.random.default_rng(seed)
        counts = [self.factor(name).shape[1] for name in layers]
        return [torch.from_numpy(generator.uniform(-1, 1, (1, count, 1, 1)).astype(np.float32)) for count in counts]


class Curvature(Evidence):
    """The gradient minus half the product of the score's Hessian and the activations."""

    nothing = "has no gradient at"
    graph = True

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        super().__init__(network, recording, target, at_head=at_head)
        inputs = [
            tensor if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in recording.head_inputs
        ]
        self.leaves = dict(zip(map(id, recording.head_inputs), inputs, strict=True))
        with torch.enable_grad():
            self.differentiable = self.head.scores(self.head.select(inputs))[0]

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return gradient minus half the Hessian-vector product, (1, C, h, w), of one score at each layer."""
        activations = [self.leaves.get(id(tensor), tensor) for tensor in map(self.factor, layers)]
        gradients = torch.autograd.grad(
            self.differentiable[index], activations, create_graph=True, materialize_grads=True
        )
        return [
            gradient.detach() - 0.5 * hessian_vector_product(gradient, activation)
            for gradient, activation in zip(gradients, activations, strict=True)
        ]


def hessian_vector_product(gradient: Tensor, activation: Tensor) -> Tensor:
    """Return the product of the Hessian and the activation, of its shape, given the gradient with its graph."""
    if not gradient.requires_grad:
        return torch.zeros_like(gradient)
    (product,) = torch.autograd.grad(
        gradient, activation, activation.detach(), retain_graph=True, materialize_grads=True
    )
    return product
