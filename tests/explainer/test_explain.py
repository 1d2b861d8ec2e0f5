"""The explainer as an object: what it answers and refuses, and what the official checkpoint sees in known photographs."""

import json

import cv2
import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.detectors.predictions import Detection
from explainer.errors import UsageError
from explainer.explain import Explainer, check_image, chosen_classes
from explainer.explanation import Explanation
from explainer.settings import Settings

SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
NAMES = {0: "ant", 1: "bee", 2: "cat"}


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, {0, 1, 2}),
        ({"classes": 1}, {1}),
        ({"class_names": ("cat", "ant")}, {0, 2}),
        ({"classes": (0, 1), "class_names": "ant"}, {0}),
    ],
    ids=str,
)
def test_classes_are_chosen_by_index_and_by_name(given, chosen):
    assert chosen_classes(NAMES, Settings(**given)) == chosen


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": 7}, "unknown class '7'; known: 0 ant, 1 bee, 2 cat"),
        ({"class_names": "dog"}, "unknown class name 'dog'; known: ant, bee, cat"),
        ({"classes": 1, "class_names": "ant"}, "none of --class-names ant is among --classes; leave one out"),
    ],
    ids=str,
)
def test_classes_that_there_are_not_are_refused(given, message):
    with pytest.raises(UsageError) as caught:
        chosen_classes(NAMES, Settings(**given))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "image", [picture().astype(float), picture()[..., 0], picture()[..., :2], picture()[:0], "one.jpg", None], ids=str
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"an image is a uint8 RGB array \(H, W, 3\); given|an image without pixels"):
        check_image(image)


def blind_detector():
    """Return a detector whose head predicts the same whatever it reads."""
    model = confident_detector()
    for convolution in model.model[-1].m:
        convolution.weight.data.zero_()
        convolution.bias.data.add_(3)
    return model


@pytest.mark.parametrize(
    ("layer", "advised"),
    [("auto", False), ("head", False), ("coarsest", True), ("backbone", True), (4, True)],
    ids=str,
)
@pytest.mark.parametrize("method", ["GradCAM", "AblationCAM"])
def test_what_is_set_already_is_not_advised(method, layer, advised):
    explanation = Explainer(blind_detector(), method=method, layer=layer, max_det=4, **SETTINGS)(picture())
    notes = [entry.note for entry in explanation.detections]
    assert notes
    assert all(" layer model." in note for note in notes)
    assert any("try --layer auto" in note for note in notes) == advised


def test_nothing_found_is_an_answer_that_says_so():
    nothing = SETTINGS | {"conf_thres": 0.99, "no_near_miss": True}
    explanation = Explainer(confident_detector(), **nothing)(picture())
    assert explanation.notes == ("no detection above confidence 0.99",)
    assert (explanation.detections, explanation.heatmap.any()) == ((), False)
    some = Explainer(confident_detector(), class_names=("cat", "ant"), **nothing)(picture())
    assert some.notes == ("no ant or cat above confidence 0.99",)


def test_where_nothing_passes_the_best_below_the_threshold_is_explained_and_the_note_stays():
    explanation = Explainer(confident_detector(), **SETTINGS | {"conf_thres": 0.99})(picture())
    (entry,) = explanation.detections
    assert entry.detection.outcome == "below threshold"
    assert (explanation.heatmap.max(), explanation.notes) == (1, ("no detection above confidence 0.99",))
    (row,) = explanation.rows()
    assert (row["outcome"], row["note"]) == ("below threshold", "best below 0.99: cat 0.44")
    assert entry.title == "below 0.99: cat 0.44, stride 4"


def test_only_detections_of_the_chosen_classes_are_explained_most_confident_first():
    found = [e.detection for e in Explainer(confident_detector(), class_names="cat", **SETTINGS)(picture()).detections]
    assert {type(each) for each in found} == {Detection}
    assert {each.name for each in found} == {"cat"}
    confidences = [each.confidence for each in found]
    assert confidences == sorted(confidences, reverse=True)


def test_the_frozen_answer_refuses_arrays_that_do_not_fit():
    empty = np.zeros((64, 96), np.float32)
    with pytest.raises(ValueError, match="not uint8"):
        Explanation(picture().astype(float), empty, (), "GradCAM", ("class",))
    with pytest.raises(ValueError, match="heatmap 'all' is float64"):
        Explanation(picture(), empty.astype(float), (), "GradCAM", ("class",))


# Photographs


@pytest.fixture(scope="module")
def model(assets):
    from explainer.detectors.weights import open_model

    return open_model(assets / "weights/yolov5n.pt", device="cpu")


@pytest.fixture(scope="module")
def photo(assets):
    return lambda name: cv2.imread(str(assets / "images" / name))[..., ::-1].copy()


def entry(explanation, name):
    return next(entry for entry in explanation.detections if entry.detection.name == name)


def test_the_dog_and_the_cat_are_each_explained_by_themselves(model, photo):
    for name in ("dog", "cat"):
        explanation = Explainer(model, class_names=name)(photo("cat-dog.jpg"))
        x, y = entry(explanation, name).measured().peak
        x1, y1, x2, y2 = entry(explanation, name).detection.xyxy
        assert x1 < x < x2
        assert y1 < y < y2
        assert entry(explanation, name).measured().energy_in_box > 0.4


def test_layer_cam_by_default_reads_the_neck_and_stays_on_the_object(model, photo):
    explanation = Explainer(model, method="LayerCAM")(photo("zidane.jpg"))
    assert {entry.layers for entry in explanation.detections} == {("model.13",)}
    assert all(entry.measured().energy_in_box > 0.5 for entry in explanation.detections)


def test_the_tie_comes_from_stride_16_and_holds_nothing_at_the_last_layer(model, photo):
    image = photo("zidane.jpg")
    tie = entry(Explainer(model, layer=-2)(image), "tie")
    assert tie.detection.stride == 16
    assert not tie.heatmap.any()
    assert "no gradient at layer model.23" in tie.note
    read_where_it_is = entry(Explainer(model)(image), "tie")
    assert read_where_it_is.layers == ("model.20",)
    assert read_where_it_is.heatmap.any()


def test_the_bus_is_on_the_bus(model, photo):
    bus = entry(Explainer(model, class_names="bus")(photo("bus.jpg")), "bus")
    assert bus.measured().energy_in_box > 0.7


def test_detections_are_those_of_plain_detection(model, photo, assets):
    golden = json.loads((assets / "golden/yolov5n_predictions.json").read_text(encoding="utf-8"))
    for name, expected in golden.items():
        found = Explainer(model)(photo(name)).detections
        boxes = [[*entry.detection.xyxy, entry.detection.confidence] for entry in found]
        assert [entry.detection.class_index for entry in found] == [int(row[5]) for row in expected["boxes_in_image"]]
        for box, row in zip(boxes, expected["boxes_in_image"], strict=True):
            assert box == pytest.approx(row[:5], abs=2e-3)
