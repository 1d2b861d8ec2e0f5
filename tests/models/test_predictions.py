"""The official weights give the numbers of the published YOLOv5 on three photographs."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.autoshape import AutoShape
from models.backend import DetectMultiBackend
from utils.augmentations import letterbox
from utils.base.boxes import scale_boxes
from utils.base.nms import non_max_suppression

PHOTOGRAPHS = ("bus.jpg", "zidane.jpg", "cat-dog.jpg")
NMS_OPTIONS = {
    "nms_default": {},
    "nms_agnostic": {"agnostic": True},
    "nms_classes0": {"classes": [0]},
    "nms_conf05": {"conf_thres": 0.5},
    "nms_maxdet2": {"max_det": 2},
}


@cache
def load(assets: Path, fuse: bool = True) -> DetectMultiBackend:
    return DetectMultiBackend(assets / "weights" / "yolov5n.pt", fuse=fuse)


@cache
def load_reference(assets: Path) -> dict:
    return json.loads((assets / "golden" / "yolov5n_predictions.json").read_text(encoding="utf-8"))


def read_input(assets: Path, photograph: str) -> tuple[np.ndarray, torch.Tensor]:
    im0 = cv2.imread(str(assets / "images" / photograph))
    boxed = letterbox(im0, 640, stride=32, auto=True)[0]
    chw = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
    return im0, torch.from_numpy(chw)[None].float() / 255


@cache
def predict(assets: Path, photograph: str, fuse: bool = True) -> list:
    with torch.no_grad():
        return load(assets, fuse)(read_input(assets, photograph)[1])


@pytest.fixture(params=PHOTOGRAPHS)
def photograph(request) -> str:
    return request.param


@pytest.fixture
def expected(assets, photograph) -> dict:
    return load_reference(assets)[photograph]


def assert_same_detections(found: torch.Tensor, expected: list, digits: int = 4) -> None:
    """`digits` is how far the reference is rounded."""
    assert len(found) == len(expected)
    found, expected = found.reshape(-1, 6).numpy(), np.reshape(expected, (-1, 6))
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=2e-3, rtol=0)
    np.testing.assert_allclose(found[:, 4], expected[:, 4], atol=10**-digits, rtol=0)
    np.testing.assert_array_equal(found[:, 5], expected[:, 5])


def test_the_outputs_have_the_same_shapes(assets, photograph, expected):
    raw, maps = predict(assets, photograph)
    assert list(raw.shape) == expected["raw_shape"]
    assert [list(each.shape) for each in maps] == expected["head_shapes"]
    assert list(read_input(assets, photograph)[1].shape) == expected["input_shape"]


def test_the_raw_predictions_have_the_same_sum(assets, photograph, expected):
    raw = predict(assets, photograph)[0].double()
    assert raw.sum().item() == pytest.approx(expected["raw_sum"], rel=1e-5)
    assert raw[..., 4].sum().item() == pytest.approx(expected["conf_sum"], rel=1e-5)


def test_layers_that_are_not_fused_give_the_same_sum(assets, photograph, expected):
    raw = predict(assets, photograph, fuse=False)[0].double()
    assert raw.sum().item() == pytest.approx(expected["raw_sum_unfused"], rel=1e-5)


def test_the_most_certain_raw_rows_are_the_same(assets, photograph):
    reference = np.load(assets / "golden" / "yolov5n_raw_top200.npz")
    rows, values = reference[f"{photograph}:rows"], reference[f"{photograph}:raw"]
    raw = predict(assets, photograph)[0][0].numpy()
    assert set(np.argsort(-raw[:, 4])[:150]) <= set(rows)
    np.testing.assert_allclose(raw[rows], values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NMS_OPTIONS)
def test_suppression_keeps_the_same_detections(assets, photograph, expected, name):
    found = non_max_suppression(predict(assets, photograph), **NMS_OPTIONS[name])[0]
    assert_same_detections(found, expected[name])


def test_boxes_are_the_same_in_pixels_of_the_image(assets, photograph, expected):
    im0, batch = read_input(assets, photograph)
    found = non_max_suppression(predict(assets, photograph))[0]
    scale_boxes(batch.shape[2:], found[:, :4], im0.shape)
    assert_same_detections(found, expected["boxes_in_image"], digits=3)


def test_suppression_with_many_labels_keeps_as_many(assets, photograph, expected):
    options = {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300}
    found = non_max_suppression(predict(assets, photograph), **options)[0]
    assert len(found) == expected["nms_val_count"]
    assert found[:, 4].sum().item() == pytest.approx(expected["nms_val_conf_sum"], rel=1e-4)


@pytest.mark.parametrize(("layout", "digits"), [("xyxy", 3), ("xywhn", 5)])
def test_the_wrapper_gives_the_same_tables(assets, photograph, expected, layout, digits):
    model = AutoShape(DetectMultiBackend(assets / "weights" / "yolov5n.pt"), verbose=False)
    table = getattr(model(assets / "images" / photograph).pandas(), layout)[0]
    reference = expected[f"autoshape_{layout}"]
    assert list(table.columns) == list(reference[0])
    for found, wanted in zip(table.to_dict("records"), reference, strict=True):
        numbers = [key for key in wanted if key != "name"]
        assert found["name"] == wanted["name"]
        assert [found[key] for key in numbers] == pytest.approx([wanted[key] for key in numbers], abs=2 * 10**-digits)
