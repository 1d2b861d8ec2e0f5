"""Detectors of other families explained where the right answer is known: the emblem decides the class, the body the box.

How much of the maps of what is found lies on the emblem, and how often the peak does. Another class, and a model with
shuffled weights, are asked about every object in its own labelled box, found or not.
"""

import numpy as np
import pytest
from evidence_demo import DEMO, IMGSZ_OF_SCENES, demo_scenes, figures_of_found, figures_of_scenes, shuffled

from data.scripts.evidence.rendering import CLASSES
from explainer.detectors.weights import open_model
from explainer.explain import Explainer

BUILDERS = DEMO.parent / "scripts/small_detectors.py"
MODELS = {
    "fasterrcnn.pth": {"arch": f"{BUILDERS}:fasterrcnn_small"},
    "retinanet.pth": {"arch": f"{BUILDERS}:retinanet_small"},
    "yolov8.pt": {},
}
# The end of the backbone's stride 8, whose cells are smaller than an emblem.
FINE = {"fasterrcnn.pth": "backbone.body.stage3", "retinanet.pth": "backbone.body.stage3", "yolov8.pt": 4}
# At least so many times as much of the heat lies on the emblem as its share of the body, so many of the peaks do, and so much
# of the heat lies on the body. The class scores of a RetinaNet also say that there is an object, wherever it is.
MARGINS = {"fasterrcnn.pth": (3, 0.45, 0.9), "retinanet.pth": (1.4, 0.35, 0.85), "yolov8.pt": (3, 0.45, 0.9)}


@pytest.fixture(scope="module")
def scenes():
    return demo_scenes()


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    """Return the name of a model and the model."""
    if request.param == "yolov8.pt":
        pytest.importorskip("ultralytics", reason="needs the ultralytics package")
    return request.param, open_model(DEMO / request.param, device="cpu", **MODELS[request.param])


def of(model, scenes, **settings):
    """Return the figures of FusedLayerCAM at its own layers, unless the settings say more."""
    return figures_of_scenes(model, scenes, **{"method": "FusedLayerCAM", "imgsz": IMGSZ_OF_SCENES, **settings})


def test_the_models_are_small_and_find_what_is_in_the_scenes(case, scenes):
    name, model = case
    assert (DEMO / name).stat().st_size <= 2e6
    explainer, right, count = Explainer(model, imgsz=IMGSZ_OF_SCENES), 0, 0
    assert len(explainer.detector.names) == len(CLASSES)
    for scene in scenes:
        found = explainer(scene.image_rgb, labels=written(scene)).detections
        right += sum(entry.detection.outcome == "hit" for entry in found)
        count += len(scene.classes)
    assert right > 0.9 * count


def written(scene):
    """Return the objects of a scene as they are asked about."""
    return [(*box, int(index)) for box, index in zip(scene.boxes.tolist(), scene.classes, strict=True)]


def test_heat_and_peaks_of_what_is_found_lie_on_the_emblem(case, scenes):
    name, model = case
    times_its_share, peaks, on_the_body = MARGINS[name]
    found = figures_of_found(model, scenes, method="FusedLayerCAM", imgsz=IMGSZ_OF_SCENES)
    share = np.mean([(s.emblems.sum((1, 2)) / s.bodies.sum((1, 2))).mean() for s in scenes])
    assert found.energy_on_emblem > times_its_share * share
    assert found.energy_on_emblem + found.energy_on_rest_of_body > on_the_body
    assert found.peak_on_emblem > peaks


def test_less_heat_lies_on_the_emblem_for_another_class_and_hardly_any_with_shuffled_weights(case, scenes):
    _, model = case
    own, other, by_chance = of(model, scenes), of(model, scenes, classes_further=1), of(shuffled(model), scenes)
    assert other.energy_on_emblem < 0.8 * own.energy_on_emblem
    assert other.peak_on_emblem < own.peak_on_emblem - 0.1
    assert by_chance.energy_on_emblem < own.energy_on_emblem / 2
    assert by_chance.peak_on_emblem < own.peak_on_emblem / 2


def test_the_box_is_read_off_the_body_and_not_off_the_emblem(case, scenes):
    name, model = case
    width = of(model, scenes, method="LayerCAM", layer=FINE[name], backprop_array="width")
    own = of(model, scenes, method="LayerCAM", layer=FINE[name])
    assert width.energy_on_emblem < own.energy_on_emblem
    assert width.energy_on_rest_of_body > 5 * width.energy_on_emblem
