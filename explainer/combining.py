"""The maps of an answer: what the subjects of an image have together, all of them, of a class or of a scale, for the eye."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from explainer.attribution import EVERYTHING, Group, groups_of
from explainer.explanation import DetectionExplanation
from explainer.maps.heatmaps import (
    Cams,
    Letterbox,
    for_and_against,
    heatmap_of_all,
    hottest,
    keep_hottest,
    keep_strongest,
    only_in_box,
    pixels_in_box,
    signed_map_of_all,
)
from explainer.settings import Settings


@dataclass(frozen=True)
class Showing:
    """One way to show maps: as heatmaps, or with their sign.

    of       several groups of layers' maps, and the letterbox -> one map (H, W) at the size of the original image
    combine  several of those, and the size (height, width) -> one
    keep     a map and a percentage -> the map with all but so many percent of its pixels set to zero
    """

    of: Callable[[list[Cams], Letterbox], np.ndarray]
    combine: Callable[[list[np.ndarray], tuple[int, int]], np.ndarray]
    keep: Callable[[np.ndarray, float], np.ndarray]


HEAT = Showing(heatmap_of_all, hottest, keep_hottest)
SIGNED = Showing(signed_map_of_all, for_and_against, keep_strongest)


@dataclass(frozen=True)
class Maps:
    """What the subjects of an image have together, each (H, W) float32 at the size of the original image.

    heatmap   0..1
    signed    -1..1; None unless it was asked for
    of_group  of each class and each scale that was asked for: heatmaps, or maps with their sign
    """

    heatmap: np.ndarray
    signed: np.ndarray | None
    of_group: dict[Group, np.ndarray]


def combined(totals: dict[Group, list[Cams]], letterbox: Letterbox, settings: Settings) -> Maps:
    """Return the maps of everything, of each class and of each scale, given the layers' maps of each group.

    Where the layers of a group differ, each pixel shows the strongest of their maps.
    """

    def shown(showing: Showing, groups: dict[Group, list[Cams]]) -> dict[Group, np.ndarray]:
        return {g: showing.keep(showing.of(cams, letterbox), settings.keep_only_topk) for g, cams in groups.items()}

    image_size = letterbox.image_size
    whole = {group: cams for group, cams in totals.items() if group.stride is None}
    scales = {group: cams for group, cams in totals.items() if group.stride is not None}
    heatmaps = shown(HEAT, whole)
    heatmap = HEAT.combine(list(heatmaps.values()), image_size)
    if not settings.signed:
        return Maps(heatmap, None, heatmaps | shown(HEAT, scales) if scales else heatmaps)
    signed = shown(SIGNED, whole)
    together = SIGNED.combine(list(signed.values()), image_size)
    return Maps(heatmap, together, signed | shown(SIGNED, scales))


def renormalised(
    entries: list[DetectionExplanation], image_size: tuple[int, int], settings: Settings
) -> tuple[list[DetectionExplanation], Maps]:
    """Return explanations whose heatmaps are scaled to 0..1 inside their own boxes and blank outside, and those of several.

    As EigenCAM's pictures show it; where several overlap each pixel shows the largest.
    image_size: height and width of the original image. One heatmap of that size exists at a time.
    """
    groups: dict[Group, np.ndarray] = {EVERYTHING: np.zeros(image_size, dtype=np.float32)}
    inside_boxes = []
    for entry in entries:
        xyxy = entry.detection.xyxy
        heatmap, inside = only_in_box(entry.heatmap_at(image_size), xyxy), pixels_in_box(xyxy, image_size)
        for group in (EVERYTHING, *groups_of(entry.detection, settings)):
            whole = groups.setdefault(group, np.zeros(image_size, dtype=np.float32))
            np.maximum(whole[inside], heatmap[inside], out=whole[inside])
        note = entry.note if entry.note or heatmap.any() else "its map is the same all over its box"
        inside_boxes.append(replace(entry, renormalised=True, note=note))
    kept = {group: keep_hottest(whole, settings.keep_only_topk) for group, whole in groups.items()}
    return inside_boxes, Maps(kept[EVERYTHING], None, kept)
