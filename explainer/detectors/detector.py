"""What a detector is for the explainer: the seam between all that explains and any model that finds boxes.

A `Detector` prepares an image, predicts, detects, records what its layers do, and says how scores follow from that. What its
predictions are called inside, how they are ordered and decoded, and which of its modules is the head stays with it: the rest
of the explainer knows `Predictions`, `Recording`, `Scores` and the names of layers. A class for another model is one page:
see docs/extending.md, and `explainer.detectors.white_box` for what any torch module can do already.

Importing this module imports no torch: the table of methods, which the command's help is made of, is built on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from explainer.detectors.predictions import Detection, Predictions, Recording, Target
from explainer.maps.heatmaps import Letterbox

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The network's input, by the name that it has among the recorded layers.
IMAGE = "image"

# Where the layers of an exported model are.
MADE_FROM = "the .pt file that it was made from"

READS_NO_LAYERS = "a detector of this kind has no layers to read; look at reads_layers first"


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """What becomes a detection: the confidence and overlap of non-maximum suppression, how many at most, which classes.

    classes: indices; () for all of them.
    """

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 1000
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where in a network a map can be read, whatever the network is: its name, for `--layer`, and what it is."""

    name: str
    about: str


HEAD = Place("head", "the Detect input of a detection's own stride")
NECK = Place("neck", "the block where the neck first fuses its features with the backbone's")
BACKBONE = Place("backbone", "the end of the backbone")
COARSEST = Place("coarsest", "the Detect input of the largest stride, whatever a detection's own is")
NECK_AND_HEAD = Place("neck+head", "the two together")
FINE_AND_DEEP = Place(
    "fine+deep", "the finest layer that the neck takes from the backbone, and the deep layers that follow it"
)
PLACES = {place.name: place for place in (HEAD, NECK, BACKBONE, COARSEST, NECK_AND_HEAD, FINE_AND_DEEP)}


@dataclass(frozen=True)
class Layers:
    """Which layers are read.

    by_level  for each level of the detector, the names of the layers that its detections are read from
    at_head   whether they stand for what the head alone makes of them, without the layers between
    """

    by_level: tuple[tuple[str, ...], ...]
    at_head: bool = False


@dataclass(frozen=True)
class Sight:
    """What of an image must be seen: height and width of the input, the layers to record, and whether with a graph."""

    input_size: tuple[int, int]
    layers: tuple[str, ...]
    with_graph: bool


@dataclass(frozen=True)
class Seen:
    """One image as a detector saw it: the pass that was recorded, and how the image lies in the input."""

    detector: Detector
    recording: Recording
    letterbox: Letterbox


@dataclass(frozen=True)
class Rerun:
    """A part of the network that is run again with other activations in a layer's place.

    activations  what is there in the recording: (1, C, ...)
    at_once      how many variants a batch should hold
    run          from activations (B, C, ...) to scores (B, D)
    """

    activations: Tensor
    at_once: int
    run: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, activations: Tensor) -> Tensor:
        """Return the scores (B, D) with activations (B, C, ...) in the layer's place."""
        return self.run(activations)


class Scores(ABC):
    """The scores of a target for a recorded image, and how they depend on the layers and on the image.

    values    (D,) what the target gives for the image as it is
    baseline  (D,) what a re-run that changes nothing gives: the same, but for rounding
    at_once   how many images of this size a batch should hold
    """

    values: Tensor
    baseline: Tensor
    at_once: int

    @abstractmethod
    def gradients(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient (1, C, h, w), float32, of one score at each layer; zeros where it does not depend on it."""

    @abstractmethod
    def curvatures(self, index: int, layers: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient of one score at each layer, and the product of its Hessian and the activations: H a."""

    @abstractmethod
    def rerun(self, layer: str) -> Rerun:
        """Return what lies above a layer, to be run again with other activations in its place."""

    @abstractmethod
    def of_images(self, images: Tensor) -> Tensor:
        """Return the scores (B, D) of other images (B, 3, h, w)."""


class Detector(ABC):
    """A model that finds boxes, as the explainer sees it.

    names        the class names by index
    strides      for each level, pixels of the input per cell; None where that is not known
    stride       an input's height and width are multiples of it
    usual_size   the side of its inputs in pixels where none is asked for
    rectangular  whether it takes inputs of any height and width
    reads_layers whether its layers can be read at all; else only black-box methods apply
    own_rows     whether a detection stands for its own prediction alone, not for the ten that overlap its box most
    predicts_masks  whether it also says which pixels each detection covers
    called       how a message calls it
    layers_elsewhere  of one without layers, where those of the same model are, for a message
    """

    names: dict[int, str]
    strides: tuple[int | None, ...] = (None,)
    stride: int = 32
    usual_size = 640
    rectangular = True
    reads_layers = True
    own_rows = False
    predicts_masks = False
    called = "this model"
    layers_elsewhere = ""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its inputs go."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The precision of its inputs."""

    @abstractmethod
    def prepare(self, image_rgb: np.ndarray, input_size: tuple[int, int]) -> tuple[Tensor, Letterbox]:
        """Return an image as the network's input, (1, 3, h, w) in 0..1 on its device, and how it lies in there.

        image_rgb: uint8 (H, W, 3); input_size: the (height, width) that `input_size` gave.
        """

    @abstractmethod
    def see(self, image_rgb: np.ndarray, sight: Sight) -> Seen:
        """Prepare an image, uint8 (H, W, 3), and record its pass; of the detector that `borrowed` gives."""

    @abstractmethod
    def detect(
        self, recording: Recording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections, most confident first, and their boxes (D, 4) xyxy in input pixels, unclipped."""

    def masks(self, recording: Recording, letterbox: Letterbox, detections: list[Detection]) -> list[np.ndarray | None]:
        """Return which pixels of the image each detection covers: bool (H, W), None where the model does not say.

        Boxes that the model did not predict, such as given ones and misses, have no mask.
        """
        return [None] * len(detections)

    def levels_of(
        self, recording: Recording, detections: list[Detection], items: tuple[str, ...]
    ) -> list[tuple[int, ...]]:
        """Return the levels that the items of each detection are read from: its own, but where a mask has one of its own."""
        return [(found.level,) for found in detections]

    @abstractmethod
    def predict(self, images: Tensor) -> Predictions:
        """Return the predictions for images (B, 3, h, w; 0..1), without gradients."""

    @abstractmethod
    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `Recording` lists of these layers.

        With a graph, scores can be differentiated with respect to the recorded layers; nothing below them is in it.
        """

    def scores(self, recording: Recording, target: Target, *, at_head: bool = False) -> Scores:
        """Return the scores of a target, and how they depend on what was recorded. `at_head` is that of `Layers`."""
        raise NotImplementedError(READS_NO_LAYERS)

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place."""
        raise NotImplementedError(READS_NO_LAYERS)

    def layers_called(self, requested: tuple[str | int, ...]) -> Layers:
        """Return the layers that a user names, by index or by name; UsageError lists what there is."""
        raise NotImplementedError(READS_NO_LAYERS)

    def layers_with_bias(self) -> tuple[str, ...]:
        """Return the image and the names of all layers that add a bias to something the predictions depend on."""
        raise NotImplementedError(READS_NO_LAYERS)

    def bias(self, layer: str) -> Tensor:
        """Return the bias (1, C, 1, 1) that a layer adds."""
        raise NotImplementedError(READS_NO_LAYERS)

    def needed_above(self, layer: str) -> tuple[str, ...]:
        """Return the names of further layers to record, so that what lies above a layer can be run again."""
        return ()

    @contextmanager
    def borrowed(self) -> Iterator[Detector]:
        """Give the detector that an explanation is to use, in this thread alone, as long as it takes."""
        yield self

    def input_size(self, imgsz: tuple[int, int] | None) -> tuple[int, int]:
        """Return the height and width of an input: multiples of the stride. imgsz: what is asked for, None for the usual."""
        from utils.general import check_img_size

        return tuple(check_img_size(list(imgsz or (self.usual_size, self.usual_size)), s=self.stride))
