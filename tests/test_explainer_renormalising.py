"""Maps that are scaled inside the box of their detection."""

import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.maps.heatmaps import only_in_box
from explainer.settings import Settings

SETTINGS = {"imgsz": 96, "conf_thres": 0.05}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


def test_a_map_is_scaled_inside_its_box_and_blank_outside():
    heatmap = np.float32([[0.0, 1.0, 0.2], [0.0, 0.6, 0.4]])
    assert only_in_box(heatmap, np.float32([1, 0, 3, 2])) == pytest.approx(
        np.float32([[0, 1, 0], [0, 0.5, 0.25]]), abs=1e-6
    )
    assert not only_in_box(heatmap, np.float32([0, 0, 1, 2])).any()
    assert not only_in_box(heatmap, np.float32([3, 2, 3, 2])).any()


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM"])
def test_renormalised_maps_are_those_of_the_boxes_and_together_the_largest_of_them(model, method):
    plain = Explainer(model, method=method, **SETTINGS)(picture())
    inside = Explainer(model, method=method, renormalize=True, backward_per_class=True, **SETTINGS)(picture())
    expected = [only_in_box(entry.heatmap, entry.detection.xyxy) for entry in plain.detections]
    assert len(expected) > 2
    for entry, heatmap in zip(inside.detections, expected, strict=True):
        assert (entry.heatmap == heatmap).all()
    assert (inside.heatmap == np.max(expected, axis=0)).all()
    for name, heatmap in inside.per_class.items():
        own = [entry.heatmap for entry in inside.detections if entry.detection.name == name]
        assert (heatmap == np.max(own, axis=0)).all()


def test_the_table_measures_the_map_before_it_is_renormalised(model):
    plain, inside = (Explainer(model, renormalize=value, **SETTINGS)(picture()) for value in (False, True))
    assert [entry.row() for entry in plain.detections] == [entry.row() | {"note": ""} for entry in inside.detections]


def test_a_map_that_is_the_same_all_over_its_box_says_so(model):
    explanation = Explainer(model, method="EigenCAM", renormalize=True, **SETTINGS)(np.full((1, 1, 3), 90, np.uint8))
    assert explanation.detections
    assert all(entry.note for entry in explanation.detections)
    assert explanation.notes


def test_a_sign_cannot_be_renormalised():
    with pytest.raises(UsageError, match="leave it or --signed out"):
        Settings(renormalize=True, signed=True)


@pytest.mark.parametrize("renormalize", [False, True])
def test_only_the_hottest_pixels_of_each_detection_are_kept(model, renormalize):
    explanation = Explainer(model, keep_only_topk=10, renormalize=renormalize, **SETTINGS)(picture())
    for entry in explanation.detections:
        assert (entry.heatmap > 0).mean() <= 0.11
        assert (entry.shown_at((64, 96)) > 0).mean() <= 0.11
    assert (explanation.heatmap > 0).mean() <= 0.11


@pytest.fixture(scope="module")
def explanation(model):
    return Explainer(model, backward_per_class=True, max_det=4, **SETTINGS)(picture())
