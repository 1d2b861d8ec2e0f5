"""A detector of another kind than YOLOv5: without objectness, without anchors, in twenty lines."""

from typing import ClassVar

import torch
from torch import nn

from explainer.detectors.detector import Layers
from explainer.detectors.predictions import Predictions
from explainer.detectors.white_box import WhiteBox

STRIDE = 8


class PlainNet(nn.Module):
    """Predicts at each cell of 8 pixels one box and the probability of each of two classes."""

    def __init__(self, seed: int = 25):
        super().__init__()
        torch.manual_seed(seed)
        sides = [(3, 6, 2), (6, 8, 2), (8, 8, 2)]
        self.body = nn.Sequential(*(part for i, o, s in sides for part in block(i, o, s)))
        self.head = nn.Conv2d(8, 6, 1)
        nn.init.normal_(self.head.weight, 0, 2)

    def forward(self, images):
        y = self.head(self.body(images)).flatten(2).mT
        rows, columns = (side // STRIDE for side in images.shape[2:])
        cells = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1).to(images)
        centres = (cells + y[..., :2].sigmoid()) * STRIDE
        return torch.cat((centres, y[..., 2:4].exp() * 2 * STRIDE), dim=2), y[..., 4:].sigmoid()


def block(i, o, stride):
    norm = nn.BatchNorm2d(o)
    for tensor in (norm.bias, norm.running_mean):
        nn.init.uniform_(tensor, -0.5, 0.5)
    return nn.Conv2d(i, o, 3, stride, 1, bias=False), norm, nn.ReLU()


class PlainDetector(WhiteBox):
    """Reads the layers of a `PlainNet` before its last convolution."""

    names: ClassVar = {0: "ant", 1: "bee"}
    strides = (STRIDE,)
    stride = STRIDE

    def forward(self, images):
        boxes_xywh, probabilities = self.model(images)
        return Predictions(boxes_xywh, None, probabilities)

    def layers_at(self, place):
        return Layers((("body.8",),) if place.name != "fine+deep" else (("body.2", "body.5", "body.8"),))
