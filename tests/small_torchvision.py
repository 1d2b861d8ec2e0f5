"""Small models of torchvision's kinds, with random weights that find something in any picture."""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

LABELS = 4
SIDES = {"min_size": 96, "max_size": 128}


def stage(inner: int, outer: int) -> nn.Sequential:
    """Return a stage that halves a map."""
    return nn.Sequential(nn.Conv2d(inner, outer, 3, 2, 1), nn.BatchNorm2d(outer), nn.ReLU())


def body() -> nn.Sequential:
    """Return four stages, called layer0 to layer3."""
    widths = (3, 8, 12, 16, 16)
    stages = [(f"layer{number}", stage(*widths[number : number + 2])) for number in range(4)]
    return nn.Sequential(OrderedDict(stages))


def with_pyramid(width: int = 12) -> BackboneWithFPN:
    """Return a backbone with a pyramid of strides 4, 8, 16 and, pooled, 32, so many channels wide."""
    read = {"layer1": "0", "layer2": "1", "layer3": "2"}
    return BackboneWithFPN(body(), read, [12, 16, 16], width)


class Chain(nn.Module):
    """A backbone as SSD has them: two maps, strides 8 and 16, the second made of the first."""

    out_channels = (16, 16)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(stage(3, 8), stage(8, 12), stage(12, 16)), stage(16, 16)

    def forward(self, images):
        first = self.first(images)
        return OrderedDict([("0", first), ("1", self.second(first))])


def anchors(levels: int) -> AnchorGenerator:
    """Return two anchors for each cell of so many levels."""
    return AnchorGenerator(tuple((16 * 2**level,) for level in range(levels)), ((0.5, 1.0),) * levels)


def two_stage(kind: type, labels: int = LABELS, **parts) -> nn.Module:
    """Return a Faster R-CNN, or one with masks."""
    # Regions of 16 pixels are cut out of the middle map.
    pool = MultiScaleRoIAlign(["0", "1", "2"], 3, 2, canonical_scale=16, canonical_level=3)
    sizes = {"rpn_post_nms_top_n_test": 60, "box_detections_per_img": 30} | SIDES
    return kind(with_pyramid(), labels, rpn_anchor_generator=anchors(4), box_roi_pool=pool, **sizes, **parts)


KINDS = {
    "Faster R-CNN": lambda: two_stage(FasterRCNN),
    "Mask R-CNN": lambda: two_stage(MaskRCNN, mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 6, 2)),
    "RetinaNet": lambda: RetinaNet(with_pyramid(), LABELS, anchor_generator=anchors(4), detections_per_img=30, **SIDES),
    "FCOS": lambda: FCOS(
        # The heads normalise 32 groups of channels.
        with_pyramid(32),
        LABELS,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4),
        detections_per_img=30,
        **SIDES,
    ),
    "SSD": lambda: SSD(Chain(), DefaultBoxGenerator([[2], [2]]), (96, 96), LABELS, detections_per_img=30),
}


def small_model(kind: str, seed: int = 0) -> nn.Module:
    """Return a model in evaluation mode whose confidences differ, as those of a trained one, and never say background."""
    torch.manual_seed(seed)
    model = KINDS[kind]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("cls_logits.bias") and "rpn" not in name:
                parameter.fill_(0).unflatten(0, (-1, LABELS))[:, 0] = -1e3
        last = [
            module for name, module in model.named_modules() if name.endswith(("cls_logits", "cls_score", "bbox_pred"))
        ]
        for module in last:
            module.weight *= 0.3
    return model


def faster_rcnn(num_classes: int) -> nn.Module:
    """Return a new Faster R-CNN of the size of these, for so many labels: an architecture for --arch."""
    return two_stage(FasterRCNN, num_classes)
