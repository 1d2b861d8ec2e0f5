"""torch.hub finds the entry points in this checkout."""

from pathlib import Path

import pytest
import torch
from scenes import confident_detector, picture, save_checkpoint

import hubconf

ROOT = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


def load(entry, **arguments):
    return torch.hub.load(ROOT, entry, source="local", **arguments)


def test_a_checkpoint_of_one_s_own_detects_in_pictures(weights):
    model = load("custom", path=weights, device="cpu", _verbose=False)
    model.conf = 0.05
    assert len(model(picture(), size=96).pandas().xyxy[0]) > 2


def test_the_explainer_takes_a_model_of_the_hub_and_is_one_itself(weights):
    settings = {"method": "LayerCAM", "imgsz": 96, "conf_thres": 0.05}
    one = load("explainer", path=weights, device="cpu", **settings)(picture())
    from explainer.explain import Explainer

    other = Explainer(load("custom", path=weights, device="cpu", _verbose=False), **settings)(picture())
    assert one.heatmap.any()
    assert (one.heatmap == other.heatmap).all()


def test_every_official_size_has_an_entry_point():
    assert {"custom", "explainer", *(f"yolov5{size}" for size in "nsmlx")} <= set(dir(hubconf))


def test_a_new_network_has_the_classes_that_were_asked_for():
    model = load("yolov5n", pretrained=False, classes=4, device="cpu")
    assert model.model[-1].nc == 4


def test_pretrained_weights_for_other_classes_are_refused():
    with pytest.raises(ValueError, match="pretrained=False"):
        load("yolov5n", classes=4)
