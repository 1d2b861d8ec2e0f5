"""The bundled demo: its model, and its scenes with boxes and masks."""

import copy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from data.scripts.evidence.proof import LEAST_OVERLAP, overlaps
from explainer.explain import Explainer

DEMO = Path(__file__).parents[1] / "data/demo"
WEIGHTS = DEMO / "demo.pt"
# Half of what the command takes, for quick tests.
IMGSZ = 320
IMGSZ_OF_SCENES = 480
# Evidence for an edge lies in cells on either side of it: a body is taken with one cell of the layer around it.
CELL = 8


@dataclass(frozen=True)
class DemoScene:
    """A scene of the demo: uint8 RGB (H, W, 3), classes (n,), boxes (n, 4) in pixels, masks (n, H, W) of the objects."""

    image_rgb: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    bodies: np.ndarray
    emblems: np.ndarray


@dataclass(frozen=True)
class Figures:
    """Means over all objects of the demo: shares of a map's sum, and of maps whose peak is a hit, all 0..1."""

    energy_on_emblem: float
    energy_on_rest_of_body: float
    peak_on_emblem: float


def demo_scenes() -> list[DemoScene]:
    """Return the scenes in the order of their names."""
    return [read_scene(path) for path in sorted((DEMO / "images").glob("*.jpg"))]


def read_scene(path: Path) -> DemoScene:
    image_rgb = cv2.imread(str(path))[..., ::-1].copy()
    height, width = image_rgb.shape[:2]
    rows = np.loadtxt(DEMO / "labels" / f"{path.stem}.txt", ndmin=2)
    centres, sides = rows[:, 1:3] * (width, height), rows[:, 3:] * (width, height)
    masks = {}
    for kind in ("body", "emblem"):
        indices = cv2.imread(str(DEMO / "masks" / f"{path.stem}_{kind}.png"), cv2.IMREAD_UNCHANGED)
        masks[kind] = indices == np.arange(1, len(rows) + 1)[:, None, None]
    boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)
    return DemoScene(image_rgb, rows[:, 0].astype(int), boxes, masks["body"], masks["emblem"])


def matched(explanation, scene: DemoScene):
    """Yield (explanation of a detection, number of its object) for detections of the right class that overlap by half."""
    for entry in explanation.detections:
        found = overlaps(entry.detection.xyxy, scene.boxes)
        number = int(found.argmax())
        if found[number] >= LEAST_OVERLAP and scene.classes[number] == entry.detection.class_index:
            yield entry, number


def figures_of_scenes(model, scenes, *, classes_further=0, **settings) -> Figures:
    """Return how the maps of all objects lie on their emblems and bodies, each asked about with its own class or another."""
    explainer = Explainer(model, **{"method": "LayerCAM", **settings})
    count = len(explainer.detector.names)
    rows = []
    for scene in scenes:
        classes = (scene.classes + classes_further) % count
        asked = [(*box, int(index)) for box, index in zip(scene.boxes.tolist(), classes, strict=True)]
        for number, entry in enumerate(explainer(scene.image_rgb, boxes=asked).detections):
            rows.append(figures_of(entry.heatmap, scene.emblems[number], scene.bodies[number]))
    return Figures(*np.mean(rows, axis=0))


def figures_of_found(model, scenes, **settings) -> Figures:
    """Return how the maps of what the model finds lie on the emblems and bodies of the objects that it found."""
    explainer = Explainer(model, **settings)
    rows = []
    for scene in scenes:
        for entry, number in matched(explainer(scene.image_rgb), scene):
            rows.append(figures_of(entry.heatmap, scene.emblems[number], scene.bodies[number]))
    return Figures(*np.mean(rows, axis=0))


def figures_of(heatmap, emblem, body) -> tuple[float, float, float]:
    """Return the figures of one map; those of an empty map are zero."""
    total = max(heatmap.sum(), 1e-9)
    hit = emblem[np.unravel_index(heatmap.argmax(), heatmap.shape)] and heatmap.any()
    rest = cv2.dilate(body.astype(np.uint8), np.ones((2 * CELL + 1, 2 * CELL + 1))) > emblem
    return heatmap[emblem].sum() / total, heatmap[rest].sum() / total, hit


def shuffled(model):
    """Return a copy of the model whose weights have changed places within each layer."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
