"""Figures for the heatmaps of an image's detections, by all that takes part: the methods, and heatmaps that explain nothing.

It touches no files.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.detector import Detector
from explainer.detectors.predictions import Detection, Predictions
from explainer.detectors.weights import detector_of, open_model
from explainer.evaluation.cost import Cost, Meter
from explainer.evaluation.faithfulness import Curves, Perturbation, Protocol, road
from explainer.evaluation.options import Evaluation
from explainer.evaluation.robustness import Robustness
from explainer.evaluation.sanity import Sanity, shuffled_copies
from explainer.explain import Explainer
from explainer.explanation import DetectionExplanation
from explainer.files.labels import Box, Label, boxes_of
from explainer.maps import measures
from explainer.maps.heatmaps import pixels_in_box
from explainer.maps.measures import Region, area_under, confidence_drop
from explainer.maps.trivial import TRIVIAL
from explainer.methods.black_box import batch_size
from explainer.settings import Settings
from explainer.subjects import OVERLAP_OF_A_HIT, overlaps

# A method and a layer, as tables name them.
Name = tuple[str, str]
# One detection by one contender: values by column name.
Row = dict[str, object]


@dataclass(frozen=True)
class Answer:
    """What a contender says about some detections of an image.

    heatmaps   one for each, float32 (H, W) in 0..1 at the size of the image
    layers     where each was read, for the table
    explained  the explanations themselves, where there are any
    shared_by  how many detections were explained at once, and share the cost
    """

    heatmaps: list[np.ndarray]
    layers: list[str]
    shared_by: int
    explained: list[DetectionExplanation] = field(default_factory=list)


class ByExplainer:
    """One method of the explainer, as it is set."""

    def __init__(self, detector: Detector, layer: str, settings: Settings):
        self.explainer = Explainer(detector, **vars(settings))
        self.method, self.layer = settings.method, layer

    def __call__(self, image_rgb: np.ndarray, detections: Sequence[Detection]) -> Answer:
        """Return the heatmaps of an image's detections."""
        explanation = self.explainer(image_rgb)
        by_row = {entry.detection.row: entry for entry in explanation.detections}
        entries = [by_row[found.row] for found in detections]
        return Answer(
            [entry.heatmap for entry in entries], [" ".join(entry.layers) for entry in entries], len(by_row), entries
        )


class Trivially:
    """One of the heatmaps that explain nothing, by its name: what is known before anything is explained."""

    layer = ""

    def __init__(self, name: str):
        self.method, self.map = name, TRIVIAL[name]

    def __call__(self, image_rgb: np.ndarray, detections: Sequence[Detection]) -> Answer:
        """Return the heatmaps of an image's detections."""
        maps = [self.map(image_rgb, found.xyxy) for found in detections]
        return Answer(maps, [""] * len(maps), len(maps))


Contender = ByExplainer | Trivially


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


@dataclass(frozen=True)
class Scene:
    """One image under evaluation.

    predictions  of the whole image, (N)
    locations    where the evaluated detections lie
    """

    image_rgb: np.ndarray
    predictions: Predictions
    locations: list[Location]
    perturbation: Perturbation

    @property
    def detections(self) -> list[Detection]:
        """The detections that are evaluated."""
        return [each.detection for each in self.locations]


class Evaluator:
    """Scores the heatmaps of every contender for the detections of one image after the other.

    model  a detection model, or a Detector of your own
    meter  counts what is run of the network while it is entered
    """

    def __init__(self, model: nn.Module | Detector, options: Evaluation):
        self.options = options
        ways = list(options.settings())
        self.detector = detector_of(model, ways[0][1].imgsz)
        copies = shuffled_copies(self.detector, options.seed) if options.sanity else {}
        self.meter = Meter(self.detector, copies.values())
        random, *methods = [ByExplainer(self.detector, layer, settings) for layer, settings in ways]
        self.contenders: list[Contender] = [random, *map(Trivially, TRIVIAL), *methods]
        self.reference = random.explainer
        checked = (random, *methods) if copies else ()
        measured = (random, *methods) if options.robustness else ()
        self.robustness = {(e.method, e.layer): Robustness(e.explainer, options.seed) for e in measured}
        self.sanity = {(each.method, each.layer): Sanity(each.explainer, copies) for each in checked}

    def __call__(
        self, image_rgb: np.ndarray, labels: tuple[Label, ...] = (), without: Collection[Name] = ()
    ) -> Iterator[list[Row]]:
        """Yield the rows of each contender but those `without`, one row for each evaluated detection of an image."""
        wanted = [each for each in self.contenders if (each.method, each.layer) not in without]
        if not wanted:
            return
        with self.detector.borrowed() as lent:
            scene = self._scene(lent, image_rgb, labels)
            for contender in wanted if scene.locations else ():
                with self.meter.measuring() as cost:
                    answer = contender(image_rgb, scene.detections)
                yield self._rows(contender, scene, answer, cost)

    def explain(self, image_rgb: np.ndarray, row: int, contender: Contender) -> tuple[Detection, np.ndarray]:
        """Return an evaluated detection, known by its prediction, and its heatmap by a contender."""
        with self.detector.borrowed() as lent:
            detections = self._scene(lent, image_rgb, ()).detections
            found = next(detection for detection in detections if detection.row == row)
            return found, contender(image_rgb, [found]).heatmaps[0]

    def _scene(self, lent: Detector, image_rgb: np.ndarray, labels: tuple[Label, ...]) -> Scene:
        """Return what there is to evaluate in an image, as the detector that was lent sees it."""
        image, letterbox = lent.prepare(image_rgb, self.reference.sight.input_size)
        with self.meter.calibrating():
            recording = lent.record(image, (), False)
        found, _ = lent.detect(recording, letterbox, self.reference.settings.suppression)
        chosen = self._sample([detection for detection in found if has_area(detection)])
        options = self.options
        at_once = options.batch_size or batch_size(image.device)
        protocol = Protocol(options.deletion, options.steps, at_once, options.seed)
        rows = [detection.row for detection in chosen]
        perturbation = Perturbation(partial(self._predict, lent), image, letterbox, rows, protocol)
        locations = locations_of(chosen, labels, image_rgb.shape[:2])
        return Scene(image_rgb, recording.predictions, locations, perturbation)

    def _predict(self, lent: Detector, images: Tensor) -> Predictions:
        """Return the predictions (B, N) for masked images, as precise as the options want them."""
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16 if kind == "cpu" else torch.half, enabled=self.options.half):
            return lent.predict(images)

    def _sample(self, detections: list[Detection]) -> list[Detection]:
        """Return as many detections as an image may have, drawn by seed, most confident first."""
        order = np.random.default_rng(self.options.seed).permutation(len(detections))
        return [detections[index] for index in np.sort(order[: self.options.max_det_per_image])]

    def _rows(self, contender: Contender, scene: Scene, answer: Answer, cost: Cost) -> list[Row]:
        """Return the rows of one contender's answer."""
        common = {"method": contender.method, "layer": contender.layer} | cost_figures(cost, answer.shared_by)
        scores = self._scores(contender, scene, answer)
        return [
            common | identity(location) | {"read": layers} | location_figures(heatmap, location) | figures
            for location, layers, heatmap, figures in zip(
                scene.locations, answer.layers, answer.heatmaps, scores, strict=True
            )
        ]

    def _scores(self, contender: Contender, scene: Scene, answer: Answer) -> list[Row]:
        """Return the figures of each heatmap that need masked passes, or further explanations."""
        perturbation, each = scene.perturbation, range(len(scene.locations))
        rows = [
            curve_figures(curves) | shown_figures(shown)
            for curves, shown in zip(
                perturbation.curves(answer.heatmaps, each), perturbation.shown(answer.heatmaps, each), strict=True
            )
        ]
        further: list[Sequence[Row]] = []
        if self.options.road:
            further.append([{"road": value} for value in road(perturbation, answer.heatmaps, each)])
        robustness = self.robustness.get((contender.method, contender.layer))
        if robustness:
            further.append(robustness.figures(scene.image_rgb, answer.explained))
        sanity = self.sanity.get((contender.method, contender.layer))
        if sanity:
            further.append(sanity.figures(scene.image_rgb, answer.explained, scene.predictions))
        for more in further:
            for row, entry in zip(rows, more, strict=True):
                row |= entry
        return rows


def open_evaluator(options: Evaluation) -> Evaluator:
    """Return an evaluator with the model that the options name."""
    # Weights alone know no names.
    names = options.data if options.arch and Path(options.data).suffix in (".yaml", ".yml") else None
    how = {"device": options.device, "trust": options.trust, "arch": options.arch, "data": names}
    return Evaluator(open_model(options.weights, **how), options)


def has_area(detection: Detection) -> bool:
    """Return whether some of a detection's box lies inside the image."""
    x1, y1, x2, y2 = detection.xyxy
    return bool(x2 > x1 and y2 > y1)


def identity(location: Location) -> Row:
    """Return which detection a row is about."""
    return {"row": location.detection.row} | location.detection.columns()


def cost_figures(cost: Cost, shared_by: int) -> Row:
    """Return what an explanation cost, as the share of each of the detections that were explained at once."""
    return {
        "milliseconds": 1e3 * cost.seconds / shared_by,
        "passes": cost.passes / shared_by,
        "passes_per_image": cost.passes,
        "memory": cost.memory,
    }


def curve_figures(curves: Curves) -> Row:
    """Return the areas under the curves, and the curves themselves."""
    deletion, insertion = area_under(curves.deletion), area_under(curves.insertion)
    return {
        "deletion": deletion,
        "insertion": insertion,
        "overall": insertion - deletion,
        "deletion_curve": curves.deletion,
        "insertion_curve": curves.insertion,
    }


def shown_figures(left: float) -> Row:
    """Return the figures of the score that is left when only the evidence is shown; 1 is that of the whole image."""
    return {"drop": confidence_drop(left), "increase": float(left > 1)}
