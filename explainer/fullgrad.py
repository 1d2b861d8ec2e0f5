"""The evidence of FullGrad: the gradient at the output of every layer that adds a bias, and at the image."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from explainer.evidence import Gradients
from explainer.gradients import DenseHead, layer_gradients
from explainer.heads import Target, WholeHead
from explainer.network import IMAGE, Network, Recording


class BiasGradients(Gradients):
    """The gradient at the image and behind every bias, those of the head's convolutions included.

    Layers are known by name, so the order in which a block runs its parts does not matter.
    """

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        self.network, self.recording = network, recording
        self.at_outputs: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for name in head_convolutions(network):
                stack.enter_context(network.record_layer(name, self.at_outputs, with_graph=True))
            self.gradients = DenseHead(WholeHead(network, recording.head_inputs, target), recording.head_inputs)
        self.scores = self.gradients.scores

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the gradient (1, C, h, w) of one score at each layer."""
        below = tuple(name for name in layers if name not in self.at_outputs)
        found = dict(zip(below, layer_gradients(self.recording, self.gradients.at(index), below), strict=True))
        in_head = torch.autograd.grad(
            self.gradients.graph[index], list(self.at_outputs.values()), retain_graph=True, materialize_grads=True
        )
        found |= zip(self.at_outputs, in_head, strict=True)
        return [found[name] for name in layers]

    def factor(self, layer: str) -> Tensor:
        """Return the bias (1, C, 1, 1) that a layer adds, or the image (1, 3, h, w)."""
        if layer == IMAGE:
            return self.recording.image
        return bias_of(self.network.model.get_submodule(layer)).reshape(1, -1, 1, 1)


def bias_of(module: nn.Module) -> Tensor:
    """Return the bias (C,) that a convolution, or a normalisation by fixed statistics, adds to a multiple of its input."""
    if isinstance(module, nn.BatchNorm2d):
        scale = module.weight / torch.sqrt(module.running_var + module.eps)
        return module.bias - module.running_mean * scale
    return module.bias


def layers_with_bias(network: Network) -> tuple[str, ...]:
    """Return the image and the names of all layers that add a bias to something the scores depend on."""
    names = [IMAGE]
    for prefix, member in network.members.items():
        head = f"model.{len(member.model) - 1}."
        names += [
            prefix + name for name, module in member.named_modules() if adds_bias(module) and not name.startswith(head)
        ]
    return (*names, *head_convolutions(network))


def head_convolutions(network: Network) -> list[str]:
    """Return the names of the convolutions by which the heads predict, where they are plain ones with a bias."""
    return [
        f"{prefix}model.{len(member.model) - 1}.m.{index}"
        for prefix, member in network.members.items()
        for index, module in enumerate(member.model[-1].m)
        if adds_bias(module)
    ]


def adds_bias(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a normalisation with a bias for each channel."""
    return isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and module.bias is not None
