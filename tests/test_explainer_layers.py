"""Layers are found by index and by name, and `auto` follows the structure of the network."""

from types import SimpleNamespace

import pytest
import torch
from scenes import confident_detector, picture

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.layers import layers_by_level
from explainer.methods import METHODS, PLACES
from explainer.network import Network
from explainer.places import RULES, at_head, at_neck
from explainer.settings import Settings
from models.yolo import DetectionModel


@pytest.fixture(scope="module")
def network():
    return Network(confident_detector())


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
def test_a_layer_is_found_by_index_and_by_name(network, requested, name):
    assert layers_by_level(network, (requested,), "head") == [(name,), (name,)]


@pytest.mark.parametrize("requested", [8, -1, "model.8.m.0"])
def test_the_head_itself_is_refused_with_the_layers_that_feed_it(network, requested):
    with pytest.raises(UsageError, match=r"is the Detect head itself.*--layer 7 4"):
        layers_by_level(network, (requested,), "head")


@pytest.mark.parametrize("requested", [9, -10, "model.7.cv9", "spine"])
def test_an_unknown_layer_is_answered_with_the_known_ones(network, requested):
    with pytest.raises(UsageError, match=r"unknown layer .*known: auto, head, neck, .*, 0\.\.7, -9\.\.-2"):
        layers_by_level(network, (requested,), "head")


def test_a_layer_without_a_map_is_refused():
    model = confident_detector()
    model.model[4].cv2 = torch.nn.Sequential(model.model[4].cv2, Flattening())
    with pytest.raises(UsageError, match=r"layer 'model.4.cv2.1.flat' gives"):
        Explainer(model, layer="model.4.cv2.1.flat", conf_thres=0.05, imgsz=96)(picture())


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


@pytest.mark.parametrize("config", AUTO)
def test_auto_follows_the_structure(config):
    with torch.device("meta"):
        model = DetectionModel(config) if "seg" not in config else segmentation(config)
    head, neck = ([index for (index,) in rule(model)] for rule in (at_head, at_neck))
    expected_head, expected_neck = AUTO[config]
    assert head == (expected_head or model.model[-1].f)
    if expected_neck:
        assert neck == expected_neck
    for source, index in zip(head, neck, strict=True):
        assert index <= source


def test_each_place_that_can_be_named_has_its_rule():
    assert list(PLACES) == list(RULES)
    assert {method.reads for method in METHODS.values()} <= {*PLACES, "biases", "predictions"}


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("head", [("model.7",), ("model.4",)]),
        ("neck", [("model.7",), ("model.4",)]),
        ("backbone", [("model.4",), ("model.4",)]),
        ("coarsest", [("model.4",), ("model.4",)]),
    ],
)
def test_a_place_is_found_for_every_stride(network, place, names):
    assert layers_by_level(network, (place,), "head") == names
    for entry in Explainer(network.model, layer=place, conf_thres=0.05, imgsz=96)(picture()).detections:
        assert entry.layers == names[(4, 8).index(entry.detection.stride)]


def test_a_method_at_its_own_place_is_the_same_by_name(network):
    ways = [Explainer(network.model, layer=layer, conf_thres=0.05, imgsz=96)(picture()) for layer in ("auto", "head")]
    assert (ways[0].heatmap == ways[1].heatmap).all()


def test_a_place_stands_alone():
    with pytest.raises(UsageError, match="--layer neck stands alone; given: neck 4"):
        Settings(layer=("neck", 4))


def segmentation(config):
    from models.yolo import SegmentationModel

    return SegmentationModel(config)


def test_a_detection_is_read_at_the_input_of_its_own_stride(network):
    explanation = Explainer(network.model, conf_thres=0.05, imgsz=96)(picture())
    expected = {4: ("model.7",), 8: ("model.4",)}
    assert {entry.detection.stride for entry in explanation.detections} == {4, 8}
    for entry in explanation.detections:
        assert entry.layers == expected[entry.detection.stride]


def test_a_stride_whose_layer_holds_nothing_gets_an_empty_map_and_a_reason(network):
    explanation = Explainer(network.model, layer=7, conf_thres=0.05, imgsz=96)(picture())
    for entry in explanation.detections:
        reads_other_stride = entry.detection.stride == 8 and not entry.heatmap.any()
        assert entry.heatmap.any() or (reads_other_stride and "no gradient at layer model.7" in entry.note)
    assert any(entry.note for entry in explanation.detections)


def test_the_frozen_answer_refuses_arrays_that_do_not_fit():
    from explainer.explanation import Explanation

    with pytest.raises(ValueError, match="not uint8"):
        Explanation(picture().astype(float), SimpleNamespace(), (), "GradCAM", ("class",))
