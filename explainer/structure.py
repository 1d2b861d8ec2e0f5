"""Which numbered layers of a network depend on which, and how large their cells are."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from explainer.network import Network, borrowed, input_indices


def ancestors(model: nn.Module, index: int) -> set[int]:
    """Return the indices of all layers that the layer at `index` depends on, itself included."""
    found, todo = set(), [index]
    while todo:
        current = todo.pop()
        if current < 0 or current in found:
            continue
        found.add(current)
        todo += input_indices(model, current)
    return found


def dependents(model: nn.Module, index: int) -> set[int]:
    """Return the indices of all layers that depend on the layer at `index`, itself not included."""
    found = {index}
    for later in range(index + 1, len(model.model)):
        if found.intersection(input_indices(model, later)):
            found.add(later)
    return found - {index}


@torch.no_grad()
def cell_sizes(model: nn.Module) -> dict[int, float]:
    """Return the input's pixels per cell of each numbered layer that gives a map, as seen in one pass of a black image."""
    network, sizes = Network(model), {}
    side = 2 * network.stride

    def look(index: int):
        def measure(layer, args, output):
            if isinstance(output, Tensor) and output.ndim == 4:
                sizes[index] = side / output.shape[3]

        return measure

    with ExitStack() as stack, borrowed(network):
        for index, layer in enumerate(model.model):
            stack.callback(layer.register_forward_hook(look(index)).remove)
        network.predict(network.weight.new_zeros(1, 3, side, side))
    return sizes
