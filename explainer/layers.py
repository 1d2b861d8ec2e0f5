"""Which layers a map is read from: names, indices, and the rule behind `auto`.

A layer is known by its dotted name in the model, such as `model.17` or `model.23.cv3.act`.
"""

from torch import nn

from explainer.errors import UsageError, unknown
from explainer.fullgrad import layers_with_bias
from explainer.network import PREDICTIONS, Network, head_sources
from explainer.structure import ancestors


def layers_by_level(network: Network, requested: tuple, reads: str) -> list[tuple[str, ...]]:
    """Return, for each head input, the names of the layers that its detections are read from.

    `requested` is ("auto",) or indices and names; `reads` is the method's wish, "head", "neck", "both", "biases" or
    "predictions".
    """
    if reads == PREDICTIONS:
        return [(PREDICTIONS,)] * len(network.levels)
    if reads == "biases":
        return [layers_with_bias(network)] * len(network.levels)
    found = []
    for prefix, member in network.members.items():
        if requested == ("auto",):
            layers = auto_layers(member, reads)
        else:
            layers = [tuple(dict.fromkeys(layer_name(member, entry) for entry in requested))] * len(member.model[-1].f)
        found += [tuple(prefix + name for name in names) for names in layers]
    return found


def auto_layers(model: nn.Module, reads: str) -> list[tuple[str, ...]]:
    """Return the names of the layers that `auto` reads for each stride of the head; see `auto_indices`."""
    places = ("neck", "head") if reads == "both" else (reads,)
    by_place = [auto_indices(model, place) for place in places]
    return [tuple(dict.fromkeys(f"model.{index}" for index in indices)) for indices in zip(*by_place, strict=True)]


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
    return "auto", f"0..{count - 2}", f"-{count}..-2", f"module names such as model.{count - 2}"


def head_refused(model: nn.Module, entry: int | str) -> UsageError:
    """Return the error for a layer that is the head itself, or a part of it."""
    sources = " ".join(map(str, head_sources(model)))
    return UsageError(f"layer '{entry}' is the Detect head itself, which has no map; its inputs are --layer {sources}")


def auto_indices(model: nn.Module, reads: str) -> list[int]:
    """Return the index of the layer that `auto` reads for each stride of the head.

    Methods that pool the gradient read a detection at the input of its own stride, and take the gradient that the head
    gives that input. Methods that go cell by cell need a layer whose gradient is spread out: the block that first fuses
    the neck's upsampled features with the backbone's, where the detection's stride depends on it; the end of the backbone
    where it does not (YOLOv3's coarsest stride, feature pyramids without a way back down).
    """
    sources = head_sources(model)
    if reads == "head":
        return sources
    candidates = [index for index in (first_fusion(model), backbone_end(model)) if index not in (None, *sources)]
    return [next((c for c in candidates if c in ancestors(model, source)), source) for source in sources]


def first_fusion(model: nn.Module) -> int | None:
    """Return the index of the block that follows the first concatenation of the numbered layers, if there is one."""
    for index, layer in enumerate(model.model):
        if type(layer).__name__ == "Concat":
            return index + 1
    return None


def backbone_end(model: nn.Module) -> int:
    """Return the index of the last layer of the backbone."""
    return len(model.yaml["backbone"]) - 1
