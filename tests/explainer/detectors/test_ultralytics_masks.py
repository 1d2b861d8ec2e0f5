"""Masks of the ultralytics package's segmentation models: they are its own, and each can be explained."""

import copy
import logging

import cv2
import numpy as np
import pytest
import torch
from ultralytics_models import PICTURE, ultralytics_model

from explainer.detectors.detector import Sight, Suppression
from explainer.detectors.weights import detector_of
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods.targets import detections_target

MODELS = [("yolov8n-seg", False), ("yolo11n-seg", False), ("yolo26n-seg", False), ("yolo26n-seg", True)]
every_model = pytest.mark.parametrize(("name", "end_to_end"), MODELS)
SOME = Suppression(conf_thres=0.3, iou_thres=0.5, max_det=12)


def masks_of_the_package(model, image_rgb, **settings):
    """Return what its own predictor says: boxes (n, 4) in pixels of the image, and masks (n, h, w)."""
    package = pytest.importorskip("ultralytics")
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    wrapped = package.YOLO("yolov8n-seg.yaml", task="segment")
    wrapped.model = copy.deepcopy(model)
    how = {"imgsz": 160, "conf": SOME.conf_thres, "iou": SOME.iou_thres, "max_det": SOME.max_det, "device": "cpu"}
    how |= {"end2end": model.model[-1].end2end, "verbose": False, "save": False}
    (result,) = wrapped.predict(image_rgb[..., ::-1].copy(), **how, **settings)
    return result.boxes.xyxy.numpy(), result.masks.data.numpy().astype(bool)


def ours(model, image_rgb):
    """Return the detections of an image, and their masks."""
    with detector_of(model, (160, 160)).borrowed() as lent:
        assert lent.predicts_masks
        seen = lent.see(image_rgb, Sight((160, 160), (), False))
        found, _ = lent.detect(seen.recording, seen.letterbox, SOME)
        return found, lent.masks(seen.recording, seen.letterbox, found)


def pairs_of_masks(found, masks, boxes, theirs):
    """Yield our mask and theirs of each box; of empty masks the package leaves the detection out."""
    left = list(zip(boxes, theirs, strict=True))
    for entry, mask in zip(found, masks, strict=True):
        same = [number for number, (box, _) in enumerate(left) if np.abs(box - entry.xyxy).max() < 0.05]
        assert same or not mask.any()
        if same:
            yield mask, left.pop(same[0])[1]
    assert not left


@every_model
def test_masks_are_those_of_the_package_to_the_pixel(name, end_to_end):
    model = ultralytics_model(name, end_to_end=end_to_end)
    found, masks = ours(model, PICTURE)
    pairs = list(pairs_of_masks(found, masks, *masks_of_the_package(model, PICTURE)))
    assert len(pairs) > 5
    for mask, theirs in pairs:
        assert mask.shape == theirs.shape == PICTURE.shape[:2]
        # Where a logit is nearly zero rounding decides.
        assert (mask != theirs).sum() <= 3


# Larger than the input, and padded above and below, where the heads that give sides as they are find nothing.
OTHER_SIZES = [(*model, cv2.resize(PICTURE, (240, 144))) for model in MODELS]
OTHER_SIZES += [(*model, cv2.resize(PICTURE[:80], (240, 120))) for model in MODELS[:2]]


@pytest.mark.parametrize(("name", "end_to_end", "image_rgb"), OTHER_SIZES)
def test_masks_of_other_sizes_are_the_packages_fine_ones(name, end_to_end, image_rgb):
    model = ultralytics_model(name, end_to_end=end_to_end)
    found, masks = ours(model, image_rgb)
    pairs = list(pairs_of_masks(found, masks, *masks_of_the_package(model, image_rgb, retina_masks=True)))
    assert len(pairs) > 5
    both, either = (sum(op(*pair).sum() for pair in pairs) for op in (np.logical_and, np.logical_or))
    assert both / either > 0.99


class Case:
    """The scores of the masks of a model's first detections."""

    def __init__(self, name, end_to_end=False, layers=("model.4",), items=("mask",), with_graph=True):
        detector = detector_of(ultralytics_model(name, end_to_end=end_to_end).double(), (160, 160))
        layers = (*layers, *(detector.structure.name(source) for source in detector.structure.sources))
        besides = () if with_graph else detector.needed_above(layers[0])
        with detector.borrowed() as self.lent:
            seen = self.lent.see(PICTURE, Sight((160, 160), (*layers, *besides), with_graph))
            self.recording, self.letterbox = seen.recording, seen.letterbox
            self.found, self.boxes = self.lent.detect(seen.recording, seen.letterbox, Suppression(max_det=4))
        classes, self.rows = (
            torch.tensor([getattr(entry, key) for entry in self.found]) for key in ("class_index", "row")
        )
        self.target = detections_target(self.recording.predictions, self.boxes, classes, items, self.rows)
        self.scores, self.layers = self.lent.scores(self.recording, self.target), layers


@every_model
def test_the_score_of_a_mask_is_the_mean_logit_of_what_it_covers(name, end_to_end):
    case = Case(name, end_to_end)
    with torch.no_grad():
        output, maps = case.lent.model(case.recording.image)[0]
    assert not case.lent.end_to_end or output.shape[2] == 6 + 32
    parts = case.lent.prototypes(case.recording)
    torch.testing.assert_close(parts.maps, maps[0].float())
    height, width = maps.shape[2:]
    for score, row, box in zip(case.scores.values.tolist(), case.rows.tolist(), case.boxes, strict=True):
        logits = torch.einsum("c,chw->hw", parts.coefficients[row], parts.maps)
        x1, y1, x2, y2 = (box / 4).tolist()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2) & (logits > 0)
        assert not inside.any() or score == pytest.approx(logits[inside].mean().item(), rel=1e-4)


@every_model
def test_gradients_of_masks_are_those_of_finite_differences(name, end_to_end):
    layer, case = "model.4", Case(name, end_to_end)
    again = Case(name, end_to_end, with_graph=False).scores.rerun(layer)
    activations = case.recording.activations[layer].detach()
    direction = torch.randn(activations.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-6
    slopes = (again(activations + step * direction) - again(activations - step * direction))[0] / (2 * step)
    assert (slopes.abs() > 1e-4).any()
    for index, slope in enumerate(slopes.tolist()):
        (gradient,) = case.scores.gradients(index, (layer,))
        assert (gradient * direction.numpy()).sum() == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "method", ["GradCAM", "LayerCAM", "FusedLayerCAM", "DetailCAM", "AblationCAM", "ODAM", "EigenCAM"]
)
def test_methods_explain_masks(method):
    model = ultralytics_model("yolov8n-seg")
    explanation = Explainer(model, method=method, imgsz=160, max_det=2, backprop_array=["mask"])(PICTURE)
    for entry in explanation.detections:
        assert entry.detection.mask.shape == PICTURE.shape[:2]
        assert entry.heatmap.any() or entry.note
        assert 0 <= entry.energy_in_mask <= 1
    assert explanation.heatmap.max() == pytest.approx(1)


def test_a_mask_is_read_where_its_prototypes_are_made_too():
    case = Case("yolov8n-seg")
    levels = case.lent.levels_of(case.recording, case.found, ("mask",))
    assert levels == [(entry.level,) if not entry.level else (entry.level, 0) for entry in case.found]
    assert case.lent.levels_of(case.recording, case.found, ("class",)) == [(entry.level,) for entry in case.found]


def test_a_method_inside_the_head_says_that_it_follows_no_masks():
    settings = {"imgsz": 160, "max_det": 1}
    with pytest.raises(UsageError, match="reads layers inside the head, where masks are not followed"):
        Explainer(ultralytics_model("yolov8n-seg"), method="FullGrad", backprop_array=["mask"], **settings)(PICTURE)
    (entry,) = Explainer(ultralytics_model("yolov8n-seg"), method="FullGrad", **settings)(PICTURE).detections
    assert entry.detection.mask.shape == PICTURE.shape[:2]


def test_boxes_that_are_given_have_no_mask():
    explainer = Explainer(ultralytics_model("yolov8n-seg"), method="GradCAM", imgsz=160)
    (entry,) = explainer(PICTURE, boxes=[(20, 10, 90, 70, 1)]).detections
    assert entry.detection.mask is None
    assert entry.heatmap.max() == pytest.approx(1)


def test_models_without_prototypes_have_no_masks():
    detector = detector_of(ultralytics_model(), (160, 160))
    assert not detector.predicts_masks
    with pytest.raises(UsageError, match="predicts no masks"):
        Explainer(detector, backprop_array=["mask"])
