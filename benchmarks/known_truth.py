"""Do maps lie where the reason is known to lie? The four detectors of the demo, each by the methods that suit it.

    OMP_NUM_THREADS=1 python benchmarks/known_truth.py

Over the objects of the demo's scenes, at 480 pixels: how much of a map's sum lies on the emblem, which alone tells the
class, and on the rest of the body (with 8 pixels around it), and how often the map peaks on the emblem. An emblem is 7 % of
its body.

    found           what the model finds itself: the right class, overlapping an object by half or more
    asked           each labelled box with its class, found or not
    another class   each labelled box with the class after its own
    shuffled        asked, of a model whose weights have changed places within each layer
"""

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from evidence_demo import DEMO, IMGSZ_OF_SCENES, demo_scenes, figures_of_found, figures_of_scenes, shuffled  # noqa: E402

from explainer.detectors.weights import open_model  # noqa: E402

BUILDERS = ROOT / "data/scripts/small_detectors.py"
# The weights, what they belong to, and the end of the backbone's stride 8, whose cells are smaller than an emblem.
MODELS = (
    ("demo.pt", None, 4),
    ("fasterrcnn.pth", f"{BUILDERS}:fasterrcnn_small", "backbone.body.stage3"),
    ("retinanet.pth", f"{BUILDERS}:retinanet_small", "backbone.body.stage3"),
    ("yolov8.pt", None, 4),
)


def rows_of(model, scenes, fine):
    """Yield what is explained in words, and its figures."""
    best = {"method": "FusedLayerCAM", "imgsz": IMGSZ_OF_SCENES}
    at_fine = {"method": "LayerCAM", "layer": fine, "imgsz": IMGSZ_OF_SCENES}
    yield "FusedLayerCAM, auto | class | found", figures_of_found(model, scenes, **best)
    yield "FusedLayerCAM, auto | class | asked", figures_of_scenes(model, scenes, **best)
    yield "FusedLayerCAM, auto | another class | asked", figures_of_scenes(model, scenes, classes_further=1, **best)
    yield "FusedLayerCAM, auto | class | asked, shuffled", figures_of_scenes(shuffled(model), scenes, **best)
    yield f"LayerCAM, {fine} | class | found", figures_of_found(model, scenes, **at_fine)
    yield f"LayerCAM, {fine} | width | found", figures_of_found(model, scenes, backprop_array="width", **at_fine)


def main() -> None:
    """Print a table of all detectors that can be opened here."""
    logging.disable(logging.INFO)
    scenes = demo_scenes()
    print(
        "| detector | method and layer | item | boxes | on the emblem | on the rest of the body | peak on the emblem |"
    )
    print("|---|---|---|---|---|---|---|")
    for weights, arch, fine in MODELS:
        if weights == "yolov8.pt" and find_spec("ultralytics") is None:
            print("yolov8.pt is left out: it needs the ultralytics package", file=sys.stderr)
            continue
        model = open_model(DEMO / weights, device="cpu", arch=arch)
        for words, figures in rows_of(model, scenes, fine):
            numbers = figures.energy_on_emblem, figures.energy_on_rest_of_body, figures.peak_on_emblem
            shown = " | ".join(f"{number:.2f}".removeprefix("0") for number in numbers)
            print(f"| `{weights}` | {words} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
