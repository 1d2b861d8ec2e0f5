"""Models of torchvision: by the name of their builder, from a state dict and its architecture, or as an object.

    fasterrcnn_resnet50_fpn                          torchvision's own weights, downloaded once
    mine.pth and --arch fasterrcnn_resnet50_fpn      weights alone, of any number of classes, in torchvision's architecture
    mine.pth and --arch models.py:build              or in one that a function makes: build(num_classes=...)

A file of weights is data, and read as such; a function that the user names is a program of the user's own.
"""

import re
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from explainer.errors import UsageError, unknown

BUILDER = re.compile(r"(fasterrcnn|maskrcnn|keypointrcnn|retinanet|fcos|ssd|ssdlite)\d*_\w+")
FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<function>\w+)")
# Where programs that train keep the weights, besides at the top of the file.
KEPT_AS = ("model", "state_dict", "model_state_dict", "model_state")
# So many labels the builders have of themselves.
USUAL_LABELS = 91
# Those whose weights were trained by a normalisation that adds nothing to the variance before it divides by it.
WITHOUT_EPSILON = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)


def is_builder(entry) -> bool:
    """Return whether weights are named like a model of torchvision, not like a file."""
    return isinstance(entry, str) and BUILDER.fullmatch(entry) is not None and not Path(entry).exists()


def is_state(entry) -> bool:
    """Return whether weights name a file that usually holds weights alone."""
    return isinstance(entry, (str, Path)) and Path(entry).suffix.lower() == ".pth"


def pyramidal(model) -> type | None:
    """Return the class of detector for a model of torchvision; None for any other."""
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    from explainer.detectors.dense import Dense, PointsWithCentreness, SingleShot
    from explainer.detectors.two_stage import TwoStage

    kinds = {GeneralizedRCNN: TwoStage, RetinaNet: Dense, FCOS: PointsWithCentreness, SSD: SingleShot}
    return next((kind for family, kind in kinds.items() if isinstance(model, family)), None)


def open_builder(name: str):
    """Return a model with torchvision's own weights, downloaded if they are not at hand; UsageError where that fails."""
    import torch
    from torchvision.models import get_model, get_model_weights

    check_builder(name)
    weights = get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    # It says itself that it downloads. No network, no space, or a file that is not what it should be.
    try:
        model = get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"the weights of {name} could not be downloaded ({error}); put {weights.url} at {path}, "
            "or give a file of your own with --arch"
        ) from error
    model.names = weights.meta["categories"] if len(weights.meta["categories"]) != USUAL_LABELS else None
    if model.names:
        model.names = model.names[1:]
    return model


def check_builder(name: str) -> None:
    """Raise UsageError unless torchvision has a detection model of this name."""
    from torchvision.models import detection, list_models

    known = list_models(module=detection)
    if name not in known:
        raise unknown("torchvision model", name, known)


def open_state(path: str | Path, arch: str | None, trust: bool):
    """Return a model with the weights of a file, in an architecture; UsageError for what does not go together.

    arch: the name of a builder of torchvision, or `file.py:function`; None for a file that holds the whole model, which
    is a program and needs `trust`.
    """
    from torch import nn

    from explainer.checkpoints.checkpoint import read_checkpoint

    entries = read_checkpoint(path, trust=trust)
    if isinstance(entries.get("model"), nn.Module):
        return entries["model"]
    state = state_in(entries)
    if state is None:
        raise UsageError(
            f"{path} holds no weights of a model (its entries: {', '.join(map(str, entries))[:120] or 'none'})"
        )
    if arch is None:
        raise UsageError(
            f"{path} holds weights alone (a state_dict); name the model that they belong to: "
            "--arch fasterrcnn_resnet50_fpn, or --arch models.py:function"
        )
    return with_weights(builder_of(arch), state, path, arch)


def state_in(entries: Mapping) -> dict | None:
    """Return the weights in a checkpoint by name, without what DataParallel puts before names; None if it has none."""
    from torch import Tensor

    for content in (entries, *(entries.get(key) for key in KEPT_AS)):
        if isinstance(content, Mapping) and content and all(isinstance(each, Tensor) for each in content.values()):
            return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    return None


def builder_of(arch: str) -> Callable:
    """Return the function that makes a model from num_classes; UsageError where there is none of that name."""
    written = FUNCTION.fullmatch(arch)
    if not written:
        from torchvision.models import get_model

        check_builder(arch)
        return lambda num_classes: get_model(arch, weights=None, weights_backbone=None, num_classes=num_classes)
    path = Path(written["file"])
    if not path.is_file():
        raise UsageError(f"--arch {arch}: '{path}' does not exist")
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    # Whatever a program of the user's own does.
    try:
        spec.loader.exec_module(module)
        return getattr(module, written["function"])
    except Exception as error:
        raise UsageError(f"--arch {arch}: {type(error).__name__}: {error}") from error


def with_weights(build: Callable, state: dict, path: str | Path, arch: str):
    """Return a model of as many classes as the weights have, with these weights; UsageError where they do not fit it."""
    try:
        model = build(num_classes=labels_in(build, state))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--arch {arch} makes no model ({type(error).__name__}: {error})") from error
    if pyramidal(model) is None:
        raise UsageError(f"--arch {arch} makes a {type(model).__name__}, which is no detector of torchvision's kinds")
    freeze_norms(model, state, 0.0 if arch in WITHOUT_EPSILON else None)
    wanted = model.state_dict()
    state = {
        name: tensor for name, tensor in state.items() if name in wanted or not name.endswith("num_batches_tracked")
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"the weights in {path} do not fit --arch {arch}: {reason}") from error
    return model


def labels_in(build: Callable, state: Mapping) -> int:
    """Return how many labels weights are for, with the background: those whose shape depends on it say so.

    They are compared with those of a model of the usual number of labels, which is built without numbers.
    """
    import torch

    with torch.device("meta"):
        usual = build(num_classes=USUAL_LABELS).state_dict()
    others = {
        len(tensor) * USUAL_LABELS / len(usual[name])
        for name, tensor in state.items()
        if name in usual and tensor.ndim and usual[name].ndim and len(tensor) != len(usual[name])
    }
    if len(others) > 1 or any(count != int(count) for count in others):
        raise UsageError("the weights do not fit the model of --arch: their shapes stand for no number of classes")
    return int(others.pop()) if others else USUAL_LABELS


def freeze_norms(model, state: Mapping, epsilon: float | None) -> None:
    """Put normalisations of fixed statistics where the weights know no count of batches: those of fine-tuned models."""
    from torch import nn
    from torchvision.ops.misc import FrozenBatchNorm2d

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and f"{name}.num_batches_tracked" not in state:
            frozen = FrozenBatchNorm2d(module.num_features, module.eps if epsilon is None else epsilon)
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, frozen)
