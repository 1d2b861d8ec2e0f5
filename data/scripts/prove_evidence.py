"""Prove that a model trained on the Evidence set reads the class off the emblem alone.

python data/scripts/prove_evidence.py --weights data/demo/demo.pt --scenes 100 --imgsz 640
python data/scripts/prove_evidence.py --model fasterrcnn --weights data/demo/fasterrcnn.pth --imgsz 480

Each held-out scene is drawn three times: as it is, with the emblems painted over by the surface of their bodies, and with
everything altered but the emblems. Without emblems the class must be a guess, with them it must stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(ROOT))

from data.scripts.evidence.altering import with_other_surroundings, without_emblems  # noqa: E402
from data.scripts.evidence.composing import compose  # noqa: E402
from data.scripts.evidence.opening import OPENERS  # noqa: E402
from data.scripts.evidence.proof import Tally, class_tally, truth  # noqa: E402
from data.scripts.evidence.rendering import CLASSES, render  # noqa: E402


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "data/demo/demo.pt", help="checkpoint")
    parser.add_argument("--model", choices=OPENERS, default="yolov5", help="what the checkpoint is of")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes, from the first on")
    parser.add_argument("--size", type=int, default=480, help="side of a scene in pixels")
    parser.add_argument("--imgsz", type=int, default=640, help="inference size in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the set")
    return parser.parse_args(arguments)


def prove(weights: Path, scenes: int, size: int, imgsz: int, seed: int, model: str = "yolov5") -> dict[str, Tally]:
    """Return how the model tells classes in the scenes as they are, without emblems, and in other surroundings."""
    detect = OPENERS[model](weights, imgsz)
    drawn = [compose(seed, index, size) for index in range(scenes)]
    shown = {
        "as drawn": drawn,
        "emblems painted over": [without_emblems(scene) for scene in drawn],
        "all but the emblems altered": [with_other_surroundings(scene, index) for index, scene in enumerate(drawn)],
    }
    truths = [truth(render(scene)) for scene in drawn]
    return {
        name: class_tally(detect, (render(scene).image_rgb for scene in others), truths)
        for name, others in shown.items()
    }


def main(opt: argparse.Namespace) -> None:
    """Print the three figures."""
    for name, tally in prove(**vars(opt)).items():
        print(f"{name:>28}: {tally}")
    print(f"{'by guessing':>28}: {1 / len(CLASSES):.3f}")


if __name__ == "__main__":
    main(parse_opt())
