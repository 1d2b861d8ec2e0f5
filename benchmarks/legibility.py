"""Can the evidence be seen in the picture, and the photograph under it?

    python benchmarks/legibility.py --weights yolov5n.pt --source ../datasets/coco128/images/train2017

For each method, of the picture of all detections with the colours of the heat alone, without boxes and labels:

    unseen   of the detections with evidence in their box, a thousandth of it at least, the share whose box shows none: less
             than 3 % of it changed
    painted  the share of the picture that changed
    EBPG     the share of the detections' evidence that lies in their boxes (energy-based pointing game, Wang et al. 2020)

A pixel has changed if its colour differs from the photograph's by more than 10 units of CIE L*a*b* (CIE 1976). `--tint` shows
the maps over the photograph in other colours, in which a colour map could vanish; the detector sees it as it is. `--tone` and
`--colormap` are the command's. Beside each figure stands what was aimed at, where it was missed.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.explain import Explainer  # noqa: E402
from explainer.files.sources import read_image  # noqa: E402
from explainer.maps.heatmaps import pixels_in_box  # noqa: E402
from explainer.methods.catalogue import METHODS  # noqa: E402
from explainer.pictures.drawing import TONES, Style, paint  # noqa: E402

DIFFERENT, SHARE_OF_BOX, SOME_EVIDENCE = 10, 0.03, 1e-3
UNSEEN_BUDGET, PAINTED_BUDGET, FOCUSED, DIFFUSE_BUDGET = 0.01, 0.35, 0.5, 0.5
# Of the light that a photograph reflects, in red, green and blue; half of its own colours is left.
INKS = {
    "yellow": (1, 0.85, 0.1),
    "green": (0.2, 0.8, 0.2),
    "red": (1, 0.15, 0.1),
    "purple": (0.6, 0.1, 0.7),
    "orange": (1, 0.5, 0.1),
}
TINTS = ("none", "dark", "bright", "grey", *INKS)


def tinted(image_rgb: np.ndarray, tint: str) -> np.ndarray:
    """Return a photograph, RGB uint8 (H, W, 3), in other colours, one of TINTS."""
    image, grey = image_rgb.astype(np.float32), image_rgb.mean(axis=2, keepdims=True)
    if tint in INKS:
        return np.uint8((image + grey) / 2 * np.float32(INKS[tint]))
    changed = {"none": image, "dark": image / 5, "bright": 255 - (255 - image) / 5, "grey": grey.repeat(3, axis=2)}
    return np.uint8(changed[tint])


def changed_pixels(before_rgb: np.ndarray, after_rgb: np.ndarray) -> np.ndarray:
    """Return which pixels (H, W) of two pictures look different."""
    before, after = (cv2.cvtColor(np.float32(each) / 255, cv2.COLOR_RGB2LAB) for each in (before_rgb, after_rgb))
    return np.linalg.norm(after - before, axis=2) > DIFFERENT


@dataclass
class Seen:
    """What was seen of one method's pictures: a figure per detection with evidence in its box, and per picture."""

    of_boxes: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    painted: list[float] = field(default_factory=list)

    def add(self, explanation, image_rgb: np.ndarray, style: Style) -> None:
        """Look at the map of an explanation over a photograph."""
        boxes = [entry.detection.xyxy for entry in explanation.detections]
        changed = changed_pixels(image_rgb, paint(image_rgb, explanation.heatmap, style, boxes=boxes))
        self.painted.append(changed.mean())
        for entry, box in zip(explanation.detections, boxes, strict=True):
            inside, energy = changed[pixels_in_box(box, changed.shape)], entry.energy_in_box
            self.energies += [] if energy is None else [energy]
            self.of_boxes += [inside.mean()] if energy and energy >= SOME_EVIDENCE else []

    def line(self, method: str) -> str:
        """Return the figures of a method, and what they should have been."""
        unseen, painted = np.mean(np.array(self.of_boxes) < SHARE_OF_BOX), np.mean(self.painted)
        energy = np.mean(self.energies)
        budget = PAINTED_BUDGET if energy >= FOCUSED else DIFFUSE_BUDGET
        missed = [f"unseen > {UNSEEN_BUDGET}"] if unseen > UNSEEN_BUDGET else []
        missed += [f"painted > {budget}"] if painted > budget else []
        return f"{method:20} {unseen:7.3f} {painted:8.3f} {energy:6.2f} {len(self.of_boxes):6}  {', '.join(missed)}"


def look(
    explainer: Explainer, photographs: Iterable[Path], tints: Sequence[str], style: Style
) -> Iterator[tuple[str, Seen]]:
    """Yield each tint and what was seen of an explainer's pictures of photographs in it; each is explained once."""
    seen = {tint: Seen() for tint in tints}
    for path in photographs:
        image_rgb = read_image(path)
        explanation = explainer(image_rgb)
        for tint in tints if explanation.detections else ():
            seen[tint].add(explanation, tinted(image_rgb, tint), style)
    yield from seen.items()


def main() -> None:
    """Print a line per method and tint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--source", required=True, type=Path, help="a folder of photographs")
    parser.add_argument("--method", nargs="+", default=[name for name in METHODS if METHODS[name].reads_layers])
    parser.add_argument("--tint", nargs="+", default=["none"], choices=TINTS)
    parser.add_argument("--tone", default=Style.tone, choices=TONES)
    parser.add_argument("--colormap", default=Style.colormap)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="look at each N-th photograph alone")
    options = parser.parse_args()
    style = Style(tone=options.tone, colormap=options.colormap)
    photographs = sorted(path for path in options.source.rglob("*") if path.suffix in {".jpg", ".png"})[
        :: options.every
    ]
    if not photographs:
        parser.error(f"{options.source}: no .jpg or .png there")
    model = open_model(options.weights)
    print(f"{'method':20} {'unseen':>7} {'painted':>8} {'EBPG':>6} {'boxes':>6}", flush=True)
    for method in options.method:
        explainer = Explainer(model, method=method, no_near_miss=True)
        for tint, seen in look(explainer, photographs, options.tint, style):
            print(seen.line(method if tint == "none" else f"{method}, {tint}"), flush=True)


if __name__ == "__main__":
    main()
