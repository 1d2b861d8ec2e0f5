"""Bring a model that an older YOLOv5 saved up to what the present one expects.

What a model is made of is looked at first: a small file can describe one that fills the memory, or that takes for ever.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor, nn

from explainer.checkpoints.allowed import RefusedError
from explainer.checkpoints.ultralytics import CELLS_ACROSS, is_of_ultralytics, largest_stride
from explainer.errors import printable

# The largest models of YOLOv5 have a thousand modules, six inside each other.
MOST_MODULES, MOST_NESTED = 100_000, 100
# Numbers in tensors beyond one for each byte of the file.
SPARE_NUMBERS = 1 << 26
# Of the name of a class, in characters.
LONGEST_NAME = 500
MOST_CLASSES = 100_000
# The channels of an image.
MOST_CHANNELS = 1024
# What layers of torch.nn do to the sides of a map, and by how many cells, or how many times, at most.
SPATIAL = ("kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "size", "scale_factor")
SPATIAL += ("upscale_factor", "downscale_factor")
FARTHEST, LARGEST_SCALE = 1024, 64
LARGEST_STRIDE = 1024


def check_modules(model: nn.Module, file_size: int) -> None:
    """Raise RefusedError for modules that hold more than a file of so many bytes can, or each other.

    One that is shared counts as often as a pass over the modules meets it, and so do its numbers: in half precision one
    tensor in a thousand places becomes a thousand tensors.
    """
    # Of each module: how many modules there are in it, itself included, and how many numbers.
    totals: dict[int, tuple[int, int]] = {}
    around: set[int] = set()
    waiting = [(model, False)]
    while waiting:
        module, is_done = waiting.pop()
        key, inner = id(module), [each for each in module._modules.values() if each is not None]
        if is_done:
            around.remove(key)
            modules = 1 + sum(totals[id(each)][0] for each in inner)
            numbers = _own_numbers(module) + sum(totals[id(each)][1] for each in inner)
            if modules > MOST_MODULES or numbers > file_size + SPARE_NUMBERS:
                raise RefusedError(f"describes {modules} modules with {numbers} numbers in {file_size} bytes")
            totals[key] = modules, numbers
        elif key not in totals:
            if key in around or len(around) > MOST_NESTED:
                raise RefusedError("holds modules inside each other without end")
            _check_tables(module)
            around.add(key)
            waiting += [(module, True), *((each, False) for each in inner)]


def _own_numbers(module: nn.Module) -> int:
    """Return how many numbers are in the tensors of a module itself."""
    tensors = [*module._parameters.values(), *module._buffers.values()]
    return sum(tensor.numel() for tensor in tensors if tensor is not None)


def _check_tables(module: nn.Module) -> None:
    """Raise RefusedError for a module with something else in its tables than what belongs there."""
    for name in SPATIAL if type(module).__module__.startswith("torch.nn.") else ():
        most = LARGEST_SCALE if name.endswith("factor") else FARTHEST
        for number in _numbers(vars(module).get(name)):
            if not abs(number) <= most:
                raise RefusedError(f"has a {type(module).__name__} with a {name} of {number}")
    for table, kind in (("_modules", nn.Module), ("_parameters", Tensor), ("_buffers", Tensor)):
        for name, value in getattr(module, table).items():
            if type(name) is not str or not isinstance(value, (kind, type(None))):
                raise RefusedError(f"has a {type(value).__name__} among the {table[1:]} of a {type(module).__name__}")


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers of an option of a layer, which is one, or a tuple or list of some."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _numbers(entry)


def check_layers(model: nn.Module) -> None:
    """Raise RefusedError for a model of YOLOv5's kinds without layers; a module of another kind has what it has."""
    if hasattr(type(model), "fuse") and not isinstance(model._modules.get("model"), nn.Sequential):
        raise RefusedError("has no layers")


def try_out(model: nn.Module) -> None:
    """Have a model read one black image, so that one that cannot is told while the file is known that it came from.

    Raises:
        RefusedError, or whatever torch raises, for a detection model that does not work; others are not tried.
    """
    layers = model._modules.get("model")
    if is_of_ultralytics(model):
        _check_numbering(layers)
        _check_strides([largest_stride(model)])
        side = CELLS_ACROSS * int(largest_stride(model))
        model(torch.zeros(1, 3, side, side))
        return
    if not isinstance(layers, nn.Sequential) or not len(layers) or not is_head(layers[-1]):
        return
    head, channels = layers[-1], image_channels(model)
    _check_numbering(layers)
    strides = [float(stride) for stride in head.stride]
    if len(strides) != head.nl:
        raise RefusedError(f"has a head of {head.nl} levels with {len(strides)} strides")
    # Scripts read the model's own, which can be the largest alone.
    _check_strides([*strides, float(model.stride.max())])
    side = 2 * int(max(strides))
    output = model(torch.zeros(1, channels, side, side))
    _reset_grids(head)
    predictions = output[0] if isinstance(output, (tuple, list)) else output
    columns = 5 + head.nc + getattr(head, "nm", 0)
    if not isinstance(predictions, Tensor) or predictions.ndim != 3 or predictions.shape[2] != columns:
        raise RefusedError(f"gives predictions that have not {columns} columns for its {head.nc} classes")
    if not predictions.isfinite().all():
        raise RefusedError("predicts NaN or infinity, as after a training that diverged")


def _check_strides(strides: list[float]) -> None:
    """Raise RefusedError for a stride that no network has."""
    for stride in strides:
        if not (math.isfinite(stride) and 1 <= stride <= LARGEST_STRIDE):
            raise RefusedError(f"has a stride of {stride}")


def _check_numbering(layers: nn.Sequential) -> None:
    """Raise RefusedError for numbered layers that say another place, or that read what does not come before them."""
    for index, layer in enumerate(layers):
        sources = getattr(layer, "f", -1)
        sources = sources if isinstance(sources, (list, tuple)) else [sources]
        if getattr(layer, "i", index) != index:
            raise RefusedError(f"has a layer {index} that does not know its place")
        if not all(type(source) is int and -max(index, 1) <= source < max(index, 1) for source in sources):
            raise RefusedError(f"has a layer {index} that reads layers which do not come before it")


def repair(model: nn.Module, called: str = "the model") -> nn.Module:
    """Return the model itself in float32 and evaluation mode, with what its version did not have yet filled in.

    Afterwards every detection model has `nc` classes, `names` (texts by class index, one for each class), `stride`
    (float32, one for each scale) and `inplace`, and its head starts with empty grids. called: what messages call it.
    """
    for module in model.modules():
        _fill_missing(module)
    heads = [module for module in model.modules() if is_head(module)]
    for head in heads:
        _reset_grids(head)
    # The grids come first: float() goes through them.
    model.float().eval()
    for head in heads:
        _repair_strides(model, head)
    model.nc = count_classes(model)
    if type(model.nc) is not int or not 0 <= model.nc <= MOST_CLASSES:
        raise RefusedError(f"has {str(model.nc)[:20]} classes")
    given = getattr(model, "names", None)
    if isinstance(given, Sized) and len(given) > MOST_CLASSES:
        raise RefusedError(f"names {len(given)} classes")
    model.names = names_by_index(given, model.nc)
    _say_mended(given, model.names, called)
    if not hasattr(model, "stride"):
        model.stride = heads[-1].stride if heads else torch.tensor([32.0])
    model.stride = torch.as_tensor(model.stride).float()
    return model


def is_head(module: nn.Module) -> bool:
    """Whether this is a Detect head or one derived from it."""
    return "anchors" in module._buffers and hasattr(module, "nl")


def names_by_index(names: object, count: int) -> dict[int, str]:
    """Return the names of `count` classes by index, 0 to count - 1, whatever was given as names.

    Names of further classes are left out; a class without one is called class0, class1, ...

    >>> names_by_index({1: "cat", 2: None, 3: 8}, 3)
    {0: 'cat', 1: 'class1', 2: '8'}
    """
    known = indexed_names(names, count)
    return {index: known.get(index, f"class{index}") for index in range(count)}


def indexed_names(names: object, count: int) -> dict[int, str]:
    """Return the class names that are there, as text by index from 0 on.

    names: a dictionary by number or by the text of one, also numbered from 1 to `count`, or a list, or one text. YAML
    makes numbers, truth values (`yes`, `no`) and None of some names; a name that is None or blank is none. Names end up in
    lines of a terminal, in tables and in file names, so that escape codes in them are spelled out, and long ones cut.
    """
    pairs = names.items() if isinstance(names, Mapping) else enumerate(_as_sequence(names))
    known = {_as_index(key): _as_text(name) for key, name in pairs if name is not None and str(name).strip()}
    known.pop(None, None)
    from_one = isinstance(names, Mapping) and count in known and min(known) == 1
    return {index - 1: name for index, name in known.items()} if from_one else known


def _as_sequence(names: object) -> list | tuple:
    """Return names that are no dictionary as a sequence; an empty one for what cannot be names."""
    if isinstance(names, str):
        return (names,)
    return names if isinstance(names, (list, tuple)) else ()


def _as_text(name: object) -> str:
    """Return a name in one line that can be drawn."""
    text = printable(str(name))
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _as_index(key: object) -> int | None:
    """Return the class index that a key says, None for one that says none."""
    if isinstance(key, str) and key.strip().isdecimal():
        return int(key)
    return int(key) if isinstance(key, (int, float)) and key == key // 1 >= 0 else None


def _say_mended(given: object, names: dict[int, str], called: str) -> None:
    """Log where the names that a model brings are not one for each class, numbered from 0."""
    if given is None:
        return
    known, count = indexed_names(given, len(names)), len(names)
    missing, further = sum(index not in known for index in names), sum(index not in names for index in known)
    words = []
    if missing:
        words.append(f"{missing} of its {count} classes have no name and are called by their number (class{count - 1})")
    if further:
        words.append(f"{further} names are left out, for it has {count} classes alone")
    if isinstance(given, Mapping) and 0 in known and not any(_as_index(key) == 0 for key in given):
        words.append("its class names are numbered from 1 and were taken as from 0")
    if words:
        # Under its name both this tree's and stock YOLOv5's logger are found.
        logging.getLogger("yolov5").warning("WARNING: %s: %s", called, "; ".join(words))


def _fill_missing(module: nn.Module) -> None:
    """Give a module the attributes that its class got after it was saved."""
    if "inplace" in getattr(type(module), "__constants__", ()) and not hasattr(module, "inplace"):
        module.inplace = False
    if is_head(module) or hasattr(module, "yaml"):
        module.inplace = getattr(module, "inplace", True)
    if isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
        module.recompute_scale_factor = None


def _reset_grids(head: nn.Module) -> None:
    """Make both grids lists of empty tensors, which the next forward pass fills: up to v5.0 one of them was a buffer."""
    for name in ("grid", "anchor_grid"):
        head._buffers.pop(name, None)
        setattr(head, name, [torch.empty(0) for _ in range(head.nl)])


def _repair_strides(model: nn.Module, head: nn.Module) -> None:
    """Make `head.stride` a float32 tensor; measured where the file does not have it."""
    stride = getattr(head, "stride", None)
    head.stride = measure_strides(model, head) if stride is None else torch.as_tensor(stride).float()


def measure_strides(model: nn.Module, head: nn.Module, size: int = 256) -> Tensor:
    """Return the strides of a head, (scales,) float32: a square of `size` pixels by what the head makes of it."""
    image = torch.zeros(1, image_channels(model), size, size)
    # In training mode the head alone returns its maps, and no batch statistics change.
    head.training = True
    try:
        with torch.no_grad():
            output = model(image)
    finally:
        head.training = False
    # A segmentation head returns prototypes beside its maps.
    maps = output[0] if isinstance(output, tuple) else output
    return torch.tensor([size / each.shape[2] for each in maps])


def image_channels(model: nn.Module) -> int:
    """Return how many channels the images have that a model takes."""
    channels = getattr(model, "yaml", {}).get("ch", 3)
    if type(channels) is not int or not 0 < channels <= MOST_CHANNELS:
        raise RefusedError(f"takes images of {str(channels)[:20]} channels")
    return channels


def count_classes(model: nn.Module) -> int:
    """Return how many classes a model tells apart: what its head says, whatever it says itself."""
    heads = [module for module in model.modules() if is_head(module)]
    if heads:
        return heads[-1].nc
    if is_of_ultralytics(model):
        return model.model[-1].nc
    if getattr(model, "nc", None):
        return model.nc
    last_linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    return last_linear[0].out_features if last_linear else 0
