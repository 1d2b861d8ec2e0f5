"""RT-DETR sees an image stretched to a square, as the package itself shows it: boxes and maps land where they belong."""

import copy
import logging

import cv2
import numpy as np
import pytest
from scenes import picture
from ultralytics_models import ultralytics_model

from explainer.detectors.detector import Sight, Suppression
from explainer.detectors.weights import detector_of
from explainer.errors import UsageError
from explainer.explain import Explainer

WIDE, TALL = picture(90, 230), np.ascontiguousarray(picture(100, 240).transpose(1, 0, 2))
THRESHOLD = 0.3


def predicted_by_the_package(model, image_rgb):
    """Return what its own predictor gives: boxes (n, 4) in pixels of the image, confidences and classes."""
    package = pytest.importorskip("ultralytics")
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    wrapped = package.RTDETR("rtdetr-l.yaml")
    wrapped.model = copy.deepcopy(model)
    (result,) = wrapped.predict(
        image_rgb[..., ::-1].copy(), imgsz=160, conf=THRESHOLD, max_det=25, device="cpu", verbose=False, save=False
    )
    return result.boxes.xyxy.numpy(), result.boxes.conf.numpy(), result.boxes.cls.numpy()


@pytest.mark.parametrize("image_rgb", [WIDE, TALL], ids=["wide", "tall"])
def test_detections_are_those_of_the_packages_own_predictor(image_rgb):
    model = ultralytics_model("rtdetr-l").fuse(verbose=False)
    boxes, confidences, classes = predicted_by_the_package(model, image_rgb)
    with detector_of(model, (160, 160)).borrowed() as lent:
        seen = lent.see(image_rgb, Sight((160, 160), (), False))
        found, _ = lent.detect(seen.recording, seen.letterbox, Suppression(conf_thres=THRESHOLD, max_det=25))
    assert len(found) == len(boxes) > 5
    height, width = image_rgb.shape[:2]
    # The head gives them as shares of the image; ours end where it does.
    size = np.array([width, height, width, height])
    ours, theirs = np.stack([entry.xyxy for entry in found]) / size, boxes / size
    np.testing.assert_allclose(ours, theirs.clip(0, 1), atol=1e-4)
    np.testing.assert_allclose([entry.confidence for entry in found], confidences, atol=1e-4)
    assert [entry.class_index for entry in found] == classes.tolist()


def test_the_input_is_the_whole_image_and_nothing_else():
    detector = detector_of(ultralytics_model("rtdetr-l"), (160, 160))
    image, letterbox = detector.prepare(WIDE, (160, 160))
    assert tuple(image.shape) == (1, 3, 160, 160)
    np.testing.assert_array_equal(image[0].mul(255).round().byte().permute(1, 2, 0), cv2.resize(WIDE, (160, 160)))
    whole = np.float32([[0, 0, 230, 90]])
    np.testing.assert_allclose(letterbox.boxes_to_input(whole), [[0, 0, 160, 160]], atol=1e-4)
    np.testing.assert_allclose(
        letterbox.boxes_to_image(np.float32([[80, 40, 160, 160]])), [[115, 22.5, 230, 90]], atol=1e-4
    )


@pytest.mark.parametrize("image_rgb", [WIDE, TALL], ids=["wide", "tall"])
def test_a_map_lies_over_the_image_as_the_input_does(image_rgb):
    detector = detector_of(ultralytics_model("rtdetr-l"), (160, 160))
    _, letterbox = detector.prepare(image_rgb, (160, 160))
    height, width = image_rgb.shape[:2]
    cam = np.zeros((20, 20), np.float32)
    cam[15, 5] = 1
    y, x = np.unravel_index(letterbox.to_image(cam).argmax(), (height, width))
    assert abs(x - 5.5 / 20 * width) < width / 20
    assert abs(y - 15.5 / 20 * height) < height / 20
    explanation = Explainer(detector, imgsz=160, max_det=2, conf_thres=THRESHOLD)(image_rgb)
    assert explanation.heatmap.shape == (height, width)
    assert explanation.heatmap.max() == pytest.approx(1)


def test_a_refusal_speaks_of_the_detector_at_hand():
    model = ultralytics_model("rtdetr-l")
    with pytest.raises(
        UsageError, match=r"^--scales: RT-DETR, whose queries look at all scales, does not tell which scale"
    ):
        Explainer(model, scales=True)
    with pytest.raises(UsageError, match=r"^layer '28' is the RTDETRDecoder head itself"):
        Explainer(model, layer=28)
    blind = detector_of(model, (160, 160))
    blind.reads_layers = False
    with pytest.raises(
        UsageError, match=r"gives predictions alone, and GradCAM reads layers; take --method \w+"
    ) as error:
        Explainer(blind, method="GradCAM")
    assert "exported" not in str(error.value)
    assert ".pt" not in str(error.value)
