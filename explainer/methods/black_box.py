"""Evidence from predictions alone: what becomes of them when parts of the image are masked, at random and many times.

One masked pass serves all scores of an image. Of the masks their sums are kept and nothing else: the maps of all detections
are made of them at any time.

Importing this module imports no torch: the table of methods, which the command's help is made of, is built on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from explainer.detectors.detector import IMAGE, Detector, Layers, Place
from explainer.methods.evidence import Evidence
from explainer.methods.masks import focused_masks, grid_masks, surroundings
from explainer.methods.targets import BoxesTarget

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What a masked image shows where nothing of it is kept: the letterbox's grey, black, or a blur.
BASELINES = ("grey", "zero", "blur")
GREY = 114 / 255
# Blur that leaves little to detect, as a standard deviation in pixels of the network's input.
BLUR_SIGMA = 10
# Passes between two looks at whether the maps have converged, and how reliable they must be then, 0..1.
PASSES_PER_LOOK = 20
ENOUGH = 0.95
# Images at once: a CPU is fastest with one, whose activations stay in its cache.
BATCH_ON_CPU, BATCH_ON_GPU = 1, 32


class MaskedPasses(Evidence):
    """The interface, and what the kinds share. The evidence for a score is the map itself, (1, 1, h, w).

    cell         pixels of the input per cell of a mask and of the maps
    masks, grid  passes at most, and knots of a random grid along the longer side of what it covers, where the settings
                 leave it to the method
    """

    nothing = "is not found in any of the masked images"
    reads_layers = False
    cell: int
    masks: int
    grid: int
    target: BoxesTarget

    @staticmethod
    def layers(detector: Detector, requested: tuple[str | int, ...], place: Place | None) -> Layers:
        """Return the image, which the masks lie on."""
        return Layers(((IMAGE,),) * len(detector.strides))

    @staticmethod
    def shown(layers: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is looked at."""
        return ("predictions",)

    @property
    def values(self) -> list[float]:
        """How much of each detection the image holds as it is."""
        return self.target.of(self.recording.predictions[None])[0].tolist()

    def at(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the map (1, 1, h, w) of one score, in cells of the masks."""
        return [self.maps[index][None, None]]

    def factor(self, layer: str) -> np.ndarray:
        """Return one: the map is not held against anything."""
        return np.ones((1, 1, 1, 1), np.float32)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a mask, in cells."""
        height, width = self.recording.image.shape[2:]
        return height // self.cell, width // self.cell

    @property
    def most(self) -> int:
        """How many masks are tried at most."""
        return self.settings.masks or self.masks

    @property
    def knots(self) -> int:
        """How many knots a random grid has along the longer side of what it covers."""
        return self.settings.grid or self.grid

    def random_masks(self) -> Iterator[np.ndarray]:
        """Yield masks (h, w), endlessly, the same for every image."""
        raise NotImplementedError

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the maps (D, h, w) that sums over masks amount to."""
        raise NotImplementedError

    def part_shown(self, maps: np.ndarray) -> np.ndarray:
        """Return what is shown of the maps (D, h, w) in the end: all of them."""
        return maps

    @cached_property
    def maps(self) -> np.ndarray:
        """The maps, float32 (D, h, w), once they have converged or there were enough masks; `note` says how many."""
        with ONE_OPENCV_THREAD:
            halves = [Sums.zeros(len(self.values), self.size) for _ in range(2)]
            masks, tried, found = islice(self.random_masks(), self.most), 0, 0.0
            while found < ENOUGH and (batch := np.array(list(islice(masks, PASSES_PER_LOOK)))).size:
                scores = self._scores(batch)
                # By the number of the mask, not of the batch.
                for half, sums in enumerate(halves):
                    sums.add(batch[half::2], scores[half::2])
                tried += len(batch)
                found = reliability(*map(self.estimate, halves)) if tried >= 2 * PASSES_PER_LOOK else 0.0
            self.note = f"{tried} of {self.most} masks, reliability {found:.2f}"
            return np.float32(self.part_shown(self.estimate(halves[0] + halves[1])))

    @cached_property
    def hidden(self) -> Tensor:
        """What is seen where a mask hides the image, of a shape that broadcasts to it."""
        return hidden_image(self.recording.image, self.settings.baseline)

    def _scores(self, masks: np.ndarray) -> np.ndarray:
        """Return the scores (B, D) of the image under masks (B, h, w)."""
        count = batch_size(self.recording.image.device)
        batches = [masks[first : first + count] for first in range(0, len(masks), count)]
        return np.concatenate([self.target.of(self.detector.predict(self._masked(b))).cpu().numpy() for b in batches])

    def _masked(self, masks: np.ndarray) -> Tensor:
        """Return the image (B, 3, H, W) under masks (B, h, w)."""
        return self.hidden.lerp(self.recording.image, enlarged(masks, self.recording.image))


class RandomGrids(MaskedPasses):
    """Masks all over the image, and the covariance of what they keep with the similarity of what is still found.

    D-RISE, https://arxiv.org/abs/2006.03204; the masks are those of RISE, https://arxiv.org/abs/1806.07421. The paper's map
    is the mean of the masks, weighted by the similarity. That shows wherever masks happened to be dense, too: the mean
    similarity times the mean mask is taken off, which leaves the covariance, and tells for from against. Masks hide with
    the letterbox's grey unless the settings say otherwise; Microsoft's D-RISE hides with black.
    """

    cell, masks, grid = 8, 1000, 16

    def random_masks(self) -> Iterator[np.ndarray]:
        """Yield random grids."""
        return grid_masks(self.size, self.knots, self.settings.mask_p, self.settings.seed)

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the covariances."""
        return covariances(sums)


class FocusedGrids(MaskedPasses):
    """Masks that are fine or coarse, dense or sparse around each box, and what becomes of the box in its surroundings.

    The centred D-RISE with two changes that let few masks tell much about every detection, small or large. Each box gets a
    random grid of its own in every mask, coarse or fine by its own size: masks of several resolutions are in the manner of
    D-CLOSE (https://arxiv.org/abs/2306.02744) and D-CRISP, the closer look at the object in that of BODEM
    (https://arxiv.org/abs/2303.17249). And each map ends softly at half a box around its box: farther away a hundred masks
    show noise, and what speaks for a box from there is left to D-RISE.
    """

    cell, masks, grid = 4, 100, 4

    def random_masks(self) -> Iterator[np.ndarray]:
        """Yield grids focused on the boxes of the target."""
        return focused_masks(self.size, self.boxes, self.knots, self.settings.mask_p, self.settings.seed)

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the covariances."""
        return covariances(sums)

    def part_shown(self, maps: np.ndarray) -> np.ndarray:
        """Return the maps around their boxes. That they are zero elsewhere must not pass for converged."""
        return maps * self.around

    @cached_property
    def around(self) -> np.ndarray:
        """How much each cell belongs to the surroundings of each box, float32 (D, h, w) in 0..1."""
        return surroundings(self.size, self.boxes)

    @property
    def boxes(self) -> np.ndarray:
        """The boxes of the target (D, 4), xyxy in cells of the masks."""
        return self.target.boxes_xyxy.cpu().numpy() / self.cell


class OneOpenCVThread:
    """Keeps OpenCV, which makes the masks, to one thread: further ones look out for work on the cores that run the network.

    That holds for the whole process, from the first thread of Python that enters until the last one has left.
    """

    def __init__(self):
        self._changing, self._inside, self._before = Lock(), 0, 1

    def __enter__(self) -> None:
        import cv2

        with self._changing:
            if not self._inside:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._inside += 1

    def __exit__(self, *error) -> None:
        import cv2

        with self._changing:
            self._inside -= 1
            if not self._inside:
                cv2.setNumThreads(self._before)


ONE_OPENCV_THREAD = OneOpenCVThread()


def batch_size(device: torch.device) -> int:
    """Return how many images a pass takes at once."""
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_ON_GPU


def enlarged(masks: np.ndarray, image: Tensor) -> Tensor:
    """Return masks (B, h, w) as (B, 1, H, W), of the size, the kind and on the device of an image (1, 3, H, W)."""
    import cv2
    import torch
    from torch.nn.functional import interpolate

    height, width = image.shape[2:]
    if image.device.type != "cpu":
        return interpolate(torch.from_numpy(masks)[:, None].to(image), (height, width), mode="bilinear")
    # The same numbers in half the time.
    whole = np.empty((len(masks), 1, height, width), np.float32)
    for mask, place in zip(masks, whole[:, 0], strict=True):
        cv2.resize(mask, (width, height), dst=place)
    return torch.from_numpy(whole).to(image)


def hidden_image(image: Tensor, baseline: str) -> Tensor:
    """Return what is seen of an image (1, 3, h, w) where a mask hides it, of a shape that broadcasts to it."""
    if baseline == "blur":
        return blur(image)
    return image[:, :, :1, :1].clone().fill_(GREY if baseline == "grey" else 0.0)


def blur(content: Tensor) -> Tensor:
    """Return an image (1, 3, h, w) blurred so far that little can be detected in it."""
    import cv2
    import torch

    pixels = content[0].permute(1, 2, 0).float().cpu().numpy()
    soft = cv2.GaussianBlur(pixels, (0, 0), BLUR_SIGMA, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(soft).permute(2, 0, 1)[None].to(content)


@dataclass
class Sums:
    """Sums over masks m (h, w) and the scores s (D,) of what they leave of the image, all float64.

    count     the masks
    masks     of m
    scores    of s
    products  of s * m, (D, h, w)
    """

    count: int
    masks: np.ndarray
    scores: np.ndarray
    products: np.ndarray

    @classmethod
    def zeros(cls, scores: int, size: tuple[int, int]) -> Sums:
        """Return the sums over no masks (h, w) of that size."""
        return cls(0, np.zeros(size), np.zeros(scores), np.zeros((scores, *size)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def add(self, masks: np.ndarray, scores: np.ndarray) -> None:
        """Add masks (B, h, w) and their scores (B, D), in place."""
        self.count += len(masks)
        self.masks += masks.sum(axis=0, dtype=np.float64)
        self.scores += scores.sum(axis=0, dtype=np.float64)
        import torch

        # By torch: the threads of numpy's matrix product would wait for those that run the network, and cost a pass.
        products = torch.from_numpy(np.float64(scores)).T @ torch.from_numpy(np.float64(masks)).flatten(1)
        self.products += products.view(self.products.shape).numpy()


def covariances(sums: Sums) -> np.ndarray:
    """Return the covariance (D, h, w) of each score with what masks keep of each cell: negative where it falls."""
    n = sums.count
    return sums.products / n - (sums.scores / n)[:, None, None] * (sums.masks / n)


def reliability(some: np.ndarray, others: np.ndarray) -> float:
    """Return how reliable the mean of two independent maps (D, h, w) is, at worst over D: 1 without noise, 0 for noise.

    The correlation r of the two as that of maps from twice as many masks, 2 r / (1 + r): the formula of Spearman and
    Brown. Maps without contrast agree.
    """
    centred = [maps.reshape(len(maps), -1) - maps.mean(axis=(1, 2))[:, None] for maps in (some, others)]
    products = (centred[0] * centred[1]).sum(axis=1)
    lengths = np.sqrt(np.prod([np.square(each).sum(axis=1) for each in centred], axis=0))
    correlations = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1.0)
    correlations = correlations.clip(min=0)
    return float(np.min(2 * correlations / (1 + correlations), initial=1.0))
