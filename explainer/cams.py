"""Maps of one recorded image: evidence goes in, class activation maps come out."""

from functools import cache

import cv2
import numpy as np
from torch import Tensor

from explainer.evidence import Evidence
from explainer.maps import Letterbox, normalise
from explainer.methods import Formula

Cams = tuple[np.ndarray, ...]

# The standard deviation, in cells, of the narrowest Gaussian that widens a deep map.
CELLS_AROUND = 0.65


class EvidenceSum:
    """Evidence for several scores, added up for each group of layers it was read from.

    Scores are sums, so their gradients are too: the map of a class, or of everything, needs no further pass.
    """

    def __init__(self):
        self._evidence: dict[tuple[str, ...], list[Tensor] | None] = {}
        # The maps of layers that a single score was read from are those of the sum.
        self._of_one: dict[tuple[str, ...], Cams | None] = {}

    def add(self, layers: tuple[str, ...], evidence: list[Tensor] | None, cams: Cams) -> None:
        """Add the evidence for one score at these layers, None where it is the activations alone; `cams` are its maps."""
        so_far = self._evidence.get(layers)
        if so_far is not None:
            evidence = [a + b for a, b in zip(so_far, evidence, strict=True)]
        self._of_one[layers] = None if layers in self._evidence else cams
        self._evidence[layers] = evidence

    def cams(self, reader: "CamReader") -> list[Cams]:
        """Return the maps of the sum, one entry for each group of layers."""
        return [self._of_one[layers] or reader.cams(layers, evidence) for layers, evidence in self._evidence.items()]


class CamReader:
    """Reads maps of one recorded image by one formula, and merges those of several layers."""

    def __init__(self, formula: Formula, merge: str, evidence: Evidence, letterbox: Letterbox):
        self.formula, self.merge = formula, MERGES[merge]
        self.evidence, self.letterbox = evidence, letterbox
        self._factor = cache(lambda name: as_array(evidence.factor(name)))
        # The same for every detection where the activations alone count.
        self._of_activations = cache(lambda name: formula(self._factor(name), None))

    def cams(self, layers: tuple[str, ...], evidence: list[Tensor] | None) -> Cams:
        """Return float32 maps (h, w) over the letterboxed input, one per layer or a merged one; they may be negative."""
        if evidence is None:
            maps = [self._of_activations(name) for name in layers]
        else:
            maps = [self.formula(self._factor(name), as_array(e)) for name, e in zip(layers, evidence, strict=True)]
        return self.merge(maps, self.letterbox)


def each_by_itself(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the maps as they are: a heatmap is the mean of several."""
    return tuple(cams)


def product(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the product of the maps, each scaled to 0..1 and at the input's size."""
    whole = np.prod([scaled_to_input([cam], letterbox) for cam in cams], axis=0, dtype=np.float32)
    return (whole,)


def strongest(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the largest value of the maps at each pixel, each scaled to 0..1 and at the input's size."""
    return (np.max([scaled_to_input([cam], letterbox) for cam in cams], axis=0),)


def fine_times_deep(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the first map, which has fine cells, times the mean of the others, widened; at the input's size.

    A fine layer shows what there is but not whose it is, a deep one where the object lies but not its outline. Widened, the
    deep ones let through what lies around their few hot cells. Their mean is that of the square roots, squared: what one
    layer alone points at counts less than what all do.
    """
    fine, *deep = cams
    if not deep:
        return (fine,)
    size = letterbox.input_size[::-1]
    where = np.mean([np.sqrt(cv2.resize(widened(cam), size)) for cam in deep], axis=0, dtype=np.float32) ** 2
    return (scaled_to_input([fine], letterbox) * where,)


def widened(cam: np.ndarray) -> np.ndarray:
    """Return the positive part of a map (h, w), 0..1, under three Gaussians, each twice as wide and a tenth as strong."""
    positive = np.maximum(cam, 0)
    wide = sum(
        0.1**step * cv2.GaussianBlur(positive, (0, 0), CELLS_AROUND * 2**step, borderType=cv2.BORDER_CONSTANT)
        for step in range(3)
    )
    return wide / max(wide.max(), np.finfo(np.float32).tiny)


def added_up(cams: list[np.ndarray], letterbox: Letterbox) -> Cams:
    """Return the sum of the maps at the input's size."""
    whole = np.zeros(letterbox.input_size, dtype=np.float32)
    for cam in cams:
        whole += cv2.resize(cam, letterbox.input_size[::-1])
    return (whole,)


# Maps (h, w) of several layers -> those that stand for them.
MERGES = {"mean": each_by_itself, "max": strongest, "product": product, "fine*deep": fine_times_deep, "sum": added_up}


def scaled_to_input(cams: list[np.ndarray] | Cams, letterbox: Letterbox) -> np.ndarray:
    """Return the mean of the positive parts of maps as one map of the letterboxed input, its content in 0..1."""
    inside = letterbox.content_cells(letterbox.input_size)
    total = np.zeros(letterbox.input_size, dtype=np.float32)
    for cam in cams:
        positive = np.maximum(cam, 0)
        total += cv2.resize(
            normalise(positive, positive[letterbox.content_cells(cam.shape)]), letterbox.input_size[::-1]
        )
    return np.clip(normalise(total, total[inside]), 0, 1)


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()
