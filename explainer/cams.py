"""Maps of one recorded image: evidence goes in, class activation maps come out."""

from functools import cache

import numpy as np
from torch import Tensor

from explainer.evidence import Evidence
from explainer.maps.heatmaps import MERGES, Cams, Letterbox
from explainer.methods import Formula


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


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as a float32 array."""
    return tensor.detach().float().cpu().numpy()
