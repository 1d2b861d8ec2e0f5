"""Evidence from predictions alone: what becomes of them when parts of the image are masked, at random and many times.

One masked pass serves all scores of an image. Of the masks their sums are kept and nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from explainer.evidence import Evidence
from explainer.heads import Target
from explainer.masks import focused_masks, grid_masks
from explainer.network import Network, Recording
from explainer.running_sums import Sums, mean_kept, reliability, significant_slopes

# The colour of the letterbox's padding, 0..1.
GREY = 114 / 255
# Blur that leaves little to detect, as a standard deviation in pixels of the network's input.
BLUR_SIGMA = 10
# Passes between two looks at whether the maps have converged.
PASSES_PER_LOOK = 20
# Images at once: a CPU is fastest with one, whose activations stay in its cache.
BATCH_ON_CPU, BATCH_ON_GPU = 1, 32


@dataclass(frozen=True)
class Sampling:
    """How an image is masked.

    masks     passes at most
    grid      knots of a random grid along the longer side of what it covers
    keep      the share of the image that a mask keeps, on average
    baseline  what is seen where it does not: "grey" (the letterbox's), "zero" or "blur"
    seed      of the masks, which are the same for every image
    enough    the reliability of the maps, 0..1, at which no more masks are tried
    """

    masks: int
    grid: int
    keep: float = 0.5
    baseline: str = "grey"
    seed: int = 0
    enough: float = 0.95


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV, which makes the masks, to one thread: further ones look out for work on the cores that run the network."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


class MaskedPasses(Evidence):
    """The interface, and what the kinds share. The evidence for a score is the map itself, (1, 1, h, w).

    cell  pixels of the input per cell of a mask and of the maps
    note  at how many masks it stopped
    """

    nothing = "is not found in any of the masked images"
    cell: int
    sampling: Sampling

    @classmethod
    def configured(cls, settings) -> type["MaskedPasses"]:
        """Return this kind with the sampling that some Settings ask for."""
        default = cls.sampling
        sampling = Sampling(
            settings.masks or default.masks,
            settings.grid or default.grid,
            settings.mask_p,
            settings.baseline,
            settings.seed,
        )
        return type(cls.__name__, (cls,), {"sampling": sampling})

    def __init__(self, network: Network, recording: Recording, target: Target, *, at_head: bool):
        self.network, self.recording, self.target = network, recording, target
        self.image, self.hidden = recording.image, hidden_image(recording.image, self.sampling.baseline)
        height, width = self.image.shape[2:]
        self.size = height // self.cell, width // self.cell
        self.scores = target.of_raw(recording.raw[None])[0]
        self.maps = self._run()

    def at(self, index: int, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the map (1, 1, h, w) of one score, in cells of the masks."""
        return [torch.from_numpy(self.maps[index])[None, None]]

    def factor(self, layer: str) -> Tensor:
        """Return one: the map is not held against anything."""
        return torch.ones(1, 1, 1, 1)

    def masks(self) -> Iterator[np.ndarray]:
        """Yield masks (h, w), endlessly."""
        raise NotImplementedError

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the maps (D, h, w) that sums over masks amount to."""
        raise NotImplementedError

    @one_opencv_thread()
    def _run(self) -> np.ndarray:
        """Try masks until the maps have converged or there are enough of them, and return the maps, float32 (D, h, w)."""
        halves = [Sums.zeros(len(self.scores), self.size) for _ in range(2)]
        masks, tried, found = islice(self.masks(), self.sampling.masks), 0, 0.0
        while found < self.sampling.enough and (batch := np.array(list(islice(masks, PASSES_PER_LOOK)))).size:
            scores = self._scores(batch)
            # By the number of the mask, not of the batch.
            for half, sums in enumerate(halves):
                sums.add(batch[half::2], scores[half::2])
            tried += len(batch)
            found = reliability(*map(self.estimate, halves)) if tried >= 2 * PASSES_PER_LOOK else 0.0
        self.note = f"{tried} of {self.sampling.masks} masks, reliability {found:.2f}"
        return np.float32(self.estimate(halves[0] + halves[1]))

    @torch.no_grad()
    def _scores(self, masks: np.ndarray) -> np.ndarray:
        """Return the scores (B, D) of the image under masks (B, h, w)."""
        batch = batch_size(self.image.device)
        parts = [
            self.target.of_raw(self.network.predict(self._masked(masks[first : first + batch])))
            for first in range(0, len(masks), batch)
        ]
        return torch.cat(parts).cpu().numpy()

    def _masked(self, masks: np.ndarray) -> Tensor:
        """Return the image (B, 3, H, W) under masks (B, h, w)."""
        return torch.lerp(self.hidden, self.image, enlarged(masks, self.image))


class RandomGrids(MaskedPasses):
    """Masks all over the image, and the mean of what they keep, weighted by the similarity of what is still found.

    D-RISE, https://arxiv.org/abs/2006.03204; the masks are those of RISE, https://arxiv.org/abs/1806.07421.
    """

    cell = 8
    sampling = Sampling(masks=1000, grid=16)

    def masks(self) -> Iterator[np.ndarray]:
        """Yield random grids."""
        return grid_masks(self.size, self.sampling.grid, self.sampling.keep, self.sampling.seed)

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the weighted mean of the masks, divided by what a mask keeps on average."""
        return mean_kept(sums, self.sampling.keep)


class FocusedGrids(MaskedPasses):
    """Masks that are fine or coarse, dense or sparse around each box, and the slopes of the similarity along what they keep.

    D-RISE with two changes that let few masks tell much about every detection, small or large. Each box gets a random grid
    of its own in every mask, coarse or fine by its own size: masks of several resolutions are in the manner of D-CLOSE
    (https://arxiv.org/abs/2306.02744) and D-CRISP, the closer look at the object in that of BODEM
    (https://arxiv.org/abs/2303.17249). And the map is no mean of masks, which shows wherever they happened to be dense.
    """

    cell = 4
    sampling = Sampling(masks=100, grid=4)

    def masks(self) -> Iterator[np.ndarray]:
        """Yield grids focused on the boxes of the target."""
        boxes, sampling = self.target.boxes_xyxy.cpu().numpy() / self.cell, self.sampling
        return focused_masks(self.size, boxes, sampling.grid, sampling.keep, sampling.seed)

    def estimate(self, sums: Sums) -> np.ndarray:
        """Return the slopes that stand out from the noise."""
        return significant_slopes(sums)


def batch_size(device: torch.device) -> int:
    """Return how many images a pass takes at once."""
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_ON_GPU


def enlarged(masks: np.ndarray, image: Tensor) -> Tensor:
    """Return masks (B, h, w) as (B, 1, H, W), of the size, the kind and on the device of an image (1, 3, H, W)."""
    height, width = image.shape[2:]
    if image.device.type != "cpu":
        return functional.interpolate(torch.from_numpy(masks)[:, None].to(image), (height, width), mode="bilinear")
    # The same numbers in half the time.
    whole = np.empty((len(masks), 1, height, width), np.float32)
    for mask, place in zip(masks, whole[:, 0], strict=True):
        cv2.resize(mask, (width, height), dst=place)
    return torch.from_numpy(whole).to(image)


def hidden_image(image: Tensor, baseline: str) -> Tensor:
    """Return what is seen of an image (1, 3, h, w) where a mask hides it, of a shape that broadcasts to it."""
    if baseline == "blur":
        return blur(image)
    return torch.full_like(image[:, :, :1, :1], GREY if baseline == "grey" else 0.0)


def blur(content: Tensor) -> Tensor:
    """Return an image (1, 3, h, w) blurred so far that little can be detected in it."""
    pixels = content[0].permute(1, 2, 0).float().cpu().numpy()
    soft = cv2.GaussianBlur(pixels, (0, 0), BLUR_SIGMA, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(soft).permute(2, 0, 1)[None].to(content)
