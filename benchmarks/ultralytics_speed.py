"""How much longer than detecting does it take to explain all detections of a model of the ultralytics package?

    pip install ultralytics
    python benchmarks/ultralytics_speed.py [--weights best.pt] [--image photo.jpg] [--models yolov8n yolo11n]

Detecting is letterbox, forward pass of the model and the package's own non-maximum suppression; explaining is all of that
plus a heatmap of every detection and of the whole image, each at the image's original size. The third figure is what the
package offers itself, `predict(visualize=True)`: detecting, and one picture, at the size of the input, of the LayerCAM of up
to 16 predictions as they are before suppression, at the same confidence; earlier versions draw the channels of every layer.
All run on the same image in alternating rounds in one process; ratios are those of the medians. A random network gets a
confidence threshold that gives it about as many detections as a photograph has.

Explaining 8 detections of noise of 1280x720, as a multiple of detecting, one thread of a busy machine (OMP_NUM_THREADS=1): of
one run; the ratios vary by a tenth. Before, the whole network was differentiated for each detection:

                                    yolov8n   yolo11n   yolo26n   before
    GradCAM        --layer neck      1.12      1.18      1.32     2.5 to 3.1
    LayerCAM       --layer neck      1.13      1.06      1.36
    FusedLayerCAM  --layer neck      1.28      1.13      1.34
    GradCAM        --layer auto      1.16      1.12      1.33     2.5 to 3.1
    LayerCAM       --layer auto      1.29      1.16      1.41
    FusedLayerCAM  --layer auto      4.66      5.31      5.59     6.0
    visualize=True                   4.28      4.09      5.17

The neck of these networks ends at the inputs of the head, where windows of a few cells give all gradients at once. The finest
layer that FusedLayerCAM reads lies below the neck: each detection is differentiated through all that is between, which takes
as long as that part of a forward pass.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explainer.detectors.ultralytics import Ultralytics  # noqa: E402
from explainer.detectors.weights import detector_of, open_model  # noqa: E402
from explainer.explain import Explainer  # noqa: E402

DETECTIONS = 8
MODELS = ("yolov8n", "yolo11n", "yolo26n")
METHODS = ("GradCAM", "LayerCAM", "FusedLayerCAM")
LAYERS = ("neck", "auto")


def random_network(name: str, image_rgb: np.ndarray) -> torch.nn.Module:
    """Return a randomly initialised network, the same on every run, whose normalisation is set by the image."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", verbose=False).eval()
    image, _ = detector_of(model, (640, 640)).prepare(image_rgb, (640, 640))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(image)
    return model.eval().fuse(verbose=False)


def detect(detector: Ultralytics, image_rgb: np.ndarray, conf_thres: float) -> torch.Tensor:
    """Return the package's detections (n, 6) of an image at 640 pixels."""
    from ultralytics.utils.nms import non_max_suppression

    with torch.inference_mode():
        image, _ = detector.prepare(image_rgb, (640, 640))
        return non_max_suppression(detector.model(image)[0], conf_thres, end2end=detector.end_to_end)[0]


def explain(explainer: Explainer, image_rgb: np.ndarray) -> int:
    """Explain an image, every heatmap at its original size; return the number of detections."""
    explanation = explainer(image_rgb)
    for entry in explanation.detections:
        assert entry.heatmap.shape == image_rgb.shape[:2]
    return len(explanation.detections)


def visualiser(model: torch.nn.Module, image_rgb: np.ndarray, conf_thres: float, folder: str) -> Callable[[], object]:
    """Return what has the package visualise its predictions in an image."""
    from ultralytics import YOLO

    wrapped = YOLO(f"{MODELS[0]}.yaml", verbose=False)
    wrapped.model = model
    settings = {
        "imgsz": 640,
        "conf": conf_thres,
        "visualize": True,
        "verbose": False,
        "project": folder,
        "exist_ok": True,
    }
    return lambda: wrapped.predict(image_rgb[..., ::-1].copy(), **settings)


def threshold_for(detector: Ultralytics, image_rgb: np.ndarray) -> float:
    """Return 0.25 for a network that is sure of something, or else the confidence at which it detects a few objects."""
    found = detect(detector, image_rgb, 0.0)[:, 4]
    trained = (found > 0.25).any() and (found < 0.25).any()
    return 0.25 if trained else float(found[min(DETECTIONS, len(found) - 1)])


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def compare(name: str, model: torch.nn.Module, image_rgb: np.ndarray, cases: list[tuple], rounds: int) -> None:
    """Print the medians for each (method, layer)."""
    detector = detector_of(model, (640, 640))
    conf_thres = threshold_for(detector, image_rgb)
    explainers = {
        case: Explainer(detector, method=case[0], layer=case[1], conf_thres=conf_thres, imgsz=640) for case in cases
    }
    count = max(explain(explainer, image_rgb) for explainer in explainers.values())
    with tempfile.TemporaryDirectory() as folder:
        work = {"detect": lambda: detect(detector, image_rgb, conf_thres)}
        work |= {case: partial(explain, explainer, image_rgb) for case, explainer in explainers.items()}
        work["visualise"] = visualiser(deepcopy(model), image_rgb, conf_thres, folder)
        times = {each: [seconds(call)] for each, call in work.items()}
        for _ in range(rounds):
            for each, call in work.items():
                times[each].append(seconds(call))
    spent = {each: median(several[1:]) * 1e3 for each, several in times.items()}
    detecting, visualising = spent.pop("detect"), spent.pop("visualise")
    print(
        f"{name}, {count} detections: detect {detecting:.0f} ms, visualize=True {visualising:.0f} ms, "
        f"ratio {visualising / detecting:.2f}"
    )
    for (method, layer), explaining in spent.items():
        print(f"    {method:14} {layer:6} {explaining:5.0f} ms, ratio {explaining / detecting:.2f}")


def main() -> None:
    """Measure the networks that can be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a checkpoint to measure instead of random networks")
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="random networks, as the package's YAMLs are called"
    )
    parser.add_argument("--image", help="a photograph to explain instead of noise")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds")
    args = parser.parse_args()
    cases = [(method, layer) for layer in args.layers for method in args.methods]
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    image_rgb = cv2.imread(args.image)[..., ::-1].copy() if args.image else noise
    if args.weights:
        compare(Path(args.weights).stem, open_model(args.weights, device="cpu"), image_rgb, cases, args.rounds)
        return
    for name in args.models:
        compare(name, random_network(name, image_rgb), image_rgb, cases, args.rounds)


if __name__ == "__main__":
    main()
