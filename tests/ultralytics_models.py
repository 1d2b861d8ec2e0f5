"""Models of the ultralytics package with seeded weights, which are sure of some boxes in a picture."""

from functools import partial

import numpy as np
import pytest
import torch
from scenes import picture
from torch import Tensor, nn

# What the models are made for; what they find in another picture may be of any size.
PICTURE = picture(96, 160)


def ultralytics_model(name: str = "yolov8n", *, end_to_end: bool = False, seed: int = 0, classes: int = 5) -> nn.Module:
    """Return the model that one of the package's YAMLs describes, in eval mode; skips where the package is not there.

    Its normalisation is set by `PICTURE`, so that predictions differ from cell to cell as those of a trained one do.
    """
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="needs the ultralytics package: pip install ultralytics")
    kind = tasks.RTDETRDetectionModel if name.startswith("rtdetr") else tasks.DetectionModel
    kind = tasks.SegmentationModel if name.endswith("-seg") else kind
    torch.manual_seed(seed)
    model = kind(f"{name}.yaml", nc=classes, verbose=False).eval()
    model.names = {index: f"kind{index}" for index in range(classes)}
    if end_to_end:
        model.end2end = True
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None] / np.float32(255))
    set_by(model, image)
    if name.startswith("rtdetr"):
        make_queries_sure(model.model[-1])
    else:
        make_cells_sure(model, image)
    return model


@torch.no_grad()
def set_by(model: nn.Module, image: Tensor) -> None:
    """Take the statistics of all normalisations from an image."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(image)
    for norm in norms:
        norm.eval()


@torch.no_grad()
def make_cells_sure(model: nn.Module, image: Tensor) -> None:
    """Have a Detect head predict classes, sides and masks, each with a spread and a middle over the cells of an image."""
    head, handles = model.model[-1], []
    names = ["cv2", "cv3", *(["cv4"] if hasattr(head, "proto") else [])]
    prefixes = ["", *(["one2one_"] if hasattr(head, "one2one_cv2") else [])]
    pairs = [[getattr(head, prefix + name) for name in names] for prefix in prefixes]
    for boxes, classes, *coefficients in pairs:
        masks = [(each, 0.3, 0.0) for each in coefficients]
        for branches, spread, middle in ((boxes, 0.3, 1.0), (classes, 1.0, -1.5), *masks):
            handles += [
                branch[-1].register_forward_hook(partial(spread_out, spread=spread, middle=middle))
                for branch in branches
            ]
    model(image)
    for handle in handles:
        handle.remove()


def spread_out(layer: nn.Conv2d, args: tuple, output: Tensor, *, spread: float, middle: float) -> None:
    """Scale a convolution so that each of its channels has this spread and this middle."""
    layer.weight.normal_()
    plain = nn.functional.conv2d(args[0], layer.weight)
    factor = spread / plain.std(dim=(0, 2, 3)).clamp(min=1e-3)
    layer.weight.mul_(factor[:, None, None, None])
    layer.bias.copy_(middle - plain.mean(dim=(0, 2, 3)) * factor)


@torch.no_grad()
def make_queries_sure(head: nn.Module) -> None:
    """Have an RT-DETR decoder predict classes and boxes that differ from query to query."""
    for classes in (head.enc_score_head, *head.dec_score_head):
        classes.weight.normal_(0, 0.07)
        classes.bias.fill_(-1)
    for boxes in (head.enc_bbox_head, *head.dec_bbox_head):
        boxes.layers[-1].weight.normal_(0, 0.05)
