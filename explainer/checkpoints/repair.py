"""Bring a model that an older YOLOv5 saved up to what the present one expects."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def repair(model: nn.Module) -> nn.Module:
    """Return the model itself in float32 and evaluation mode, with what its version did not have yet filled in.

    Afterwards every detection model has `nc` classes, `names` (a dictionary by class index), `stride` (float32, one for
    each scale) and `inplace`, and its head starts with empty grids.
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
    model.nc = getattr(model, "nc", None) or _count_classes(model, heads)
    model.names = names_by_index(getattr(model, "names", None), model.nc)
    if not hasattr(model, "stride"):
        model.stride = heads[-1].stride if heads else torch.tensor([32.0])
    model.stride = torch.as_tensor(model.stride).float()
    return model


def is_head(module: nn.Module) -> bool:
    """Whether this is a Detect head or one derived from it."""
    return "anchors" in module._buffers and hasattr(module, "nl")


def names_by_index(names: dict | Sequence[str] | None, count: int) -> dict[int, str]:
    """Return class names by index; those of a model without names are class0, class1, ..."""
    if names is None:
        return {index: f"class{index}" for index in range(count)}
    return dict(names) if isinstance(names, dict) else dict(enumerate(names))


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
    image = torch.zeros(1, getattr(model, "yaml", {}).get("ch", 3), size, size)
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


def _count_classes(model: nn.Module, heads: list[nn.Module]) -> int:
    """Return how many classes a model knows."""
    if heads:
        return heads[-1].nc
    last_linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    return last_linear[0].out_features if last_linear else 0
