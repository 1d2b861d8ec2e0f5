"""Evidence of the methods made for detectors: the gradient of each item by itself, or a gradient and the object's region."""

import torch
from torch import Tensor

from explainer.evidence import Gradients
from explainer.gradients import layer_gradients
from explainer.network import Network, Recording
from explainer.object_targets import BoxesTarget, ItemsTarget


class ItemGradients(Gradients):
    """The gradient of each item of a detection: I of them stand where other evidence has one."""

    def __init__(self, network: Network, recording: Recording, target: ItemsTarget, *, at_head: bool):
        super().__init__(network, recording, target, at_head=at_head)
        self.items = target.items
        self.scores = self.gradients.scores.view(-1, self.items).sum(dim=1)

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the gradients (I, C, h, w) of the items of one detection at each layer."""
        numbers = range(index * self.items, (index + 1) * self.items)
        by_item = [layer_gradients(self.recording, self.gradients.at(number), layers) for number in numbers]
        return [torch.cat(gradients) for gradients in zip(*by_item, strict=True)]


class RegionGradients(Gradients):
    """The gradient of the score, and which cells the detection's box covers."""

    def __init__(self, network: Network, recording: Recording, target: BoxesTarget, *, at_head: bool):
        super().__init__(network, recording, target, at_head=at_head)
        self.boxes_xyxy = target.boxes_xyxy

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the gradient of one score and its region, 1 or 0, as one tensor (2, C, h, w) for each layer.

        Where there is no gradient there is no region either: both are zero.
        """
        size = self.recording.image.shape[2:]
        return [
            torch.cat((gradient, region(self.boxes_xyxy[index], size, gradient) * gradient.any()))
            for gradient in super().at(index, layers)
        ]


def region(box_xyxy: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    """Return a tensor (1, C, h, w) that is 1 at the cells touched by a box in pixels of an input of `size`, 0 elsewhere."""
    x1, y1, x2, y2 = box_xyxy.to(like.device)
    inside = [
        (torch.arange(cells, device=like.device) < high * cells / side)
        & (torch.arange(1, cells + 1, device=like.device) > low * cells / side)
        for cells, side, low, high in zip(like.shape[2:], size, (y1, x1), (y2, x2), strict=True)
    ]
    return (inside[0][:, None] & inside[1]).to(like.dtype).expand_as(like)
