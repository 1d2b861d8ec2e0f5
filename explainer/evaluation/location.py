"""Where the heatmap of a detection lies: on its box, on its label, on other objects."""

from dataclasses import dataclass

import numpy as np

from explainer.detectors.predictions import Detection
from explainer.files.labels import Box, Label, boxes_of
from explainer.maps import measures
from explainer.maps.heatmaps import pixels_in_box
from explainer.maps.measures import Region
from explainer.subjects import OVERLAP_OF_A_HIT, overlaps


@dataclass(frozen=True)
class Location:
    """Where a detection lies in an image; its label and the other labelled objects, where a label fits it."""

    detection: Detection
    label: Region | None = None
    others: tuple[Region, ...] = ()


def locations_of(detections: list[Detection], labels: tuple[Label, ...], image_size: tuple[int, int]) -> list[Location]:
    """Return the location of each detection, with the label of its class that it overlaps most, by half or more."""
    if not labels:
        return [Location(found) for found in detections]
    boxes = [Box(np.float32(corners), index) for *corners, index in boxes_of(labels, image_size)]
    regions = [region_of(label, box, image_size) for label, box in zip(labels, boxes, strict=True)]
    locations = []
    for found, overlap in zip(detections, overlaps(detections, boxes), strict=True):
        best = int(overlap.argmax())
        if overlap[best] < OVERLAP_OF_A_HIT:
            locations.append(Location(found))
        else:
            others = tuple(region for index, region in enumerate(regions) if index != best)
            locations.append(Location(found, regions[best], others))
    return locations


def region_of(label: Label, box: Box, image_size: tuple[int, int]) -> Region:
    """Return the pixels of an image (height, width) inside the outline of a label, or inside its box if it has none."""
    import cv2

    if not label.outline:
        return pixels_in_box(box.xyxy, image_size)
    height, width = image_size
    corners = np.float64(label.outline).reshape(-1, 2) * (width, height) - 0.5
    mask = np.zeros(image_size, dtype=np.uint8)
    return cv2.fillPoly(mask, [np.int32(np.rint(corners))], 1).astype(bool)


def location_figures(heatmap: np.ndarray, location: Location) -> dict[str, float | None]:
    """Return the figures that say where a heatmap (H, W) lies. An empty one misses everything: it counts as 0 there."""
    box = pixels_in_box(location.detection.xyxy, heatmap.shape)
    return {
        "energy_in_box": measures.share_inside(heatmap, box) or 0.0,
        "peak_in_box": float(measures.peak_inside(heatmap, box) or False),
        "enrichment": measures.enrichment(heatmap, box) or 0.0,
        **label_figures(heatmap, location),
        "compactness": measures.compactness(heatmap, location.detection.xyxy),
        "sparseness": measures.gini(heatmap),
        "blank": float(not heatmap.any()),
    }


def label_figures(heatmap: np.ndarray, location: Location) -> dict[str, float | None]:
    """Return the figures that need a label; None each where there is none."""
    if location.label is None:
        return dict.fromkeys(("energy_in_label", "peak_in_label", "on_others"))
    return {
        "energy_in_label": measures.share_inside(heatmap, location.label) or 0.0,
        "peak_in_label": float(measures.peak_inside(heatmap, location.label) or False),
        "on_others": measures.object_discrimination(heatmap, location.label, location.others),
    }
