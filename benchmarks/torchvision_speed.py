"""How much longer than a forward pass of its own does it take to explain all detections of a detector of torchvision?

    python benchmarks/torchvision_speed.py [--image photo.jpg] [--models retinanet_resnet50_fpn] [--weights mine.pth]

A pass is what the model itself makes of the image, from its own transform to its own detections. Explaining is that plus a
map for every detection and one of the whole image, each at the size of the image. Both run on the same image in alternating
rounds in one process; the ratio is that of the medians. The models have random weights, unless a file of weights belongs to
the one that is named, and explain their eight surest detections.
"""

import argparse
import sys
from copy import deepcopy
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from torchvision.models import get_model

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from explain_speed import DETECTIONS, explain, seconds  # noqa: E402

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.explain import Explainer  # noqa: E402

BUDGET = 1.3
MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)


def random_model(name: str) -> torch.nn.Module:
    """Return a model of torchvision with random weights, the same on every run."""
    torch.manual_seed(0)
    return get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()


@torch.no_grad()
def detect(model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the model itself finds in an image (3, H, W)."""
    return model([image])[0]


def compare(name: str, model: torch.nn.Module, image_rgb: np.ndarray, methods: list[str], rounds: int) -> None:
    """Print the medians, and for each method the ratio of explaining to a pass of the model."""
    image, alone = torch.from_numpy(image_rgb.transpose(2, 0, 1).copy()).float() / 255, deepcopy(model)
    explainers = {each: Explainer(model, method=each, conf_thres=0.0, max_det=DETECTIONS) for each in methods}
    counts = {each: explain(explainer, image_rgb) for each, explainer in explainers.items()}
    passes, spent = [], {each: [] for each in methods}
    for _ in range(rounds):
        passes.append(seconds(detect, alone, image))
        for each, explainer in explainers.items():
            spent[each].append(seconds(explain, explainer, image_rgb))
    ratios = ", ".join(
        f"{each} {median(times) / median(passes):.2f} ({counts[each]} detections)" for each, times in spent.items()
    )
    print(f"{name:40} a pass {median(passes) * 1e3:.0f} ms; explaining takes, times that: {ratios} (budget {BUDGET})")


def main() -> None:
    """Measure the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a photograph to explain instead of noise")
    parser.add_argument("--models", nargs="+", default=MODELS, help="what torchvision calls them")
    parser.add_argument("--weights", help="a file of weights alone for the one model that is named")
    parser.add_argument("--methods", nargs="+", default=["GradCAM", "LayerCAM", "EigenCAM"])
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds")
    args = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    image_rgb = cv2.imread(args.image)[..., ::-1].copy() if args.image else noise
    for name in args.models:
        model = open_model(args.weights, device="cpu", arch=name) if args.weights else random_model(name)
        compare(name, model, image_rgb, args.methods, args.rounds)


if __name__ == "__main__":
    main()
