"""Maps with a sign: those of the library before it drops what is negative, and what is drawn and refused."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from scenes import confident_detector, picture

from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.maps.heatmaps import Letterbox, for_and_against, keep_strongest, signed_map_of
from explainer.methods import METHODS
from explainer.pictures.drawing import Style
from explainer.settings import Settings

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
WHOLE = Letterbox((2, 2), (2, 2), (2, 2), 0, 0)
# A method that is added has to say whether its map has a sign.
WITH_A_SIGN = {"GradCAM", "XGradCAM", "HiResCAM", "ShapleyCAM", "FinerCAM", "AblationCAM", "SSGradCAM", "FocusedRISE"}


def signed_map_of_the_library(method, layer, entries):
    """Return the library's map of the scores of some detections as its class leaves it, by its largest magnitude."""
    model = RawPredictions(confident_detector())
    kept = []

    class Unrectified(getattr(pytorch_grad_cam, method)):
        def get_cam_image(self, *arguments):
            kept.append(super().get_cam_image(*arguments))
            return kept[-1]

    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    cam = Unrectified(model, [model.detector.model[layer]])
    cam(image, targets=[lambda raw: score_of(entries, raw)])
    return kept[0][0] / np.abs(kept[0]).max()


# At layer 2 of the tiny detector much speaks against its detections; by Grad-CAM nothing else does.
@pytest.mark.parametrize("method", ["GradCAM", "XGradCAM", "HiResCAM"])
@pytest.mark.parametrize("layer", [2, 4])
def test_a_signed_map_is_that_of_the_library_before_it_is_rectified(method, layer):
    import cv2

    explainer = Explainer(confident_detector(), method=method, layer=layer, signed=True, max_det=5, **SETTINGS)
    explanation = explainer(PICTURE)
    cam = signed_map_of_the_library(method, layer, explanation.detections)
    expected = cv2.resize(cam, (96, 64))
    np.testing.assert_allclose(explanation.signed, expected / np.abs(expected).max(), atol=1e-4)
    assert (explanation.signed.min() == -1) == (layer == 2)


def test_each_detection_has_a_signed_map_that_agrees_with_its_heatmap():
    explanation = Explainer(confident_detector(), method="HiResCAM", layer=3, signed=True, **SETTINGS)(PICTURE)
    for entry in explanation.detections[:10]:
        assert entry.signed.shape == (64, 96)
        assert entry.signed.dtype == np.float32
        assert np.abs(entry.signed).max() == 1
        assert entry.heatmap[entry.signed < -0.1].max() < 0.1
        assert entry.heatmap[entry.signed > 0.5].min() > 0.4


def test_the_heatmap_and_the_table_stay_what_they_are_without_the_sign():
    with_sign, without = (Explainer(confident_detector(), signed=on, **SETTINGS)(PICTURE) for on in (True, False))
    assert (with_sign.heatmap == without.heatmap).all()
    assert with_sign.pandas().equals(without.pandas())
    assert without.signed is None
    assert without.detections[0].signed is None


def test_the_scale_is_the_largest_magnitude_within_the_image_not_the_padding():
    cam = np.float32([[9, -9], [1, -2]])
    lower_half = Letterbox((1, 2), (2, 2), (1, 2), 1, 0)
    np.testing.assert_allclose(signed_map_of([cam], lower_half), [[0.5, -1]])


def test_the_maps_of_layers_are_scaled_before_they_are_averaged():
    cams = [np.float32([[8, 0], [-4, 0]]), np.float32([[0, 0], [-0.1, 0]])]
    np.testing.assert_allclose(signed_map_of(cams, WHOLE), np.float32([[0.5, 0], [-0.75, 0]]) / 0.75)


def test_a_map_of_nothing_has_no_sign_and_no_scale():
    assert not signed_map_of([np.zeros((2, 2), np.float32)], WHOLE).any()
    assert for_and_against([], (3, 4)).shape == (3, 4)


def test_maps_together_say_the_most_for_plus_the_most_against():
    maps = [np.float32([[1, 0.5, -0.2]]), np.float32([[0.5, -0.5, -0.4]])]
    np.testing.assert_allclose(for_and_against(maps, (1, 3)), [[1, 0, -0.4]])


def test_the_strongest_pixels_are_kept_whatever_their_sign():
    signed = np.float32([[1, -0.9], [0.1, -0.2]])
    np.testing.assert_allclose(keep_strongest(signed, 50), [[1, -0.9], [0, 0]])
    np.testing.assert_allclose(keep_strongest(signed, 100), signed)


def test_classes_are_shown_with_their_sign():
    explainer = Explainer(confident_detector(), layer=2, signed=True, backward_per_class=True, **SETTINGS)
    explanation = explainer(PICTURE)
    assert set(explanation.per_class) == {"ant", "bee", "cat"}
    assert any(entry.min() < 0 for entry in explanation.per_class.values())


def test_red_speaks_for_and_blue_against_and_the_rest_stays_as_it_is():
    explainer = Explainer(confident_detector(3), method="HiResCAM", layer=2, signed=True, max_det=1, **SETTINGS)
    explanation = explainer(PICTURE)
    painted = explanation.overlay(Style(hide_labels=True)).astype(int) - PICTURE
    x1, y1, x2, y2 = (int(value) for value in explanation.detections[0].detection.xyxy)
    outside = np.ones((64, 96), dtype=bool)
    outside[max(y1 - 3, 0) : y2 + 4, max(x1 - 3, 0) : x2 + 4] = False
    red_over_blue = painted[..., 0] - painted[..., 2]
    assert red_over_blue[outside & (explanation.signed > 0.7)].mean() > 30
    assert red_over_blue[outside & (explanation.signed < -0.7)].mean() < -30
    assert np.abs(painted[outside & (np.abs(explanation.signed) < 0.02)]).max() <= 2


def test_exactly_these_methods_have_a_sign():
    assert {name for name, method in METHODS.items() if not method.no_sign} == WITH_A_SIGN


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITH_A_SIGN])
def test_a_method_without_a_sign_says_why_and_which_ones_have_one(method):
    with pytest.raises(UsageError, match=rf"--signed does not apply to {method}: .*; methods .*: GradCAM, XGradCAM, "):
        Settings(method=method, signed=True)


@pytest.mark.parametrize("method", sorted(WITH_A_SIGN))
def test_a_method_with_a_sign_shows_it(method):
    settings = SETTINGS | {"method": method, "signed": True, "max_det": 5}
    layers = (2, 3) if METHODS[method].chooses_layers else ("auto",) * 2
    maps = [Explainer(confident_detector(), layer=layer, **settings)(PICTURE).signed for layer in layers]
    assert [np.abs(signed).max() for signed in maps] == pytest.approx([1, 1])
    assert min(signed.min() for signed in maps) < 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eigen_smooth": True}, "--eigen-smooth .* sign is arbitrary; leave it or --signed out"),
        ({"aug_smooth": True}, "--aug-smooth .*; leave it or --signed out"),
        ({"crop": True}, "--crop .*; leave it or --signed out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_have_no_sign_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Options(signed=True, **given)
