"""Smoothing by augmentation is the library's: six views, mirrored or not, darker or brighter, and the mean of their maps."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, plain_iou
from scenes import confident_detector, picture

from explainer.explain import Explainer
from explainer.looks import SMOOTHING, View
from utils.general import xywh2xyxy

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "aug_smooth": True}


class ScoreOfBoxes:
    """The scores of given boxes and classes; the boxes are mirrored for the last three of six passes."""

    def __init__(self, entries, raw):
        self.boxes = [xywh2xyxy(raw[entry.detection.row, None, :4])[0].tolist() for entry in entries]
        self.classes = [entry.detection.class_index for entry in entries]
        self.passes = 0

    def __call__(self, raw):
        mirrored = self.passes >= 3
        self.passes += 1
        total = 0
        for (x1, y1, x2, y2), index in zip(self.boxes, self.classes, strict=True):
            box = (PICTURE.shape[1] - x2, y1, PICTURE.shape[1] - x1, y2) if mirrored else (x1, y1, x2, y2)
            overlap = torch.tensor([plain_iou(box, other) for other in xywh2xyxy(raw[:, :4]).tolist()])
            nearest = overlap.argsort(descending=True)[:10].tolist()
            same = [row for row in nearest if raw[row, 5:].argmax() == index] or nearest[:1]
            total = total + (torch.softmax(overlap[same], dim=0) * raw[same, 5 + index]).sum().log()
        return total


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_the_smoothed_map_equals_that_of_the_library(method, eigen_smooth):
    explainer = Explainer(
        confident_detector(), method=method, layer=4, max_det=3, eigen_smooth=eigen_smooth, **SETTINGS
    )
    explanation = explainer(PICTURE)
    model = RawPredictions(confident_detector())
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    target = ScoreOfBoxes(explanation.detections, model(image)[0].detach())
    cam = getattr(pytorch_grad_cam, method)(model, [model.detector.model[4]])
    expected = cam(image, targets=[target], aug_smooth=True, eigen_smooth=eigen_smooth)[0]
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(explanation.heatmap, expected, atol=2e-3)


def test_six_passes_are_made_and_the_picture_as_it_is_comes_first():
    model, seen = confident_detector(), []
    model.model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    Explainer(model, layer=4, max_det=3, **SETTINGS)(PICTURE)
    assert len(seen) == 6
    assert torch.equal(seen[3], seen[0].flip(3))
    assert torch.allclose(seen[4], seen[3] * 0.9)


def test_a_view_mirrors_images_boxes_and_maps():
    view = View(mirrored=True, brightness=0.5)
    assert view.boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 10).tolist() == [[7.0, 2.0, 9.0, 4.0]]
    assert view.undo(np.array([[1, 2, 3]])).tolist() == [[3, 2, 1]]
    assert view.image(torch.tensor([[[[2.0, 4.0]]]])).tolist() == [[[[2.0, 1.0]]]]
    assert SMOOTHING[0] == View()


@pytest.mark.parametrize("method", ["EigenCAM", "RefineCAM", "FullGrad", "AblationCAM", "RandomCAM", "ShapleyCAM"])
def test_every_kind_of_method_is_smoothed(method):
    explanation = Explainer(confident_detector(), method=method, max_det=3, **SETTINGS)(picture(50, 90))
    for entry in explanation.detections:
        assert entry.heatmap.shape == (50, 90)
    assert any(entry.heatmap.any() for entry in explanation.detections)


@pytest.mark.parametrize(
    "options", [{"backward_per_class": True, "layer": 4}, {"use_old_target_method": True, "layer": -2}], ids=str
)
def test_classes_are_smoothed(options):
    explanation = Explainer(confident_detector(), **options, **SETTINGS)(PICTURE)
    assert explanation.heatmap.max() == 1
    assert all(heatmap.any() for heatmap in explanation.per_class.values())
