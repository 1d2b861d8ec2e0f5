"""Load weights for detection: one model, or several as one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from explainer.checkpoints.checkpoint import load_model
from explainer.checkpoints.repair import is_head
from utils.base.downloads import attempt_download

INPLACE_ACTIVATIONS = (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)


class Ensemble(nn.ModuleList):
    """Detection models whose predictions for an image are put together, for one non-maximum suppression over all.

    Attributes: those of `attempt_load`.
    """

    def forward(self, x: Tensor, augment: bool = False, profile: bool = False, visualize: bool = False):
        """Return (predictions (B, rows of all models, 5 + classes), None) for images `x` (B, 3, h, w), 0..1."""
        predictions = [model(x, augment, profile, visualize)[0] for model in self]
        return torch.cat(predictions, dim=1), None


def attempt_load(
    weights: str | Path | list[str | Path],
    device: torch.device | str | None = None,
    inplace: bool = True,
    fuse: bool = True,
    *,
    trust: bool = False,
) -> nn.Module:
    """Load one model, or an `Ensemble` of several, in float32 and evaluation mode.

    Args:
        weights: paths or official names; a missing official one is downloaded.
        device: where to put the model; by default the CPU.
        inplace: whether activations and heads may write in place.
        fuse: merge each convolution with its normalisation, which is faster and changes numbers only by rounding.
        trust: unpickle whatever the files say, which can run any program: for files you made yourself.

    Returns:
        A model with the attributes names (dictionary by class index), nc, yaml and stride (float32); an ensemble has
        those of its first model, and the largest stride.

    Raises:
        ValueError: for a file that is no checkpoint, or models with different numbers of classes.
        FileNotFoundError, OSError: for weights that do not exist, or cannot be downloaded.
    """
    paths = weights if isinstance(weights, (list, tuple)) else [weights]
    # Tensors made under inference mode would refuse gradients for good.
    with torch.inference_mode(False):
        models = [_load_one(path, device, fuse, trust) for path in paths]
        for module in (module for model in models for module in model.modules()):
            if isinstance(module, INPLACE_ACTIVATIONS) or is_head(module) or hasattr(module, "yaml"):
                module.inplace = inplace
    return models[0] if len(models) == 1 else _join(models, paths)


def _load_one(path: str | Path, device: torch.device | str | None, fuse: bool, trust: bool) -> nn.Module:
    return load_model(attempt_download(path), trust=trust, fuse=fuse).to(device or "cpu")


def _join(models: list[nn.Module], paths: list[str | Path]) -> Ensemble:
    """Return several models as one."""
    counts = [model.nc for model in models]
    if len(set(counts)) != 1:
        found = ", ".join(f"{path} {count}" for path, count in zip(paths, counts, strict=True))
        raise ValueError(f"models with different numbers of classes cannot detect together ({found}); give one of them")
    ensemble = Ensemble(models).eval()
    for name in ("names", "nc", "yaml"):
        setattr(ensemble, name, getattr(models[0], name))
    ensemble.stride = max((model.stride for model in models), key=lambda stride: stride.max())
    return ensemble
