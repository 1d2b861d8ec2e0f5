"""RetinaNet, FCOS, SSD and SSDlite: each cell of the pyramid predicts, from the cells around it.

A prediction is an anchor, or a point, of one cell. The heads are a few convolutions, so that it depends on a window of cells
around its own: that window alone is run again. Where a head also looks at the whole map, as group normalisation does, the
whole head is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from explainer.detectors.detector import FINE_AND_DEEP, Layers, Place
from explainer.detectors.local import Found, Local, PyramidRecording, Windows, looks_at_all, reach
from explainer.detectors.predictions import Predictions
from explainer.detectors.pyramid import Pyramidal, corners_to_centres


class Dense(Pyramidal):
    """A torchvision model with a `head` that reads each map of the pyramid by itself."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.anchors_per_cell = tuple(self.model.anchor_generator.num_anchors_per_location())
        # Whether windows give what the whole maps give; None until it was looked at.
        self._windows_are_exact = False if any(map(looks_at_all, self.model.head.modules())) else None

    def count_labels(self) -> int:
        """Return how many labels the head knows, with the background."""
        return self.model.head.classification_head.num_classes

    def head_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that the head is run by."""
        return (self.model.head,)

    def head_at(self, level: int, maps: Tensor) -> dict[str, Tensor]:
        """Return what the head makes of one map of the pyramid (B, C, h, w): (B, h w A, ...) by name."""
        return self.model.head([maps])

    def radius(self, level: int) -> int:
        """Return how many cells around its own a prediction of a level depends on."""
        head = self.model.head
        return max(reach(head.classification_head), reach(head.regression_head))

    def read(self, outputs: dict[str, Tensor], origins: Tensor) -> Predictions:
        """Return the predictions (..., M) of the head's outputs (..., M, columns) at anchors (M, 4)."""
        probabilities = self.probabilities(outputs["cls_logits"].float())[..., self.labels.to(origins.device)]
        boxes = self.boxes(outputs["bbox_regression"].float(), origins)
        return Predictions(corners_to_centres(boxes), self.certainty(outputs), probabilities)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the labels, each by itself."""
        return logits.sigmoid()

    def certainty(self, outputs: dict[str, Tensor]) -> Tensor | None:
        """Return what the confidence is a product of besides the probability, (..., M), or None."""
        return None

    def boxes(self, offsets: Tensor, origins: Tensor) -> Tensor:
        """Return the boxes (..., M, 4) xyxy that offsets of that shape move anchors (M, 4) to."""
        flat = self.model.box_coder.decode_single(offsets.flatten(0, -2), origins.expand(*offsets.shape).reshape(-1, 4))
        return flat.reshape(offsets.shape)

    def found(self, inputs: list[Tensor], image_size: tuple[int, int]) -> list[Found]:
        """Return what the head makes of pyramids (B, C, h, w) each, of inputs of this size: one entry for each image."""
        from torchvision.models.detection.image_list import ImageList

        batch = len(inputs[0])
        empty = inputs[0].new_zeros(()).expand(1, 3, *image_size)
        origins = self.model.anchor_generator(ImageList(empty, [self.content_of(image_size)]), inputs)[0].float()
        predictions = self.read(self.model.head(inputs), origins)
        cells = [each.shape[2] * each.shape[3] for each in inputs]
        counts = torch.tensor([a * n for a, n in zip(self.anchors_per_cell, cells, strict=True)])
        ends = tuple(counts.cumsum(0).tolist())
        return [Found(predictions[index], ends, origins) for index in range(batch)]

    def candidates(self, found: Found, confidences: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and classes that compete: of each level the most confident, as many as torchvision looks at."""
        parts, first = [], 0
        for end in found.ends:
            rows, classes = chosen[first:end].nonzero().unbind(1)
            sure = confidences[rows + first, classes]
            best = sure.topk(min(len(sure), self.model.topk_candidates)).indices
            parts.append((rows[best] + first, classes[best]))
            first = end
        rows, classes = (torch.cat(each) for each in zip(*parts, strict=True))
        return rows, classes

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place; what is fine and deep are the two finest stages below the pyramid.

        The class scores of a dense head say at each cell that an object is there, too, so that its level of the pyramid is
        hot all over the object: on scenes where the evidence is known, the stages below peak on it twice as often.
        """
        if place == FINE_AND_DEEP and len(self.stages_read) > 1:
            return Layers((self.stages_read[:2],) * len(self.levels_read()))
        return super().layers_at(place)

    def local(self, recording: PyramidRecording, rows: Tensor) -> Local | None:
        """Return the windows that predictions (D, k) depend on; None for heads that look at more."""
        if self._windows_are_exact is False:
            return None
        windows = Windows(self, recording, rows)
        if self._windows_are_exact is None:
            self._windows_are_exact = windows.are_exact()
        return windows if self._windows_are_exact else None


class PointsWithCentreness(Dense):
    """FCOS: the confidence is the root of the probability times that of how central the point is in its object."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the roots of the probabilities."""
        return root_of_sigmoid(logits)

    def certainty(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the root of how central the points are, (..., M)."""
        return root_of_sigmoid(outputs["bbox_ctrness"][..., 0].float())

    def boxes(self, offsets: Tensor, origins: Tensor) -> Tensor:
        """Return the boxes (..., M, 4) xyxy whose sides lie at offsets from the centres of anchors (M, 4)."""
        return self.model.box_coder.decode(offsets, origins.expand(*offsets.shape))


class SingleShot(Dense):
    """SSD, SSDlite: one convolution for each map, and a softmax over the labels with the background."""

    def count_labels(self) -> int:
        """Return how many labels the head knows, with the background."""
        return self.model.head.classification_head.num_columns

    def head_at(self, level: int, maps: Tensor) -> dict[str, Tensor]:
        """Return what the head makes of one map of the pyramid (B, C, h, w): (B, h w A, ...) by name."""
        head, count = self.model.head, self.anchors_per_cell[level]
        both = {"cls_logits": head.classification_head, "bbox_regression": head.regression_head}
        maps_of = {name: part.module_list[level](maps) for name, part in both.items()}
        return {
            name: each.unflatten(1, (count, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3) for name, each in maps_of.items()
        }

    def radius(self, level: int) -> int:
        """Return how many cells around its own a prediction of a level depends on."""
        head = self.model.head
        return max(reach(part.module_list[level]) for part in (head.classification_head, head.regression_head))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the labels, which sum to 1 with that of the background."""
        return logits.softmax(dim=-1)

    def candidates(self, found: Found, confidences: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and classes that compete: of each class the most confident, as many as torchvision looks at."""
        most = min(len(confidences), self.model.topk_candidates)
        sure, rows = confidences.where(chosen, confidences.new_tensor(-1.0)).topk(most, dim=0)
        place, classes = (sure >= 0).nonzero().unbind(1)
        return rows[place, classes], classes


def root_of_sigmoid(logits: Tensor) -> Tensor:
    """Return the square roots of sigmoids, with a gradient where these are so small that they count as zero."""
    return (logsigmoid(logits) / 2).exp()
