"""What does an explanation show that `visualize=True` of the ultralytics package does not, and how long does it take?

    pip install ultralytics
    OMP_NUM_THREADS=1 python benchmarks/ultralytics_visualize.py [--rounds 5]

On the scenes of the demo with its YOLOv8, whose reasons are known: each class is told by an emblem alone. Of the heat in one
picture of a scene:

    emblem    the share that lies on the emblems, and
    body      on the rest of the bodies of the objects
    peak      of the objects, the share whose hottest point in their box lies on their emblem
    painted   the share of the picture that is hotter than a quarter of the peak
    files     the pictures that are saved of a scene
    time      of a scene, from the array to the pictures on disk, as a multiple of `predict` alone; medians over all scenes

    visualize=True  of the installed version: one LayerCAM of up to 16 predictions before suppression; the heat is what it
                    gives to its colour map
    mean of all     the mean of the channels of each layer, scaled to its peak, averaged over the layers: what the grids say
                    together that earlier versions save, a file for each layer with up to 32 channels
    mean of best    that of the one layer whose mean lies on the emblems most: which that is, no user knows
    ours            all detections in one picture, each map scaled to its own peak; "alone" are the maps of single detections

                              emblem    body    peak painted   files    time
    visualize=True             0.130   0.774   0.194   0.035       1    7.28
    mean of all                0.011   0.162   0.107   1.000      22
    mean of best, model.2      0.032   0.236   0.161   0.041
    GradCAM                    0.050   0.344   0.412   0.103       1    1.72
    GradCAM alone              0.021   0.131   0.111   0.060
    LayerCAM                   0.173   0.737   0.204   0.019       1    1.51
    LayerCAM alone             0.184   0.814   0.111   0.008
    FusedLayerCAM              0.325   0.580   0.525   0.005       1    2.62
    FusedLayerCAM alone        0.362   0.637   0.556   0.002

One thread of a busy machine, ultralytics 8.4, --rounds 3. Of what the package draws an eighth lies on what the model
looks at; the mean feature maps look at nothing in particular, and the layer that does best is not known without the truth.
FusedLayerCAM, whose hottest points lie on the emblems more often than not, has one picture, and takes a third of the time.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from evidence_demo import DEMO, DemoScene, demo_scenes, figures_of, matched  # noqa: E402

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.explain import Explainer  # noqa: E402
from explainer.maps.heatmaps import pixels_in_box  # noqa: E402

WEIGHTS = DEMO / "yolov8.pt"
IMGSZ = 640
METHODS = ("GradCAM", "LayerCAM", "FusedLayerCAM")
HOT = 0.25


def figures(heatmap: np.ndarray, scene: DemoScene) -> list[float]:
    """Return the share on emblems, on the rest of bodies, of peaks on emblems, and of the picture that is hot."""
    emblem, body, _ = figures_of(heatmap, scene.emblems.any(axis=0), scene.bodies.any(axis=0))
    return [emblem, body, np.mean(list(map(peaks(heatmap), scene.boxes, scene.emblems))), painted(heatmap)]


def peaks(heatmap: np.ndarray) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Return what tells whether the hottest point of a box (4,) lies on an emblem (H, W)."""

    def peak_is_on(box: np.ndarray, emblem: np.ndarray) -> bool:
        inside = pixels_in_box(box, heatmap.shape)
        part = heatmap[inside]
        return bool(part.any() and emblem[inside][np.unravel_index(part.argmax(), part.shape)])

    return peak_is_on


def painted(heatmap: np.ndarray) -> float:
    """Return the share of a picture that is hotter than a quarter of its peak."""
    return float((heatmap > HOT * max(heatmap.max(), 1e-9)).mean())


def mean_maps(detector, image_rgb: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean over the channels of what each numbered layer below the head gives, 0..1, at the size of the image."""
    found = {}
    with ExitStack() as stack, torch.no_grad(), detector.borrowed() as lent:
        names = {layer: lent.structure.name(index) for index, layer in enumerate(lent.structure.layers[:-1])}

        def keep(module, args, output):
            found[names[module]] = output[0].mean(dim=0).float().numpy()

        for layer in names:
            stack.callback(layer.register_forward_hook(keep).remove)
        image, letterbox = lent.prepare(image_rgb, (IMGSZ, IMGSZ))
        lent.predict(image)
    return {name: scaled(letterbox.to_image(each)) for name, each in found.items()}


def scaled(cam: np.ndarray) -> np.ndarray:
    """Return a map scaled to 0..1."""
    low, high = cam.min(), cam.max()
    return (cam - low) / max(high - low, 1e-9)


def visualised(wrapped, image_rgb: np.ndarray, folder: str) -> tuple[np.ndarray, int]:
    """Return the heat of the package's own picture at the size of the image, and the number of files that it saved."""
    before, heat, colours = len(list(Path(folder).rglob("*.*"))), [], cv2.applyColorMap
    with patch("cv2.applyColorMap", lambda cam, table: heat.append(cam) or colours(cam, table)):
        predict(wrapped, image_rgb, visualize=True, project=folder, exist_ok=True)
    _, letterbox = Explainer(wrapped.model).detector.prepare(image_rgb, (IMGSZ, IMGSZ))
    return letterbox.to_image(np.float32(heat[0])), len(list(Path(folder).rglob("*.*"))) - before


def predict(wrapped, image_rgb: np.ndarray, **settings) -> object:
    """Run the package's own predictor on an image."""
    return wrapped.predict(
        image_rgb[..., ::-1].copy(), imgsz=IMGSZ, conf=0.25, device="cpu", verbose=False, save=False, **settings
    )


def explain(explainer: Explainer, image_rgb: np.ndarray, folder: str) -> None:
    """Explain an image and save its picture."""
    explanation = explainer(image_rgb)
    assert cv2.imwrite(f"{folder}/ours.jpg", explanation.overlay()[..., ::-1])


def times(wrapped, explainers: dict[str, Explainer], scenes: list[DemoScene], rounds: int) -> dict[str, float]:
    """Return how long each takes for a scene, as a multiple of predicting alone: medians over scenes and rounds."""
    with tempfile.TemporaryDirectory() as folder:
        work = {
            "predict": lambda image: predict(wrapped, image),
            "visualize=True": lambda image: predict(wrapped, image, visualize=True, project=folder, exist_ok=True),
        }
        for name, explainer in explainers.items():
            work[name] = lambda image, explainer=explainer: explain(explainer, image, folder)
        spent = {name: [] for name in work}
        for number in range(rounds + 1):
            for scene in scenes:
                for name, call in work.items():
                    started = perf_counter()
                    call(scene.image_rgb)
                    spent[name] += [perf_counter() - started] if number else []
    return {name: median(each) / median(spent["predict"]) for name, each in spent.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of the times")
    args = parser.parse_args()
    from ultralytics import YOLO

    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    wrapped, scenes = YOLO(str(WEIGHTS)), demo_scenes()
    model = open_model(str(WEIGHTS), device="cpu")
    explainers = {method: Explainer(model, method=method, imgsz=IMGSZ) for method in METHODS}
    rows, files = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        theirs = [visualised(wrapped, scene.image_rgb, folder) for scene in scenes]
    rows["visualize=True"] = [figures(heat, scene) for (heat, _), scene in zip(theirs, scenes, strict=True)]
    files["visualize=True"] = np.mean([count for _, count in theirs])
    means = [mean_maps(explainers[METHODS[0]].detector, scene.image_rgb) for scene in scenes]
    rows["mean of all"] = [
        figures(np.mean(list(m.values()), axis=0), scene) for m, scene in zip(means, scenes, strict=True)
    ]
    by_layer = {name: [figures(m[name], scene) for m, scene in zip(means, scenes, strict=True)] for name in means[0]}
    best = max(by_layer, key=lambda name: np.mean(by_layer[name], axis=0)[0])
    rows[f"mean of best, {best}"], files["mean of all"] = by_layer[best], len(by_layer)
    for method, explainer in explainers.items():
        answers = [explainer(scene.image_rgb) for scene in scenes]
        rows[method] = [figures(answer.heatmap, scene) for answer, scene in zip(answers, scenes, strict=True)]
        rows[f"{method} alone"] = [
            [*figures_of(entry.heatmap, scene.emblems[number], scene.bodies[number]), painted(entry.heatmap)]
            for answer, scene in zip(answers, scenes, strict=True)
            for entry, number in matched(answer, scene)
        ]
        files[method] = 1
    spent = times(wrapped, explainers, scenes, args.rounds)
    print(f"    {'':24} " + " ".join(f"{name:>7}" for name in ("emblem", "body", "peak", "painted", "files", "time")))
    for name, each in rows.items():
        cells = [f"{share:7.3f}" for share in np.mean(each, axis=0)]
        cells += [f"{files[name]:7.0f}" if name in files else 7 * " ", f"{spent[name]:7.2f}" if name in spent else ""]
        print(f"    {name:24} {' '.join(cells)}".rstrip())


if __name__ == "__main__":
    main()
