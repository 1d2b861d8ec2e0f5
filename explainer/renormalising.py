"""Each detection's map scaled to 0..1 inside its own box and blank outside, as EigenCAM's pictures show it."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from explainer.answers import Maps
from explainer.explanation import DetectionExplanation
from explainer.maps.heatmaps import keep_hottest, only_in_box, pixels_in_box
from explainer.settings import Settings


def renormalise(
    entries: list[DetectionExplanation], image_size: tuple[int, int], settings: Settings
) -> tuple[list[DetectionExplanation], Maps]:
    """Return explanations whose heatmaps are scaled inside their boxes, and the maps of several: the largest of theirs.

    image_size: height and width of the original image. One heatmap of that size exists at a time.
    """
    groups: dict[tuple[str, object], np.ndarray] = {("all", None): np.zeros(image_size, dtype=np.float32)}
    renormalised = []
    for entry in entries:
        xyxy = entry.detection.xyxy
        heatmap, inside = only_in_box(entry.heatmap_at(image_size), xyxy), pixels_in_box(xyxy, image_size)
        for group in groups_of(entry, settings):
            whole = groups.setdefault(group, np.zeros(image_size, dtype=np.float32))
            np.maximum(whole[inside], heatmap[inside], out=whole[inside])
        note = entry.note if entry.note or heatmap.any() else "its map is the same all over its box"
        renormalised.append(replace(entry, renormalised=True, note=note))
    kept = {group: keep_hottest(whole, settings.keep_only_topk) for group, whole in groups.items()}
    per_class = {key: whole for (kind, key), whole in kept.items() if kind == "class"}
    per_scale = {key: whole for (kind, key), whole in kept.items() if kind == "scale"}
    return renormalised, Maps(kept["all", None], None, per_class, per_scale)


def groups_of(entry: DetectionExplanation, settings: Settings) -> Iterable[tuple[str, object]]:
    """Yield which maps a detection adds to: that of everything, of its class, of its scale."""
    yield "all", None
    if settings.backward_per_class:
        yield "class", entry.detection.class_index
    if settings.scales:
        yield "scale", entry.detection.stride
