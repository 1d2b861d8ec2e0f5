"""Masks of detections: they are those of the models themselves, in pixels of the image."""

import numpy as np
import pytest
import torch
from scenes import confident, confident_detector, picture
from small_torchvision import small_model
from tiny_detectors import tiny_segmenter

from explainer.detectors.detector import Sight, Suppression
from explainer.detectors.prototypes import cells_in_box
from explainer.detectors.weights import detector_of
from explainer.explain import Explainer

PICTURE = picture(90, 120)
SETTINGS = {"imgsz": 96, "conf_thres": 0.05, "max_det": 5}


def test_masks_are_those_of_torchvision():
    model = small_model("Mask R-CNN")
    own = model([torch.from_numpy(PICTURE.transpose(2, 0, 1).copy()).float() / 255])[0]
    heads = model.roi_heads
    limits = Suppression(conf_thres=heads.score_thresh, iou_thres=heads.nms_thresh, max_det=heads.detections_per_img)
    with detector_of(model, None).borrowed() as detector:
        seen = detector.see(PICTURE, Sight(detector.input_size(None), (), False))
        found, _ = detector.detect(seen.recording, seen.letterbox, limits)
        masks = detector.masks(seen.recording, seen.letterbox, found)
    expected = (own["masks"][:, 0] >= 0.5).numpy()
    assert len(masks) == len(expected) > 10
    assert np.array_equal(masks, expected)
    assert 0 < np.mean(masks) < 1


@pytest.mark.parametrize("image_size", [(64, 96), (90, 120)])
def test_masks_are_those_of_yolov5(image_size):
    model = confident(tiny_segmenter())
    with detector_of(model, None).borrowed() as detector:
        seen = detector.see(picture(*image_size), Sight((96, 96), (), False))
        found, boxes = detector.detect(seen.recording, seen.letterbox, Suppression(conf_thres=0.05, max_det=20))
        masks = detector.masks(seen.recording, seen.letterbox, found)
        raw, prototypes, _ = model(seen.recording.image)
    size = tuple(seen.recording.image.shape[2:])
    coefficients = raw[0, [entry.row for entry in found], 8:]
    expected = cut_and_enlarged(prototypes[0], coefficients, boxes, size)[(slice(None), *seen.letterbox.content_pixels)]
    assert len(masks) == len(expected) > 5
    assert {mask.shape for mask in masks} == {image_size}
    assert 0 < np.mean(masks) < 1
    for mask, other in zip(masks, expected, strict=True):
        # At its border, where the image has another size than the input.
        same_size = np.float32(mask) if image_size == other.shape else resized(mask, other.shape)
        assert (np.abs(same_size - other) > 0.5).mean() < (1e-3 if image_size == other.shape else 0.02)


def cut_and_enlarged(prototypes, coefficients, boxes_xyxy, size):
    """Return masks (D, H, W) at the size of the input as YOLOv5 makes them, over all cells at once."""
    shares = (coefficients @ prototypes.flatten(1)).sigmoid().unflatten(1, prototypes.shape[1:])
    (height, width), (x1, y1, x2, y2) = prototypes.shape[1:], boxes_xyxy.T[:, :, None, None]
    x, y = torch.arange(width) * size[1] / width, torch.arange(height)[:, None] * size[0] / height
    shares = shares * (x >= x1) * (x < x2) * (y >= y1) * (y < y2)
    return (torch.nn.functional.interpolate(shares[None], size, mode="bilinear")[0] > 0.5).numpy()


def resized(mask, shape):
    """Return a mask as shares of pixels of another shape."""
    import cv2

    return cv2.resize(np.float32(mask), shape[::-1], interpolation=cv2.INTER_AREA)


def test_cells_of_a_box_are_those_whose_corners_lie_inside():
    rows, columns = cells_in_box(np.float32([9, -5, 20, 8]), (10, 20), (40, 80))
    assert (rows, columns) == (slice(0, 2), slice(3, 5))


@pytest.mark.parametrize("make", [lambda: small_model("Mask R-CNN"), lambda: confident(tiny_segmenter())])
def test_explanations_of_detections_carry_their_masks(make):
    settings = {"max_det": 5, "conf_thres": 0.05}
    explanation = Explainer(make(), imgsz=96, **settings)(PICTURE)
    assert {entry.mask.shape for entry in explanation.detections} == {PICTURE.shape[:2]}
    assert {entry.mask.dtype.name for entry in explanation.detections} == {"bool"}
    assert any(entry.mask.any() for entry in explanation.detections)


@pytest.mark.parametrize("make", [lambda: small_model("Mask R-CNN"), lambda: confident(tiny_segmenter())])
def test_boxes_that_were_not_predicted_have_no_mask(make):
    given = Explainer(make(), imgsz=96)(PICTURE, boxes=[(10, 10, 60, 60, 0)])
    assert [entry.mask for entry in given.detections] == [None]
    # A corner in which nothing is found.
    judged = Explainer(make(), **SETTINGS)(PICTURE, labels=[(117, 87, 119, 89, 0)])
    assert [entry.mask is None for entry in judged.detections] == [False] * 5 + [True]


@pytest.mark.parametrize("make", [lambda: small_model("Faster R-CNN"), confident_detector])
def test_models_without_masks_give_none(make):
    explanation = Explainer(make(), **SETTINGS)(PICTURE)
    assert [entry.mask for entry in explanation.detections] == [None] * 5
