"""How much longer than their bare forward passes do the maps of black-box methods take?

    python benchmarks/black_box_speed.py [--weights best.pt] [--image photo.jpg]

The same number of passes, in the same batches, runs bare and for the maps of all detections, which adds masks, masked
images, similarities and sums. Both run in alternating rounds in one process; the ratio is that of the medians. Before that
the bare pass is timed at several batch sizes, per image. Without a photograph noise is explained, by a random yolov5n.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from explain_speed import random_network, seconds, threshold_for  # noqa: E402

from explainer.detectors.detector import Detector  # noqa: E402
from explainer.detectors.weights import open_model  # noqa: E402
from explainer.explain import Explainer  # noqa: E402
from explainer.methods.black_box import PASSES_PER_LOOK, batch_size  # noqa: E402
from explainer.methods.catalogue import METHODS  # noqa: E402
from explainer.subjects import Asked, subjects  # noqa: E402

BUDGET = 1.1
PASSES = 2 * PASSES_PER_LOOK


def bare(detector: Detector, image: torch.Tensor, batch: int, passes: int) -> None:
    """Run the network on an image as often as the masks do."""
    images = image.expand(batch, -1, -1, -1).contiguous()
    for _ in range(passes // batch):
        detector.predict(images)


def time_batches(detector: Detector, image: torch.Tensor, rounds: int) -> None:
    """Print the time of a pass per image at several batch sizes."""
    times = {batch: [] for batch in (1, 2, 4, 8)}
    for _ in range(rounds):
        for batch, found in times.items():
            found.append(seconds(bare, detector, image, batch, 8) / 8)
    print("bare pass per image: " + ", ".join(f"batch {b} {median(t) * 1e3:.1f} ms" for b, t in times.items()))


def compare(method: str, model: torch.nn.Module, image_rgb: np.ndarray, arguments: argparse.Namespace) -> None:
    """Print both medians of one method, and their ratio."""
    explainer = Explainer(model, method=method, masks=PASSES, conf_thres=arguments.conf_thres)
    attributor = explainer.attributor
    with explainer.detector.borrowed() as detector:
        seen = detector.see(image_rgb, explainer.sight)
        found = subjects(seen, Asked(), explainer.settings, explainer.chosen)
        target = attributor.planner.plan(found).target(seen.recording, attributor.views[0])

        def explain() -> np.ndarray:
            return METHODS[method].evidence(detector, seen.recording, target, explainer.settings).maps

        image, batch = seen.recording.image, batch_size(seen.recording.image.device)
        times = {"bare": [], "maps": []}
        for _ in range(arguments.rounds):
            times["bare"].append(seconds(bare, detector, image, batch, PASSES))
            times["maps"].append(seconds(explain))
    plain, maps = (median(each) / PASSES * 1e3 for each in times.values())
    print(
        f"{method:12} {image.shape[3]}x{image.shape[2]}, {len(found.detections)} detections, batches of {batch}: "
        f"bare pass {plain:.1f} ms, masked pass {maps:.1f} ms, ratio {maps / plain:.3f} (budget {BUDGET})"
    )


def main() -> None:
    """Measure every black-box method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a checkpoint to measure instead of a random yolov5n")
    parser.add_argument("--image", help="a photograph to explain instead of noise")
    parser.add_argument("--rounds", type=int, default=9, help="alternating rounds")
    arguments = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    image_rgb = cv2.imread(arguments.image)[..., ::-1].copy() if arguments.image else noise
    model = open_model(arguments.weights) if arguments.weights else random_network("yolov5n.yaml", image_rgb)
    explainer = Explainer(model)
    arguments.conf_thres = threshold_for(explainer.detector, image_rgb)
    image, _ = explainer.detector.prepare(image_rgb, explainer.sight.input_size)
    time_batches(explainer.detector, image, arguments.rounds)
    for name, method in METHODS.items():
        if not method.reads_layers:
            compare(name, model, image_rgb, arguments)


if __name__ == "__main__":
    main()
