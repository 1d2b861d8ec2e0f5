"""What checkpoints of the ultralytics package may hold: the modules of its detectors, by name.

That package is imported when a file asks for one of its classes and the caller takes such files, not before.
"""

import argparse
import importlib
import importlib.util
import math
import os
from types import ModuleType

import torch
from torch import nn

from explainer.checkpoints.allowed import Recipe, RefusedNameError, recipe_for_module

PACKAGE = "ultralytics"
TASKS = "ultralytics.nn.tasks"
# The models that find upright boxes of fixed classes; others ask for files and texts while they run.
MODELS = ("DetectionModel", "RTDETRDetectionModel", "SegmentationModel", "PoseModel")
BLOCKS = "ultralytics.nn.modules"
# The first versions had all of them in one file.
BLOCK_MODULES = (BLOCKS, *(f"{BLOCKS}.{part}" for part in ("activation", "block", "conv", "head", "transformer")))
# The settings of a training, in the versions that keep them as an object.
SETTINGS = {("ultralytics.utils", "IterableSimpleNamespace"), ("ultralytics.yolo.utils", "IterableSimpleNamespace")}
# A head of queries wants more cells than this image has of the coarsest.
CELLS_ACROSS = 5


class RefusedPartError(RefusedNameError):
    """The file names something of the ultralytics package that is not on the list, or not there; `advice` goes on."""

    def __init__(self, module: str, name: str, advice: str):
        super().__init__(module, name)
        self.advice = advice


def recipe_of_ultralytics(module: str, name: str) -> Recipe | None:
    """Return the recipe for what a checkpoint calls `module`.`name`; None for a name of another package.

    Raises:
        RefusedPartError: for a name of that package that is not on the list, or without the package.
    """
    if module.partition(".")[0] != PACKAGE:
        return None
    if (module, name) in SETTINGS:
        return Recipe(argparse.Namespace)
    listed = name in MODELS if module == TASKS else module in BLOCK_MODULES
    if listed and importlib.util.find_spec(PACKAGE) is None:
        raise RefusedPartError(module, name, "it was saved by the ultralytics package; pip install ultralytics")
    cls = vars(_imported(module)).get(name) if listed else None
    if not isinstance(cls, type) or not issubclass(cls, nn.Module) or not cls.__module__.startswith(module):
        raise RefusedPartError(
            module,
            name,
            "no detector that can be explained is made of it in the installed ultralytics package; update that, or "
            "--trust (trust=True) unpickles fully, for files you made yourself",
        )
    return recipe_for_module(cls)


def _imported(module: str) -> ModuleType:
    """Import a module of that package, which else installs what it misses, at a damaged image say, from the network."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    return importlib.import_module(module)


def is_of_ultralytics(model: nn.Module) -> bool:
    """Return whether a model is one of the ultralytics package."""
    return any(kind.__module__ == TASKS for kind in type(model).__mro__)


def largest_stride(model: nn.Module) -> float:
    """Return the largest stride of a model of that package, or nan where it has none."""
    return float(max((float(stride) for stride in torch.as_tensor(model.stride).flatten()), default=math.nan))
