"""On a graphics card maps are those of a processor: in full precision nearly to the digit, in half precision in their place.

The bundled demo is explained, whose detections are sure enough to be the same on both.
"""

import numpy as np
import pytest
import torch
from evidence_demo import DEMO, IMGSZ_OF_SCENES, WEIGHTS, demo_scenes

from explainer.comparing import Comparer
from explainer.detectors.weights import open_model
from explainer.explain import Explainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card that CUDA sees"),
]
METHODS = ("GradCAM", "LayerCAM", "FusedLayerCAM", "ShapleyCAM", "AblationCAM", "EigenCAM")
BLACK_BOX = {"method": "DRISE", "masks": 200}


@pytest.fixture(autouse=True)
def exact():
    """Multiply in full precision: a card rounds to ten bits otherwise."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def image_rgb():
    return demo_scenes()[0].image_rgb


def explained(model, image_rgb, **settings):
    return Explainer(model, imgsz=IMGSZ_OF_SCENES, **settings)(image_rgb)


def furthest(one, other):
    """Return how far the maps of the same detections are apart at most, both scaled to 0..1."""
    assert [entry.detection.class_index for entry in one.detections] == [
        e.detection.class_index for e in other.detections
    ]
    return max(np.abs(a.heatmap - b.heatmap).max() for a, b in zip(one.detections, other.detections, strict=True))


def similarity(one, other):
    """Return the least correlation of the maps of the same detections."""
    pairs = zip(one.detections, other.detections, strict=True)
    return min(np.corrcoef(a.heatmap.ravel(), b.heatmap.ravel())[0, 1] for a, b in pairs)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_a_processor(image_rgb, method):
    here, there = (explained(open_model(WEIGHTS, device=device), image_rgb, method=method) for device in ("cpu", "0"))
    assert here.detections
    assert furthest(here, there) < 2e-3


def test_a_two_stage_detector_is_explained_as_on_a_processor(image_rgb):
    arch = f"{DEMO.parent / 'scripts/small_detectors.py'}:fasterrcnn_small"
    here, there = (
        explained(open_model(DEMO / "fasterrcnn.pth", device=device, arch=arch), image_rgb, method="FusedLayerCAM")
        for device in ("cpu", "0")
    )
    assert here.detections
    assert furthest(here, there) < 5e-3


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_shows_the_same_places(image_rgb, method):
    whole = explained(open_model(WEIGHTS, device="0"), image_rgb, method=method)
    half = explained(open_model(WEIGHTS, device="0", half=True), image_rgb, method=method)
    assert all(np.isfinite(entry.heatmap).all() for entry in half.detections)
    assert similarity(whole, half) > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_channels_side_by_side_give_the_same_maps(image_rgb, method):
    plain = explained(open_model(WEIGHTS, device="0"), image_rgb, method=method)
    model = open_model(WEIGHTS, device="0").to(memory_format=torch.channels_last)
    assert furthest(plain, explained(model, image_rgb, method=method)) < 2e-3


def test_masked_passes_in_batches_give_the_maps_of_a_processor(image_rgb):
    here, there = (explained(open_model(WEIGHTS, device=device), image_rgb, **BLACK_BOX) for device in ("cpu", "0"))
    assert furthest(here, there) < 5e-3


def test_two_models_at_once_give_what_each_gives_alone(image_rgb):
    models = [open_model(WEIGHTS, device=device) for device in ("0", "cpu")]
    together = Comparer(models, names=["card", "processor"], imgsz=IMGSZ_OF_SCENES)(image_rgb)
    for model, answer in zip(models, together.explanations, strict=True):
        assert furthest(answer, explained(model, image_rgb)) < 1e-4
