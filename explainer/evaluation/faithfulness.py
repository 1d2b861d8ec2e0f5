"""Does the score follow the heatmap? Pixels taken away or put back in its order, and what is left of the detections.

Deleted pixels become one colour or a blur; those that ROAD takes away what their neighbours let one expect, so that a hole
does not tell where it is. Masked images pass through the network in batches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from explainer.detectors.predictions import Predictions
from explainer.maps.heatmaps import Letterbox
from explainer.maps.imputation import filled_from_neighbours
from explainer.methods.black_box import GREY, blur
from explainer.methods.targets import normalised, similarities, similarities_in_image
from utils.general import xywh2xyxy

# Images (B, 3, h, w) in 0..1 -> predictions (B, N).
Predict = Callable[[Tensor], Predictions]

# Of the pixels that ROAD takes away.
SHARES = (0.2, 0.4, 0.6, 0.8)
# Values of a heatmap that are told apart, and what the largest counts as at least.
LEVELS, SMALLEST = 2**20, float(np.finfo(np.float32).tiny)
# Missing pixels are the unknowns of one linear system, which is solved on a grid with this longer side.
GRID_SIDE = 160
# Standard deviation of the noise on imputed pixels, in values of 0..1.
NOISE = 0.01


@dataclass(frozen=True)
class Curves:
    """What is left of a detection, 1 for the whole image, with 0, 1/steps, ..., 1 of its pixels deleted or inserted."""

    deletion: np.ndarray
    insertion: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """How pixels are taken away and put back.

    deletion    what a deleted pixel becomes: "zero" (as D-RISE has it), "grey" (the letterbox's) or "blur"; inserted ones
                replace a blur
    steps       how many equal parts the pixels are taken in
    batch_size  images in one pass of the network
    seed        of the noise of ROAD's imputation; nothing else is drawn at random
    """

    deletion: str = "zero"
    steps: int = 20
    batch_size: int = 1
    seed: int = 0


class Perturbation:
    """One image whose pixels are taken away and put back. Its padding is neither counted nor changed.

        perturbation = Perturbation(detector.predict, image, letterbox, [found.row for found in detections])
        curves = perturbation.curves([entry.heatmap for entry in explanation.detections], range(len(detections)))

    predict  gives the predictions for images
    image    the network's input (1, 3, h, w) in 0..1
    rows     the predictions for the image that its detections come from, the d-th for detection d
    """

    def __init__(
        self,
        predict: Predict,
        image: Tensor,
        letterbox: Letterbox,
        rows: Sequence[int],
        protocol: Protocol = Protocol(),
    ):
        self.predict, self.image, self.letterbox, self.protocol = predict, image, letterbox, protocol
        whole = predict(image)
        sought = whole[0].at(list(rows))
        self.boxes_xyxy, self.directions = xywh2xyxy(sought.boxes_xywh), normalised(sought.probabilities)
        self.clean = self._similarities(whole)[0]

    @cached_property
    def blurred(self) -> Tensor:
        """The image with its content blurred."""
        return self.replaced(blur)

    @cached_property
    def deleted(self) -> Tensor:
        """The image with all of its content deleted."""
        if self.protocol.deletion == "blur":
            return self.blurred
        value = GREY if self.protocol.deletion == "grey" else 0.0
        return self.replaced(lambda content: torch.full_like(content, value))

    @cached_property
    def ends(self) -> np.ndarray:
        """What is left of each detection when everything is deleted, and when everything is blurred, (2, D)."""
        parts = [self._similarities(self.predict(image)) for image in (self.deleted, self.blurred)]
        return (torch.cat(parts) / self.clean).cpu().numpy()

    def left(self, images: Iterator[tuple[Tensor, int]]) -> np.ndarray:
        """Return what is left of a detection, 1 for the whole image, for each image (1, 3, h, w) and detection's index."""
        parts = []
        while batch := list(islice(images, self.protocol.batch_size)):
            tensors, detections = zip(*batch, strict=True)
            # To copy a single image takes as long as to mask it.
            masked = self.predict(tensors[0] if len(tensors) == 1 else torch.cat(tensors))
            for predictions, index in zip(masked, detections, strict=True):
                own = slice(index, index + 1)
                found = similarities_in_image(predictions, self.boxes_xyxy[own], self.directions[own])
                parts.append(found / self.clean[own])
        return torch.cat(parts).cpu().numpy()

    def _similarities(self, predictions: Predictions) -> Tensor:
        """Return the similarity of each detection with the predictions (B, N) for images, (B, D)."""
        return similarities(predictions, self.boxes_xyxy, self.directions)

    def curves(self, maps: Sequence[np.ndarray], detections: Sequence[int]) -> list[Curves]:
        """Return the curves of heatmaps, float (height, width) of any size over the image's content, and their detections."""
        left = self.left(self._masked(maps, detections)).reshape(2, len(maps), -1)
        return [
            Curves(
                deletion=np.array([1.0, *deleted, self.ends[0, index]]),
                insertion=np.array([self.ends[1, index], *inserted, 1.0]),
            )
            for index, deleted, inserted in zip(detections, *left, strict=True)
        ]

    def shown(self, maps: Sequence[np.ndarray], detections: Sequence[int]) -> list[float]:
        """Return what is left of each detection when the image shows through its own map alone, and is deleted elsewhere."""
        images = (
            (torch.lerp(self.deleted, self.image, self._on_input(heatmap).to(self.image.dtype)), index)
            for heatmap, index in zip(maps, detections, strict=True)
        )
        return self.left(images).tolist()

    def _masked(self, maps: Sequence[np.ndarray], detections: Sequence[int]) -> Iterator[tuple[Tensor, int]]:
        """Yield the images of all maps with pixels deleted, step by step, then those with pixels inserted."""
        steps = [self.step_of_pixel(heatmap) for heatmap in maps]
        for start, goal in ((self.image, self.deleted), (self.blurred, self.image)):
            for step_of_pixel, index in zip(steps, detections, strict=True):
                for step in range(1, self.protocol.steps):
                    # By weights of 0 and 1: to choose pixel by pixel takes eight times as long on a CPU.
                    yield torch.lerp(start, goal, (step_of_pixel <= step).to(start.dtype)), index

    def step_of_pixel(self, heatmap: np.ndarray) -> Tensor:
        """Return the step, from 1, that changes each pixel of the input (h, w), the hottest first; none for the padding."""
        steps = self.protocol.steps
        whole = torch.full(self.letterbox.input_size, steps + 1, dtype=torch.int16, device=self.image.device)
        order = self.order(heatmap)
        whole[self.letterbox.content_pixels] = (order * steps // order.numel() + 1).to(torch.int16)
        return whole

    def order(self, heatmap: np.ndarray) -> Tensor:
        """Return how many of the content's pixels are hotter, int64 (height, width), for each of them.

        Equal values are taken as `hottest_first` has it.
        """
        rows, columns = self.letterbox.content_pixels
        sequence = hottest_first(self._on_input(heatmap)[rows, columns].cpu().numpy())
        order = np.empty_like(sequence)
        order[sequence] = np.arange(len(order))
        return torch.from_numpy(order).to(self.image.device).view(self.letterbox.content_size)

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a copy of the image (1, 3, h, w) whose content went through `change`; the padding stays."""
        rows, columns = self.letterbox.content_pixels
        copy = self.image.clone()
        copy[:, :, rows, columns] = change(copy[:, :, rows, columns])
        return copy

    def _on_input(self, heatmap: np.ndarray) -> Tensor:
        """Return a heatmap of the content as one of the input (h, w), zero in the padding."""
        import cv2

        height, width = self.letterbox.content_size
        shrinks = heatmap.shape[0] > height
        fitted = cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        whole = torch.zeros(self.letterbox.input_size, device=self.image.device)
        whole[self.letterbox.content_pixels] = torch.from_numpy(np.float32(fitted)).to(whole)
        return whole


def hottest_first(heatmap: np.ndarray) -> np.ndarray:
    """Return the indices (h * w,), int64, of the pixels of a heatmap (h, w) in the order in which they are taken.

    The hottest first. Values are told apart to a millionth of the largest, since rounding differs by machine. Of equal
    ones, most of which are zeros in a sharp map, the nearest to what is hot comes first: a pixel without heat by the
    distance to the nearest one that has some, others by that to the centre of all heat. So a map without contrast is
    taken from the middle of the picture outwards, and nothing depends on chance. Equal distances: in reading order.
    """
    # The sign of the level is that of the value, so that sorting by falling heat is sorting by rising -level.
    levels = np.rint(np.float64(heatmap) * (LEVELS / max(float(np.abs(heatmap).max()), SMALLEST))).astype(np.int64)
    return np.lexsort((squared_distance_to_heat(levels).ravel(), -levels.ravel()))


def squared_distance_to_heat(levels: np.ndarray) -> np.ndarray:
    """Return how far each pixel of a map (h, w), int64, lies from what is hot: squares in half pixels, int64.

    Whole numbers, so that pixels at the same distance are known to be at the same distance.
    """
    import cv2

    hot = levels > 0
    to_centre = sum(
        np.expand_dims(squared_distance_to_centre(np.where(hot, levels, 0).sum(axis=1 - axis)), 1 - axis)
        for axis in (0, 1)
    )
    if not hot.any():
        return to_centre
    nearest = cv2.distanceTransform(np.uint8(~hot), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(hot, to_centre, 4 * np.rint(np.float64(nearest) ** 2).astype(np.int64))


def squared_distance_to_centre(sums: np.ndarray) -> np.ndarray:
    """Return how far each pixel along an axis lies from the centre of what the sums (N,) hold, in half pixels, squared."""
    places = 2 * np.arange(len(sums))
    total = int(sums.sum())
    centre = round(int(sums @ places) / total) if total else len(sums) - 1
    return (places - centre) ** 2


def road(perturbation: Perturbation, maps: Sequence[np.ndarray], detections: Sequence[int]) -> list[float]:
    """Return, for each heatmap and its detection, half of: score without the coldest less score without the hottest pixels.

    The mean over shares of the pixels, which noisy linear imputation replaces; the whole image scores 1.
    ROAD, https://arxiv.org/abs/2202.00449.
    """
    noise, asked = torch.Generator().manual_seed(perturbation.protocol.seed), zip(maps, detections, strict=True)
    left = perturbation.left(
        (image, index) for heatmap, index in asked for image in imputed(perturbation, heatmap, noise)
    )
    hottest, coldest = left.reshape(len(maps), 2, len(SHARES)).mean(axis=2).T
    return ((coldest - hottest) / 2).tolist()


def imputed(perturbation: Perturbation, heatmap: np.ndarray, noise: torch.Generator) -> Iterator[Tensor]:
    """Yield the image without its hottest pixels, for each share of them, then without its coldest."""
    order = perturbation.order(heatmap)
    for rank in (order, order.numel() - 1 - order):
        for share in SHARES:
            missing = rank < share * order.numel()
            yield perturbation.replaced(lambda content, missing=missing: filled_in(content, missing, noise))


def filled_in(content: Tensor, missing: Tensor, noise: torch.Generator) -> Tensor:
    """Return an image (1, 3, h, w) whose missing pixels (h, w) are imputed on a coarser grid; the others stay.

    noise: where the noise on the imputed ones is drawn from, without which a network could tell how smooth they are.
    """
    height, width = missing.shape
    scale = min(GRID_SIDE / max(height, width), 1)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    known = (interpolate((~missing)[None, None].float(), size, mode="area")[0, 0] >= 0.5).cpu()
    coarse = interpolate(content.float(), size, mode="area")[0].cpu()
    filled = filled_from_neighbours(coarse.permute(1, 2, 0).contiguous().numpy(), known.numpy())
    # Colour by colour, as the library draws it.
    filled[~known.numpy()] += NOISE * torch.randn(3, int((~known).sum()), generator=noise).T.numpy()
    smooth = interpolate(
        torch.from_numpy(filled).permute(2, 0, 1)[None].to(content.device), (height, width), mode="bilinear"
    )
    return torch.where(missing, smooth.to(content), content)
