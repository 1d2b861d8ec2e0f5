"""Detectors small enough to build in every test, of what every YOLOv5 checkout has."""

import torch
from torch import nn

from models.yolo import DetectionModel

ANCHORS = [[10, 13, 16, 30], [30, 61, 62, 45]]


def tiny_spec(head: str = "Detect", **changes) -> dict:
    """Return the description of a two-level network (strides 4 and 8) with 3 classes."""
    args = ["nc", "anchors"] if head == "Detect" else ["nc", "anchors", 4, 8]
    return {
        "nc": 3,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": [list(level) for level in ANCHORS],
        "backbone": [
            [-1, 1, "Conv", [8, 3, 2]],
            [-1, 1, "Conv", [8, 3, 2]],
            [-1, 2, "C3", [8]],
            [-1, 1, "Conv", [16, 3, 2]],
            [-1, 1, "SPPF", [16, 5]],
        ],
        "head": [
            [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
            [[-1, 2], 1, "Concat", [1]],
            [-1, 1, "C3", [8, False]],
            [[-1, 4], 1, head, args],
        ],
        **changes,
    }


def tiny_detector(seed: int = 0, **changes) -> DetectionModel:
    """Return a tiny detector in eval mode whose BatchNorms do something."""
    return tiny(DetectionModel, seed, tiny_spec(**changes))


def tiny_segmenter(seed: int = 0) -> DetectionModel:
    """Return a tiny detector with masks, as `tiny_detector`."""
    return tiny(DetectionModel, seed, tiny_spec("Segment"))


def tiny(kind: type[nn.Module], seed: int, spec: dict) -> nn.Module:
    """Return a model of a kind in eval mode whose BatchNorms do something."""
    torch.manual_seed(seed)
    model = kind(spec)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return model.eval()
