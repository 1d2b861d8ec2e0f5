"""A Faster R-CNN and a RetinaNet of less than a million parameters, put together from torchvision's own parts.

python explainer/explainer.py --weights data/demo/fasterrcnn.pth --arch data/scripts/small_detectors.py:fasterrcnn_small

Both are made for the Evidence set, whose bodies are 50 to 200 pixels wide in scenes of 480. They share a narrow residual
backbone and a feature pyramid over it; their heads, losses and the suppression of doubles are torchvision's. They take
RGB images (3, H, W) in 0..1, enlarge or shrink them to 480 pixels, and number classes from 1 on; 0 is the background.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import MultiScaleRoIAlign

# Channels of the stages, whose strides are 2, 4, 8, 16 and 32, and of each level of the pyramid.
CHANNELS = (16, 32, 48, 64, 80)
PYRAMID_CHANNELS = 64
# Bodies are neither flat nor tall: height by width of the anchors.
ASPECT_RATIOS = (0.7, 1.4)
# Shorter side that images are brought to, and the most the longer one may have then.
MIN_SIZE, MAX_SIZE = 480, 800
ROI_CELLS = 7
HIDDEN = 128


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to what they take: (n, channels, h, w) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return self.relu(features + self.bn2(self.conv2(self.conv1(features))))


def conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with batch normalisation and ReLU; the side shrinks by `stride`."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def small_backbone(first_level: int) -> BackboneWithFPN:
    """Return the backbone with its pyramid: images (n, 3, h, w) to levels of 64 channels, by name.

    first_level: the stage whose stride the finest level has, 3 for 8 pixels or 4 for 16; the others follow up to stage 5,
        and then one of twice its stride.
    """
    stages = OrderedDict(stem=conv_bn_relu(3, CHANNELS[0], stride=2))
    for number, (before, channels) in enumerate(pairwise(CHANNELS), 2):
        stages[f"stage{number}"] = nn.Sequential(conv_bn_relu(before, channels, stride=2), ResidualBlock(channels))
    levels = range(first_level, len(CHANNELS) + 1)
    return BackboneWithFPN(
        nn.Sequential(stages),
        {f"stage{level}": str(index) for index, level in enumerate(levels)},
        [CHANNELS[level - 1] for level in levels],
        PYRAMID_CHANNELS,
    )


def fasterrcnn_small(num_classes: int) -> FasterRCNN:
    """Return a Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) on a pyramid of strides 8, 16, 32 and 64, untrained.

    num_classes: with the background, which is class 0.
    """
    return FasterRCNN(
        small_backbone(first_level=3),
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        rpn_anchor_generator=anchors((48, 68), (96, 136), (192, 272), (384, 544)),
        rpn_pre_nms_top_n_train=400,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=100,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], ROI_CELLS, sampling_ratio=2),
        box_head=TwoMLPHead(PYRAMID_CHANNELS * ROI_CELLS**2, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, num_classes),
        box_batch_size_per_image=32,
        box_positive_fraction=0.5,
    )


def retinanet_small(num_classes: int) -> RetinaNet:
    """Return a RetinaNet (Lin et al. 2017, arXiv:1708.02002) on a pyramid of strides 8, 16, 32 and 64, untrained.

    num_classes: with the background, which is class 0.
    """
    anchor_generator = anchors((48, 68), (96, 136), (192, 272), (384, 544))
    backbone = small_backbone(first_level=3)
    head = RetinaNetHead(
        backbone.out_channels,
        anchor_generator.num_anchors_per_location()[0],
        num_classes,
        norm_layer=partial(nn.GroupNorm, 8),
    )
    return RetinaNet(
        backbone,
        num_classes,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        anchor_generator=anchor_generator,
        head=head,
    )


def anchors(*sizes_of_levels: tuple[int, ...]) -> AnchorGenerator:
    """Return anchors of these sizes, the roots of their areas in pixels, one tuple for each level of the pyramid."""
    return AnchorGenerator(sizes_of_levels, (ASPECT_RATIOS,) * len(sizes_of_levels))
