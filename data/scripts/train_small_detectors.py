"""Train a small detector of another family on the Evidence set, and print its mAP50 on the scenes held out.

python data/scripts/train_small_detectors.py --model fasterrcnn --epochs 4 --seed 0 --out data/demo/fasterrcnn.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(ROOT))

from data.scripts.evidence.opening import OPENERS, Detect  # noqa: E402
from data.scripts.evidence.reading import Labelled, read_scenes  # noqa: E402
from data.scripts.evidence.rendering import CLASSES  # noqa: E402
from data.scripts.learning import torchvision_detectors, yolov8_detector  # noqa: E402
from data.scripts.small_detectors import fasterrcnn_small, retinanet_small  # noqa: E402
from utils.validating.metrics import ap_per_class, true_positives  # noqa: E402

BUILDERS = {"fasterrcnn": fasterrcnn_small, "retinanet": retinanet_small}
# Sides in pixels of the scenes that are read to learn from, and of those that figures are taken on.
TRAIN_SIDE, VAL_SIDE = 320, 480


def train_torchvision(opt: argparse.Namespace, scenes: list[Labelled]) -> None:
    """Train a detector of torchvision and write its state dict."""
    model = BUILDERS[opt.model](len(CLASSES) + 1)
    rng = np.random.default_rng(opt.seed)
    torchvision_detectors.train(
        model,
        scenes,
        epochs=opt.epochs,
        emblem_epochs=opt.emblem_epochs,
        rng=rng,
        device=torch.device(opt.device),
        class_gain=opt.class_gain,
    )
    torch.save(torchvision_detectors.half_precision(model.state_dict()), opt.out)


def train_yolov8(opt: argparse.Namespace, scenes: list[Labelled]) -> None:
    """Train a YOLOv8 and write its checkpoint."""
    yolov8_detector.train(opt.out, opt.data, scenes, epochs=opt.epochs, emblem_epochs=opt.emblem_epochs, seed=opt.seed)


TRAININGS = {"fasterrcnn": train_torchvision, "retinanet": train_torchvision, "yolov8": train_yolov8}


def mean_ap(detect: Detect, scenes: list[Labelled]) -> tuple[float, float]:
    """Return mAP50 and mAP50-95 of a detector on scenes."""
    rows = []
    for scene in scenes:
        found = torch.from_numpy(detect(scene.image_rgb)).float()
        found = found[found[:, 4].argsort(descending=True)]
        labels = torch.tensor(np.column_stack((scene.classes, scene.boxes)), dtype=torch.float32)
        rows.append((true_positives(found, labels), found[:, 4], found[:, 5], labels[:, 0]))
    hits, scores, detected, labelled = (torch.cat(parts).numpy() for parts in zip(*rows, strict=True))
    ap = ap_per_class(hits, scores, detected, labelled)[5]
    return float(ap[:, 0].mean()), float(ap.mean())


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=TRAININGS, required=True, help="what to train")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "datasets/evidence", help="folder of the set")
    parser.add_argument("--epochs", type=int, default=8, help="how often all scenes are looked at")
    parser.add_argument("--emblem-epochs", type=int, default=8, help="how often all emblems are, before that")
    parser.add_argument("--seed", type=int, default=0, help="what all that is random depends on")
    parser.add_argument("--class-gain", type=float, default=1.0, help="what a RetinaNet's loss of classes counts")
    parser.add_argument("--device", default="cpu", help="what torchvision's detectors are trained on, cpu or cuda")
    parser.add_argument("--out", type=Path, required=True, help="file to write the weights to, in half precision")
    return parser.parse_args(arguments)


def main(opt: argparse.Namespace) -> None:
    """Train, write the weights, and print the figures of what was written."""
    torch.manual_seed(opt.seed)
    TRAININGS[opt.model](opt, read_scenes(opt.data, "train", TRAIN_SIDE))
    map50, map50_95 = mean_ap(OPENERS[opt.model](opt.out, VAL_SIDE), read_scenes(opt.data, "val", VAL_SIDE))
    print(f"{opt.out}: {opt.out.stat().st_size:,} bytes, mAP50 {map50:.3f}, mAP50-95 {map50_95:.3f}")


if __name__ == "__main__":
    main(parse_opt())
