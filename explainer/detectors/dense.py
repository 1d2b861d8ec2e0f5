"""RetinaNet, FCOS, SSD and SSDlite: each cell of the pyramid predicts, from the cells around it.

A prediction is an anchor, or a point, of one cell. The heads are a few convolutions, so that it depends on a window of cells
around its own: that window alone is run again. Where a head also looks at the whole map, as group normalisation does, the
whole head is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from explainer.detectors.local import Found, Local, PyramidRecording
from explainer.detectors.predictions import Predictions
from explainer.detectors.pyramid import Pyramidal, corners_to_centres

# What a window gives may differ by so much from what the whole map gave, in rounding.
ROUNDING = 1e-3


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


class Windows(Local):
    """Windows of cells around those that predict, inside the map, so that its border is where it was."""

    def __init__(self, detector: Dense, recording: PyramidRecording, rows: Tensor):
        self.detector, self.recording, self.rows = detector, recording, rows
        flat, inputs = rows.flatten(), recording.head_inputs
        self.origins = recording.found.origins[flat]
        ends = torch.tensor(recording.ends, device=rows.device)
        levels = torch.bucketize(flat, ends, right=True)
        self.of_level = [(levels == level).nonzero()[:, 0] for level in range(len(inputs))]
        starts = [0, *recording.ends[:-1]]
        self.places = [
            self._places(level, flat[numbers] - starts[level]) for level, numbers in enumerate(self.of_level)
        ]

    def _places(self, level: int, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return for predictions of a level the rows (R, a) and columns (R, b) of windows, and their places there."""
        count, (height, width) = self.detector.anchors_per_cell[level], self.recording.head_inputs[level].shape[2:]
        cell, anchor = numbers // count, numbers % count
        radius = self.detector.radius(level)
        y, ys = window(cell // width, radius, height)
        x, xs = window(cell % width, radius, width)
        return ys, xs, (y * xs.shape[1] + x) * count + anchor

    def cut(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the parts (B, R_l, C, a, b) of each map (B or 1, C, h, w) of a pyramid; of those without any (B, 0, ...)."""
        batch = max(len(each) for each in inputs)
        return [
            each.expand(batch, -1, -1, -1)[:, :, ys[:, :, None], xs[:, None, :]].transpose(1, 2)
            for each, (ys, xs, _) in zip(inputs, self.places, strict=True)
        ]

    def predictions(self, parts: list[Tensor]) -> Predictions:
        """Return the predictions (B, D, k) that the head makes of parts."""
        batch, outputs = max(len(each) for each in parts), []
        for level, part in enumerate(parts):
            if part.shape[1]:
                outputs.append(self._outputs(level, part.expand(batch, *part.shape[1:])))
        order = torch.cat(self.of_level).argsort()
        together = {name: torch.cat([each[name] for each in outputs], dim=1)[:, order] for name in outputs[0]}
        return self.detector.read({name: each.unflatten(1, self.rows.shape) for name, each in together.items()},
                                  self.origins.unflatten(0, self.rows.shape))  # fmt: skip

    def _outputs(self, level: int, windows: Tensor) -> dict[str, Tensor]:
        """Return what the head makes of windows (B, R_l, C, a, b) of one level: (B, R_l, columns) by name."""
        own, batch = self.places[level][2], len(windows)
        outputs = self.detector.head_at(level, windows.flatten(0, 1))
        each = torch.arange(batch * len(own), device=own.device)
        return {name: found[each, own.repeat(batch)].unflatten(0, (batch, -1)) for name, found in outputs.items()}

    def spread(self, level: int, numbers: Tensor, gradients: Tensor) -> Tensor:
        """Return as a map (1, C, h, w) what was found at parts: (R', C, a, b) at those of a level with these numbers."""
        own = (self.of_level[level][:, None] == numbers).any(dim=1)
        ys, xs, _ = self.places[level]
        # A map of plain layout, whatever that of the network is.
        spread = torch.zeros(
            self.recording.head_inputs[level].shape[1:], dtype=gradients.dtype, device=gradients.device
        )
        spread.permute(1, 2, 0).index_put_(
            (ys[own][:, :, None], xs[own][:, None, :]), gradients.permute(0, 2, 3, 1), True
        )
        return spread[None]

    @torch.no_grad()
    def are_exact(self) -> bool:
        """Return whether the windows alone give the predictions that the whole maps gave."""
        alone = self.predictions(self.cut([each.detach() for each in self.recording.head_inputs]))[0]
        whole = self.recording.predictions.at(self.rows)
        pairs = ((alone.probabilities, whole.probabilities), (alone.boxes_xywh, whole.boxes_xywh))
        return all(torch.allclose(one, other, rtol=ROUNDING, atol=ROUNDING) for one, other in pairs)


def root_of_sigmoid(logits: Tensor) -> Tensor:
    """Return the square roots of sigmoids, with a gradient where these are so small that they count as zero."""
    return (logsigmoid(logits) / 2).exp()


def window(centre: Tensor, radius: int, side: int) -> tuple[Tensor, Tensor]:
    """Return where cells (R,) lie in windows around them that stay inside a side, and the cells (R, n) of the windows."""
    length = min(2 * radius + 1, side)
    first = (centre - radius).clamp(0, side - length)
    return centre - first, first[:, None] + torch.arange(length, device=centre.device)


def reach(module: nn.Module) -> int:
    """Return how many cells to each side the convolutions of a module look, one after the other, at most."""
    kernels = [each for each in module.modules() if isinstance(each, nn.Conv2d)]
    return sum((each.kernel_size[0] - 1) // 2 * each.dilation[0] for each in kernels)


def looks_at_all(module: nn.Module) -> bool:
    """Return whether a module mixes all cells of a map."""
    return isinstance(module, (nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.AdaptiveAvgPool2d))
