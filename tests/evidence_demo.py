"""The bundled demo: its model, and its scenes with boxes and masks."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.scripts.evidence.proof import LEAST_OVERLAP, overlaps

DEMO = Path(__file__).parents[1] / "data/demo"
WEIGHTS = DEMO / "demo.pt"
# Half of what the command takes, for quick tests.
IMGSZ = 320


@dataclass(frozen=True)
class DemoScene:
    """A scene of the demo: uint8 RGB (H, W, 3), classes (n,), boxes (n, 4) in pixels, masks (n, H, W) of the objects."""

    image_rgb: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    bodies: np.ndarray
    emblems: np.ndarray


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
