"""What a model says of an image, as values: predictions, the items of them that can be explained, detections, a recording.

    prediction  a box before anything is suppressed      detection  what suppression kept      target  what is differentiated

Importing this module imports no torch: the table of methods, which the command's help is made of, is built on it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from explainer.errors import UsageError, unknown
from explainer.maps.heatmaps import Letterbox

if TYPE_CHECKING:
    from torch import Tensor

# class             how sure the head is of the class, given that there is an object
# confidence        how sure it is that there is an object at all
# class_confidence  the confidence that is printed on the box
# mask              how clearly its mask is one: the mean logit of the pixels that it covers, of which this is the exponential
# the other four    where the box is and how large, in input pixels
ITEMS = {
    "class": ("probability",),
    "confidence": ("objectness",),
    "class_confidence": ("objectness", "probability"),
    "mask": ("mask",),
    "x_center": ("x",),
    "y_center": ("y",),
    "width": ("w",),
    "height": ("h",),
}
ITEM_ALIASES = {"x_c": "x_center", "y_c": "y_center", "w": "width", "h": "height"}
OF_BOXES = ("x", "y", "w", "h")
# A pixel whose probability is higher belongs to the mask of a detection.
IN_MASK = 0.5
# The exponential of a larger logit is more than float32 holds; trained models stay far below.
LARGEST_LOGIT = 80
NO_MASKS = "this model predicts no masks; leave --backprop-array mask out"


@dataclass(frozen=True)
class Predictions:
    """What a model predicts before anything is suppressed: N boxes, with a probability for each class.

    boxes_xywh     (..., N, 4) float32, centre and size in pixels of the input
    objectness     (..., N), 0..1, how sure it is that there is an object at all; None for models that do not say
    probabilities  (..., N, classes), 0..1
    mask           (..., N), the exponential of the mean logit of a mask over the region that it was in the recorded image,
                   which stays; 0 where it was empty; None unless a target reads it

    The leading dimensions are images of a batch, variants of an image, or nothing. `predictions[0]` is the first image;
    `predictions.at(rows)` are chosen boxes: with rows (D, k) it has (..., D, k) in place of (..., N).
    """

    boxes_xywh: Tensor
    objectness: Tensor | None
    probabilities: Tensor
    mask: Tensor | None = None

    def at(self, rows: Tensor | slice | list[int]) -> Predictions:
        """Return the predictions of these rows; for indices (D, k) in the shape (..., D, k)."""
        return self._of_each(lambda each: each[..., rows, :], lambda each: each[..., rows])

    def at_detections(self, chosen: slice) -> Predictions:
        """Return of predictions (..., D, k) those of some detections."""
        return self._of_each(lambda each: each[..., chosen, :, :], lambda each: each[..., chosen, :])

    @classmethod
    def interleaved(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return I predictions (D, k) as one (D * I, k): those of the first detection, then those of the next."""
        import torch

        names = [name for name, value in vars(parts[0]).items() if value is not None]
        whole = {name: torch.stack([getattr(part, name) for part in parts], dim=1).flatten(0, 1) for name in names}
        return cls(**{"objectness": None} | whole)

    def __getitem__(self, index: int | slice | None) -> Predictions:
        """Return one image of a batch, or several, or with None the image as a batch of one."""
        return self._of_each(lambda each: each[index], lambda each: each[index])

    def __iter__(self) -> Iterator[Predictions]:
        return (self[index] for index in range(len(self.boxes_xywh)))

    def detach(self) -> Predictions:
        """Return the same numbers without a graph."""
        return self._of_each(lambda each: each.detach(), lambda each: each.detach())

    def _of_each(self, of_rows: Callable[[Tensor], Tensor], of_numbers: Callable[[Tensor], Tensor]) -> Predictions:
        """Return what becomes of those that have several columns for each box, and of those that have a number for each."""
        objectness, mask = (None if each is None else of_numbers(each) for each in (self.objectness, self.mask))
        return Predictions(of_rows(self.boxes_xywh), objectness, of_rows(self.probabilities), mask)

    @property
    def certainty(self) -> Tensor:
        """How sure the model is of an object (..., N), 0..1: the objectness, else the probability of the best class."""
        return self.probabilities.amax(dim=-1) if self.objectness is None else self.objectness

    def confidences(self) -> Tensor:
        """Return what is printed on boxes, for each class: (..., N, classes)."""
        return self.probabilities if self.objectness is None else self.probabilities * self.objectness[..., None]

    def factors(self, items: tuple[str, ...], classes: Tensor) -> Tensor:
        """Return what the items are the product of, (..., D, k, n): a factor that two items share comes twice.

        self: (..., D, k), the k predictions that stand for each of D detections; classes: (D,) int64.
        """
        import torch

        columns = [self._column(name, classes) for name in self._factor_names(items)]
        return torch.stack(columns, dim=-1)

    def slopes(self, items: tuple[str, ...], classes: Tensor, of_factors: Tensor) -> Predictions:
        """Return the gradient with respect to each number, given that with respect to the factors (D, k, n)."""
        slopes = self._of_each(lambda each: each.new_zeros(each.shape), lambda each: each.new_zeros(each.shape))
        for name, slope in zip(self._factor_names(items), of_factors.unbind(-1), strict=True):
            if name in OF_BOXES:
                slopes.boxes_xywh[..., OF_BOXES.index(name)] += slope
            elif name == "probability":
                own = classes[:, None, None].expand(*slope.shape, 1)
                slopes.probabilities.scatter_add_(-1, own, slope[..., None])
            else:
                getattr(slopes, name).add_(slope)
        return slopes

    def columns(self) -> Tensor:
        """Return them, or slopes of them, as YOLOv5's raw rows (..., 5 + classes): x, y, w, h, objectness, p_0, p_1, ..."""
        import torch

        return torch.cat((self.boxes_xywh, self.objectness[..., None], self.probabilities), dim=-1)

    @classmethod
    def of_columns(cls, raw: Tensor) -> Predictions:
        """Return YOLOv5's raw rows (..., 5 + classes) as a value; the numbers are not copied."""
        return cls(raw[..., :4], raw[..., 4], raw[..., 5:])

    def _factor_names(self, items: tuple[str, ...]) -> list[str]:
        """Return the names of the factors of items; a box without objectness has its class to say how sure it is."""
        if "mask" in items and self.mask is None:
            raise UsageError(NO_MASKS)
        if self.objectness is not None:
            return [name for item in items for name in ITEMS[item]]
        if "confidence" in items:
            raise UsageError(
                "this model does not say how sure it is of an object apart from its class; "
                "leave --backprop-array confidence out, or try class_confidence"
            )
        return [name for item in items for name in ITEMS[item] if name != "objectness"]

    def _column(self, name: str, classes: Tensor) -> Tensor:
        """Return one factor, (..., D, k)."""
        if name in OF_BOXES:
            return self.boxes_xywh[..., OF_BOXES.index(name)]
        if name != "probability":
            return getattr(self, name)
        own = classes[:, None, None].expand(*self.probabilities.shape[:-1], 1)
        return self.probabilities.gather(-1, own)[..., 0]


@dataclass(frozen=True)
class Target:
    """The scores of D detections, or of other things to be explained in one image.

    rows         (D, k) int64: which predictions count; None if all do
    score        from predictions (..., D, k) at those rows, or from all (..., N), to scores (..., D)
    with_slopes  from predictions (D, k) at those rows to the scores (D,) and their gradient, as Predictions of the same
                 shape; None where it is left to automatic differentiation
    reads_masks  whether the scores read `Predictions.mask`, which is then computed for these rows
    reads_boxes  whether the scores may read boxes; where they do not, boxes need not be those of the predictions
    """

    rows: Tensor | None
    score: Callable[[Predictions], Tensor]
    with_slopes: Callable[[Predictions], tuple[Tensor, Predictions]] | None = None
    reads_masks: bool = False
    reads_boxes: bool = True

    def of(self, predictions: Predictions) -> Tensor:
        """Return the scores (..., D) that predictions (..., N) give."""
        return self.score(predictions if self.rows is None else predictions.at(self.rows))


# What became of a box: the first three where the labels of the image are known, the last for one that the user gave.
HIT, FALSE_ALARM, MISS, GIVEN, NEAR_MISS = "hit", "false alarm", "miss", "given", "below threshold"
NOT_FOUND = (MISS, GIVEN, NEAR_MISS)


@dataclass(frozen=True)
class Detection:
    """One detected object, or a box that was asked about: box in image pixels, confidence 0..1, class, where it came from.

    xyxy     (4,) float32, in pixels of the original image
    level    the number of the head input that it comes from; `stride` the pixels per cell of that, None where unknown
    row      the index of its prediction
    outcome  "hit", "false alarm" or "miss" where labels are known, "given" for a box that the user gave, "below threshold"
             for the best prediction where none passed, else ""
    remark   of a box that was not detected: why its confidence can hardly be more, where the predictions around it tell
    above    of one below the threshold: that threshold, which its confidence would have to lie above
    mask     bool (H, W), the pixels of the original image that it covers; None where the model does not say

    A miss and a given box were not detected: their confidence is the one that the model gives that box and class.
    """

    xyxy: np.ndarray
    confidence: float
    class_index: int
    name: str
    stride: int | None
    level: int
    row: int
    outcome: str = ""
    remark: str = ""
    above: float | None = None
    mask: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def was_found(self) -> bool:
        """Whether the model detected it, so that it is neither a box of the user's nor below the threshold."""
        return self.outcome not in NOT_FOUND

    @property
    def was_predicted(self) -> bool:
        """Whether its box is that of its prediction, so that it is neither the user's nor a label's."""
        return self.outcome not in (MISS, GIVEN)

    def columns(self) -> dict[str, object]:
        """Return what tables say of it, by the name of the column."""
        x1, y1, x2, y2 = self.xyxy.tolist()
        return {
            "class": self.class_index,
            "name": self.name,
            "confidence": self.confidence,
            "x1": x1,
            "y1": y1,
            "x2": x2,
            "y2": y2,
            "stride": self.stride,
        }


@dataclass(frozen=True)
class Recording:
    """What one forward pass of one image leaves for the explanation.

    image        the network's input (1, 3, h, w), 0..1
    predictions  of the N boxes before suppression, without a batch
    activations  the outputs (1, C, h, w) of the recorded layers by name; with a graph where the recording was made with one
    ends         for each level, the index after the last of its predictions; predictions are ordered by level
    """

    image: Tensor
    predictions: Predictions
    activations: dict[str, Tensor]
    ends: tuple[int, ...]

    def level_of(self, row: int) -> int:
        """Return the number of the level that a prediction comes from."""
        return bisect(self.ends, row)

    def rows_of_levels(self) -> list[slice]:
        """Return the predictions of each level."""
        return [slice(first, after) for first, after in zip((0, *self.ends), self.ends, strict=False)]


@dataclass(frozen=True)
class Kept:
    """Predictions that suppression kept, most confident first: rows, confidences and classes (D,), boxes (D, 4) as below.

    boxes_xyxy  in input pixels, unclipped
    """

    rows: Tensor
    confidences: Tensor
    classes: Tensor
    boxes_xyxy: Tensor

    def detections(
        self, recording: Recording, letterbox: Letterbox, names: dict[int, str], strides: tuple[int | None, ...]
    ) -> list[Detection]:
        """Return them as detections in the image. names: of the classes by index; strides: of the levels."""
        in_image = letterbox.boxes_to_image(self.boxes_xyxy.float().cpu().numpy())
        rows, columns = self.rows.tolist(), (self.confidences.tolist(), self.classes.tolist())
        levels = [recording.level_of(row) for row in rows]
        return [
            Detection(xyxy, confidence, index, names[index], strides[level], level, row)
            for xyxy, confidence, index, level, row in zip(in_image, *columns, levels, rows, strict=True)
        ]


def confidence_text(found: Detection) -> str:
    """Return a confidence with two digits; where it would then look like the threshold that it is below, with more."""
    digits = range(2, 6) if found.outcome == NEAR_MISS else (2,)
    texts = [f"{found.confidence:.{count}f}" for count in digits]
    return next((text for text in texts if found.outcome == NEAR_MISS and float(text) < found.above), texts[0])


def clarity(mean_logits: Tensor, has_mask: Tensor) -> Tensor:
    """Return how clearly masks are such, as `Predictions.mask` has it, given mean logits and whether a pixel was covered."""
    return mean_logits.clamp(max=LARGEST_LOGIT).exp() * has_mask


def read_boxes(items: tuple[str, ...]) -> bool:
    """Return whether one of the items is where a box is or how large."""
    return any(factor in OF_BOXES for item in items for factor in ITEMS[item])


def canonical_item(name: str) -> str:
    """Return the full name of an item; UsageError for an unknown one."""
    full = ITEM_ALIASES.get(name, name)
    if full not in ITEMS:
        raise unknown("item", name, [*ITEMS, *ITEM_ALIASES])
    return full
