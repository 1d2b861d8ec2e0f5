"""How much longer than detecting the objects of an image does it take to explain them all?

    python benchmarks/explain_speed.py [--weights best.pt] [--image photo.jpg] [--device cuda:0]

Detecting is letterbox, forward pass and non-maximum suppression, as detect.py does them; explaining is all of that plus a
Grad-CAM heatmap of every detection and of the whole image, each at the image's original size. Both run on the same image in
alternating rounds in one process; the ratio is that of the medians. On a CPU the explainer hands the image to the network
with the channels of each pixel side by side, which is faster; what explaining costs beyond a detection that does the same
is the second ratio. Without a photograph, noise is explained; a random network gets a confidence threshold that gives it
about as many detections as a photograph has.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.detectors.yolov5 import YOLOv5  # noqa: E402
from explainer.explain import Explainer  # noqa: E402
from models.yolo import DetectionModel  # noqa: E402
from utils.base.nms import non_max_suppression  # noqa: E402

BUDGET = 1.25
DETECTIONS = 8


def random_network(config: str, image_rgb: np.ndarray) -> torch.nn.Module:
    """Return a randomly initialised network, the same on every run.

    Its normalisation is set by the image, so that its predictions differ from cell to cell as those of a trained one do.
    """
    torch.manual_seed(0)
    model = DetectionModel(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    image, _ = YOLOv5(model).prepare(image_rgb, (640, 640))
    with torch.no_grad():
        model.train()(image)
    return model.eval().fuse()


def detect(
    detector: YOLOv5, image_rgb: np.ndarray, conf_thres: float, layout: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    """Return the detections (n, 6) of an image at 640 pixels, which the network is given in this order of memory."""
    with torch.inference_mode():
        image, _ = detector.prepare(image_rgb, (640, 640))
        return non_max_suppression(detector.model(image.contiguous(memory_format=layout))[0], conf_thres)[0]


def explain(explainer: Explainer, image_rgb: np.ndarray) -> int:
    """Explain an image, every heatmap at its original size; return the number of detections."""
    explanation = explainer(image_rgb)
    for entry in explanation.detections:
        assert entry.heatmap.shape == image_rgb.shape[:2]
    return len(explanation.detections)


def threshold_for(detector: YOLOv5, image_rgb: np.ndarray) -> float:
    """Return 0.25 for a network that is sure of something, or else the confidence at which it detects a few objects."""
    found = detect(detector, image_rgb, 0.0)[:, 4]
    trained = (found > 0.25).any() and (found < 0.25).any()
    return 0.25 if trained else float(found[min(DETECTIONS, len(found) - 1)])


def seconds(work, *arguments) -> float:
    """Return how long one call takes, until a graphics card that works on it is done."""
    started = perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - started


def compare(name: str, model: torch.nn.Module, image_rgb: np.ndarray, rounds: int) -> float:
    """Print the medians and return the ratio of explaining to detecting as detect.py does."""
    detector = YOLOv5(model)
    conf_thres = threshold_for(detector, image_rgb)
    explainer = Explainer(model, conf_thres=conf_thres)
    count = explain(explainer, image_rgb)
    work = {
        "detect": (detect, detector, image_rgb, conf_thres),
        "alike": (detect, detector, image_rgb, conf_thres, torch.channels_last),
        "explain": (explain, explainer, image_rgb),
    }
    spent = {name: [seconds(*call)] for name, call in work.items()}
    for _ in range(rounds):
        for each, call in work.items():
            spent[each].append(seconds(*call))
    detecting, alike, explaining = (median(times[1:]) * 1e3 for times in spent.values())
    height, width = image_rgb.shape[:2]
    print(
        f"{name:10} {width}x{height}, {count} detections: detect {detecting:.1f} ms, explain {explaining:.1f} ms, "
        f"ratio {explaining / detecting:.2f} (budget {BUDGET}); to channels side by side {explaining / alike:.2f}"
    )
    return explaining / detecting


def main() -> None:
    """Measure the networks that can be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a checkpoint to measure instead of a random yolov5n")
    parser.add_argument("--device", default="cpu", help="where the networks run: cpu, or cuda:0")
    parser.add_argument("--image", help="a photograph to explain instead of noise")
    parser.add_argument("--rounds", type=int, default=30, help="alternating rounds")
    args = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    image_rgb = cv2.imread(args.image)[..., ::-1].copy() if args.image else noise
    if args.weights:
        first = open_model(args.weights, device=args.device)
    else:
        first = random_network("yolov5n.yaml", image_rgb).to(args.device)
    compare("yolov5n" if not args.weights else Path(args.weights).stem, first, image_rgb, args.rounds)
    compare("yolov5s", random_network("yolov5s.yaml", image_rgb).to(args.device), image_rgb, args.rounds)


if __name__ == "__main__":
    main()
