"""Which numbered layers of a network depend on which."""

from torch import nn

from explainer.network import input_indices


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
