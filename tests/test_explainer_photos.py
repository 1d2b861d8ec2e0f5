"""What the official checkpoint sees in photographs that everyone knows."""

import cv2
import pytest

from explainer.explain import Explainer


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
    import json

    golden = json.loads((assets / "golden/yolov5n_predictions.json").read_text())
    for name, expected in golden.items():
        found = Explainer(model)(photo(name)).detections
        boxes = [[*entry.detection.xyxy, entry.detection.confidence] for entry in found]
        assert [entry.detection.class_index for entry in found] == [int(row[5]) for row in expected["boxes_in_image"]]
        for box, row in zip(boxes, expected["boxes_in_image"], strict=True):
            assert box == pytest.approx(row[:5], abs=2e-3)
