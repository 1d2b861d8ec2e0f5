"""FullGrad adds up gradient times input and gradient times bias of every layer, whatever order blocks run their parts in."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from scenes import confident, confident_detector, picture
from tiny_models import tiny_spec

from explainer.explain import Explainer
from models.yolo import DetectionModel

# The network's input is the picture itself.
PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "max_det": 3, "method": "FullGrad"}
BACKBONE_IN_ORDER = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 1]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [16, 3, 1]],
]
HEAD_IN_ORDER = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    [[-1, 2], 1, "Concat", [1]],
    [-1, 1, "Conv", [8, 3, 1]],
    [[-1, 4], 1, "Detect", ["nc", "anchors"]],
]


def input_tensor():
    return torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255


def scaled(maps):
    """Return the sum of maps (C, h, w) at the input's size, each scaled to 0..1 before."""
    total = np.zeros(PICTURE.shape[:2])
    for one in maps:
        total += cv2.resize((one - one.min()) / (one.max() - one.min() + 1e-7), PICTURE.shape[1::-1])
    return total


def by_definition(detector, entries):
    """Return FullGrad's map, written out with one backward pass and a hook on every layer that has a bias."""
    image, outputs = input_tensor().requires_grad_(), {}
    for name, module in detector.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)) and module.bias is not None:
            # The activation that follows writes in place: it gets a copy.
            module.register_forward_hook(
                lambda module, args, output, name=name: outputs.setdefault(name, output).clone()
            )
    score = score_of(entries, detector(image)[0][0])
    gradients = torch.autograd.grad(score, [image, *outputs.values()])
    total = scaled((image * gradients[0])[0].abs().detach().numpy())
    for name, gradient in zip(outputs, gradients[1:], strict=True):
        module = detector.get_submodule(name)
        bias = module.bias.detach()
        if isinstance(module, torch.nn.BatchNorm2d):
            zeros = torch.zeros(1, len(bias), 1, 1)
            bias = module.eval()(zeros)[0, :, 0, 0].detach()
        total += scaled((bias[:, None, None] * gradient[0]).abs().numpy())
    return (total - total.min()) / (total.max() - total.min())


@pytest.mark.parametrize("fused", [False, True])
def test_the_map_is_that_of_the_definition(fused):
    detector = confident_detector()
    detector = detector.fuse() if fused else detector
    explanation = Explainer(detector, **SETTINGS)(PICTURE)
    expected = by_definition(detector.requires_grad_(), explanation.detections)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=3e-3)


def test_where_blocks_run_in_the_order_of_their_parts_the_map_is_the_library_s():
    def detector():
        torch.manual_seed(0)
        return confident(DetectionModel({**tiny_spec(), "backbone": BACKBONE_IN_ORDER, "head": HEAD_IN_ORDER}).eval())

    explanation = Explainer(detector(), **SETTINGS)(PICTURE)
    cam = pytorch_grad_cam.FullGrad(RawPredictions(detector()), [])
    expected = cam(input_tensor(), targets=[lambda raw: score_of(explanation.detections, raw)])[0]
    np.testing.assert_allclose(explanation.heatmap, expected, atol=3e-3)


def test_the_table_shows_that_all_biases_were_read():
    (entry, *_) = Explainer(confident_detector(), **SETTINGS)(PICTURE).detections
    assert entry.layers == ("biases",)
    assert entry.heatmap.max() == 1
