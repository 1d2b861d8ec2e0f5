"""Layers are found by index and by name, and `auto` follows the structure of the network."""

import pytest
import torch
import yaml
from fresh_interpreter import tree
from scenes import confident_detector, picture
from torch import nn

from explainer.detectors.detector import BACKBONE, COARSEST, FINE_AND_DEEP, HEAD, NECK, NECK_AND_HEAD, PLACES, Layers
from explainer.detectors.layers import RULES, Structure, at_head, at_neck
from explainer.detectors.yolov5 import YOLOv5
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods.catalogue import METHODS
from explainer.settings import Settings
from models.yolo import DetectionModel

SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


@pytest.fixture(scope="module")
def detector():
    return YOLOv5(confident_detector())


@pytest.mark.parametrize(
    ("requested", "name"),
    [
        (-2, "model.7"),
        (4, "model.4"),
        ("model.7.cv3.act", "model.7.cv3.act"),
        ("model_7_cv3_act", "model.7.cv3.act"),
        ("model.2", "model.2"),
    ],
)
def test_a_layer_is_found_by_index_and_by_name(detector, requested, name):
    assert detector.layers_called((requested,)) == Layers(((name,), (name,)))


def test_a_layer_that_is_named_twice_is_read_once(detector):
    assert detector.layers_called((-2, "model_7", 4)).by_level == (("model.7", "model.4"),) * 2


@pytest.mark.parametrize("requested", [8, -1, "model.8.m.0"])
def test_the_head_itself_is_refused_with_the_layers_that_feed_it(detector, requested):
    with pytest.raises(UsageError, match=r"is the Detect head itself.*--layer 7 4"):
        detector.layers_called((requested,))


@pytest.mark.parametrize("requested", [9, -10, "model.7.cv9", "spine"])
def test_an_unknown_layer_is_answered_with_the_known_ones(detector, requested):
    with pytest.raises(UsageError, match=r"unknown layer .*known: auto, head, neck, .*, 0\.\.7, -9\.\.-2"):
        detector.layers_called((requested,))


def test_a_layer_without_a_map_is_refused():
    model = confident_detector()
    model.model[4].cv2 = torch.nn.Sequential(model.model[4].cv2, Flattening())
    with pytest.raises(UsageError, match=r"layer 'model.4.cv2.1.flat' gives"):
        Explainer(model, layer="model.4.cv2.1.flat", **SETTINGS)(picture())


class Flattening(torch.nn.Module):
    """Flattens a map and makes it a map again."""

    def __init__(self):
        super().__init__()
        self.flat = torch.nn.Flatten(2)

    def forward(self, x):
        return self.flat(x).view_as(x)


# What feeds Detect, and where the neck first fuses: YOLOv3's coarsest stride leaves before the first fusion.
AUTO = {
    "yolov5n.yaml": ([17, 20, 23], [13, 13, 13]),
    "yolov5s6.yaml": ([23, 26, 29, 32], [15, 15, 15, 15]),
    "yolov5-p2.yaml": ([21, 24, 27, 30], [13, 13, 13, 13]),
    "yolov3.yaml": ([27, 22, 15], [19, 19, 10]),
    "yolov3-tiny.yaml": ([19, 15], None),
    "yolov5-fpn.yaml": (None, None),
    "yolov5-bifpn.yaml": ([17, 20, 23], [13, 13, 13]),
    "yolov5n-seg.yaml": ([17, 20, 23], [13, 13, 13]),
}


def narrow(config):
    """Return the model of a file of the tree with few channels."""
    (path,) = (tree() / "models").rglob(config)
    return DetectionModel(yaml.safe_load(path.read_text(encoding="utf-8")) | {"width_multiple": 0.05})


@pytest.mark.parametrize("config", AUTO)
def test_auto_follows_the_structure(config):
    structure = Structure(narrow(config))
    head, neck = ([index for (index,) in rule(structure, dict)] for rule in (at_head, at_neck))
    expected_head, expected_neck = AUTO[config]
    assert head == (expected_head or structure.head.f)
    if expected_neck:
        assert neck == expected_neck
    for source, index in zip(head, neck, strict=True):
        assert index <= source


def test_each_place_that_can_be_named_has_its_rule():
    assert list(PLACES.values()) == list(RULES)
    assert [place.name for place in RULES] == list(PLACES)
    assert {method.place for method in METHODS.values()} <= {*PLACES.values(), None}


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (HEAD, (("model.7",), ("model.4",))),
        (NECK, (("model.7",), ("model.4",))),
        (BACKBONE, (("model.4",), ("model.4",))),
        (COARSEST, (("model.4",), ("model.4",))),
        (NECK_AND_HEAD, (("model.7",), ("model.4",))),
        (FINE_AND_DEEP, (("model.2", "model.7"), ("model.2", "model.3", "model.4"))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_place_is_found_for_every_stride(detector, place, names):
    assert detector.layers_at(place) == Layers(names, at_head=place == HEAD)
    for entry in Explainer(detector, layer=place.name, **SETTINGS)(picture()).detections:
        assert entry.layers == names[(4, 8).index(entry.detection.stride)]


def test_the_places_of_an_ensemble_are_those_of_its_models():
    both = YOLOv5(nn.ModuleList([confident_detector(1), confident_detector(2)]))
    assert both.layers_at(HEAD).by_level == (("0.model.7",), ("0.model.4",), ("1.model.7",), ("1.model.4",))
    assert both.layers_called((4,)).by_level == (("0.model.4",),) * 2 + (("1.model.4",),) * 2


def test_a_method_at_its_own_place_is_the_same_by_name(detector):
    ways = [Explainer(detector, layer=layer, **SETTINGS)(picture()) for layer in ("auto", "head")]
    assert (ways[0].heatmap == ways[1].heatmap).all()


def test_a_place_stands_alone():
    with pytest.raises(UsageError, match="--layer neck stands alone; given: neck 4"):
        Settings(layer=("neck", 4))


def test_a_detection_is_read_at_the_input_of_its_own_stride(detector):
    explanation = Explainer(detector, **SETTINGS)(picture())
    expected = {4: ("model.7",), 8: ("model.4",)}
    assert {entry.detection.stride for entry in explanation.detections} == {4, 8}
    for entry in explanation.detections:
        assert entry.layers == expected[entry.detection.stride]


def test_a_stride_whose_layer_holds_nothing_gets_an_empty_map_and_a_reason(detector):
    explanation = Explainer(detector, layer=7, **SETTINGS)(picture())
    for entry in explanation.detections:
        reads_other_stride = entry.detection.stride == 8 and not entry.heatmap.any()
        assert entry.heatmap.any() or (reads_other_stride and "no gradient at layer model.7" in entry.note)
    assert any(entry.note for entry in explanation.detections)
