"""Which layers a map is read from, by the names, indices and places that users write.

A layer is known by its dotted name in the model, such as `model.17` or `model.23.cv3.act`.
"""

from torch import nn

from explainer.errors import UsageError, unknown
from explainer.fullgrad import layers_with_bias
from explainer.methods import PLACES
from explainer.network import PREDICTIONS, Network, head_sources
from explainer.places import RULES


def place_of(requested: tuple, reads: str) -> str | None:
    """Return the name of the place that is asked for, the method's own wish for `auto`; None where layers are named."""
    place = reads if requested == ("auto",) else requested[0]
    return place if place in PLACES else None


def layers_by_level(network: Network, requested: tuple, reads: str) -> list[tuple[str, ...]]:
    """Return, for each head input, the names of the layers that its detections are read from.

    `requested` is ("auto",), a place, or indices and names; `reads` is the method's wish: a place, "biases" or "predictions".
    """
    if reads == PREDICTIONS:
        return [(PREDICTIONS,)] * len(network.levels)
    if reads == "biases":
        return [layers_with_bias(network)] * len(network.levels)
    place, found = place_of(requested, reads), []
    for prefix, member in network.members.items():
        if place:
            layers = [tuple(f"model.{index}" for index in indices) for indices in RULES[place](member)]
        else:
            layers = [tuple(dict.fromkeys(layer_name(member, entry) for entry in requested))] * len(member.model[-1].f)
        found += [tuple(prefix + name for name in names) for names in layers]
    return found


def layer_name(model: nn.Module, entry: int | str) -> str:
    """Return the dotted name of the layer given as an index, a dotted name or a name with underscores."""
    if isinstance(entry, int):
        return indexed_layer(model, entry)
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name.startswith("model.")]
    by_spelling = {name.replace(".", "_"): name for name in names} | {name: name for name in names}
    if entry not in by_spelling:
        raise unknown("layer", entry, usable_layers(model))
    name = by_spelling[entry]
    if int(name.split(".")[1]) == len(model.model) - 1:
        raise head_refused(model, entry)
    return name


def indexed_layer(model: nn.Module, index: int) -> str:
    """Return the dotted name of a numbered layer; negative indices count from the head, as in a Python list."""
    count = len(model.model)
    if not -count <= index < count:
        raise unknown("layer", index, usable_layers(model))
    if index % count == count - 1:
        raise head_refused(model, index)
    return f"model.{index % count}"


def usable_layers(model: nn.Module) -> tuple[str, ...]:
    """Return how a layer below the head can be named, for a message."""
    count = len(model.model)
    return "auto", *PLACES, f"0..{count - 2}", f"-{count}..-2", f"module names such as model.{count - 2}"


def head_refused(model: nn.Module, entry: int | str) -> UsageError:
    """Return the error for a layer that is the head itself, or a part of it."""
    sources = " ".join(map(str, head_sources(model)))
    return UsageError(f"layer '{entry}' is the Detect head itself, which has no map; its inputs are --layer {sources}")
