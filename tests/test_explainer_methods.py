"""Every method gives the map that pytorch_grad_cam gives for the same model, layer and score."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from scenes import confident_detector, picture
from torch import nn

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods import METHODS, canonical_method
from utils.boxes import xywh2xyxy

# The network's input is the picture itself: no letterbox lies between the library's map and ours.
PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


class RawPredictions(nn.Module):
    """A detector that returns its raw predictions alone, as the library's targets want them."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, image):
        return self.detector(image)[0]


def score_of(entries, raw):
    """Return the sum over the detections of the log of the matched class probability, written out plainly."""
    total = 0
    for found in (entry.detection for entry in entries):
        corners = xywh2xyxy(raw[:, :4]).detach()
        box = corners[found.row]
        overlap = torch.tensor([plain_iou(box.tolist(), other) for other in corners.tolist()])
        nearest = overlap.argsort(descending=True)[:10]
        same = [i for i in nearest.tolist() if raw[i, 5:].argmax() == found.class_index] or [int(nearest[0])]
        weights = torch.softmax(overlap[same], dim=0)
        total = total + (weights * raw[same, 5 + found.class_index]).sum().log()
    return total


def plain_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def library_map(method, layers, entries, detector=None):
    """Return the library's map of the sum of the scores of some detections."""
    model = RawPredictions(detector or confident_detector())
    layers = [model.detector.model[layer] if isinstance(layer, int) else layer for layer in layers]
    cam = getattr(pytorch_grad_cam, method)(model, layers)
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    return cam(image, targets=[lambda raw: score_of(entries, raw)])[0]


@pytest.mark.parametrize("layers", [[-2], [4], [2, 4, 7]], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_map_equals_that_of_the_library(method, layers):
    explanation = Explainer(confident_detector(), method=method, layer=layers, **SETTINGS)(PICTURE)
    assert len(explanation.detections) > 2
    np.testing.assert_allclose(explanation.heatmap, library_map(method, layers, explanation.detections), atol=1e-4)


def test_a_map_of_one_class_equals_that_of_the_library():
    explanation = Explainer(confident_detector(), layer=4, class_names="bee", **SETTINGS)(PICTURE)
    assert {entry.detection.name for entry in explanation.detections} == {"bee"}
    np.testing.assert_allclose(explanation.heatmap, library_map("GradCAM", [4], explanation.detections), atol=1e-4)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.reads == "head"])
def test_auto_gives_the_library_s_map_at_the_head_s_own_inputs_each_stride_by_itself(method):
    explanation = Explainer(confident_detector(), method=method, **SETTINGS)(PICTURE)
    expected = []
    for level in (0, 1):
        detector, taps = confident_detector(), nn.ModuleList([nn.Identity(), nn.Identity()])
        detector.model[-1].register_forward_pre_hook(
            lambda head, args, taps=taps: ([tap(tensor) for tap, tensor in zip(taps, args[0], strict=True)],)
        )
        entries = [entry for entry in explanation.detections if entry.detection.level == level]
        assert entries
        expected.append(library_map(method, [taps[level]], entries, detector))
    np.testing.assert_allclose(explanation.heatmap, np.maximum(*expected), atol=1e-4)


def test_the_sum_of_all_class_probabilities_gives_the_map_of_the_library():
    explanation = Explainer(confident_detector(), layer=-2, use_old_target_method=True, **SETTINGS)(PICTURE)
    model = RawPredictions(confident_detector())
    cam = pytorch_grad_cam.GradCAM(model, [model.detector.model[-2]])
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    expected = cam(image, targets=[lambda raw: raw[:, 5:].sum()])[0]
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


@pytest.mark.parametrize("spelling", ["gradcam", "GRADCAM", "gradcam++", "GradCAM++", "layercam", "EigenGradCam"])
def test_method_names_are_not_case_sensitive(spelling):
    assert canonical_method(spelling) in METHODS


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown method 'GradCamel'; known: GradCAM, .*EigenGradCAM, GradCAM\+\+"):
        canonical_method("GradCamel")


def test_the_readme_lists_every_method_with_its_sentence_and_paper():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"| [{name}]({method.paper}) | {method.summary} |" in readme
