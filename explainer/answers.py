"""The maps of an answer: what the layers' maps of all subjects together, of a class or of a scale become for the eye."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainer.looks import Group, Scale
from explainer.maps.heatmaps import (
    Cams,
    Letterbox,
    for_and_against,
    heatmap_of_all,
    hottest,
    keep_hottest,
    keep_strongest,
    signed_map_of_all,
)
from explainer.settings import Settings


@dataclass(frozen=True)
class Reading:
    """One way to show maps: as heatmaps, or with their sign.

    of     several groups of layers' maps, and the letterbox -> one map (H, W) at the size of the original image
    merge  several of those, and the size (height, width) -> one
    keep   a map and a percentage -> the map with all but so many percent of its pixels set to zero
    """

    of: Callable[[list[Cams], Letterbox], np.ndarray]
    merge: Callable[[list[np.ndarray], tuple[int, int]], np.ndarray]
    keep: Callable[[np.ndarray, float], np.ndarray]

    def together(
        self, totals: dict[Group, list[Cams]], letterbox: Letterbox, percent: float
    ) -> dict[Group, np.ndarray]:
        """Return the map of each group. Where its layers differ, each pixel shows the strongest of their maps."""
        return {group: self.keep(self.of(maps, letterbox), percent) for group, maps in totals.items()}


HEAT = Reading(heatmap_of_all, hottest, keep_hottest)
SIGNED = Reading(signed_map_of_all, for_and_against, keep_strongest)


@dataclass(frozen=True)
class Maps:
    """What the subjects of an image have together, each (H, W) float32 at the size of the original image.

    heatmap    0..1
    signed     -1..1; None unless it was asked for
    per_class  by class index, and
    per_scale  by stride: heatmaps, or maps with their sign where those were asked for
    """

    heatmap: np.ndarray
    signed: np.ndarray | None
    per_class: dict[int, np.ndarray]
    per_scale: dict[int, np.ndarray]


def maps_together(totals: dict[Group, list[Cams]], letterbox: Letterbox, settings: Settings) -> Maps:
    """Return the maps of everything, of each class and of each scale, given the layers' maps of each group."""
    percent, image_size = settings.keep_only_topk, letterbox.image_size
    whole = {group: maps for group, maps in totals.items() if not isinstance(group, Scale)}
    heatmaps, signed = HEAT.together(whole, letterbox, percent), None
    shown, reading = heatmaps, HEAT
    if settings.signed:
        shown, reading = SIGNED.together(whole, letterbox, percent), SIGNED
        signed = SIGNED.merge(list(shown.values()), image_size)
    scales = {group: maps for group, maps in totals.items() if isinstance(group, Scale)}
    return Maps(
        HEAT.merge(list(heatmaps.values()), image_size),
        signed,
        {group: entry for group, entry in shown.items() if group is not None},
        {group.stride: entry for group, entry in reading.together(scales, letterbox, percent).items()},
    )
