"""Methods made for detectors equal their formulas written out plainly, and the maps of several layers are fused as asked."""

import cv2
import numpy as np
import pytest
import torch
from plain_scores import score_of
from scenes import confident_detector, picture

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.formulas import space_map, strongest
from explainer.items import ITEMS
from explainer.maps.heatmaps import widened
from explainer.object_evidence import region
from explainer.settings import Settings

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "max_det": 8}
LAYER = 4
BOX_SIDE = ("x_center", "y_center", "width", "height")


def explained(method, **settings):
    return Explainer(confident_detector(), method=method, **{"layer": LAYER, **SETTINGS, **settings})(PICTURE)


def recorded(entry, layer=LAYER):
    """Return the activations (C, h, w) of a layer and the gradient of one detection's class score there, float64."""
    detector, kept = confident_detector().double(), []
    detector.model[layer].register_forward_hook(lambda module, args, output: kept.append(output))
    raw = detector(torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).double() / 255)[0][0]
    (gradient,) = torch.autograd.grad(score_of([entry], raw), kept[0])
    return kept[0].detach()[0].numpy(), gradient[0].numpy()


def bell(sigma=1.0, reach=4):
    weights = np.array([np.exp(-(step**2) / (2 * sigma**2)) for step in range(-reach, reach + 1)])
    return weights / weights.sum()


def plainly_smoothed(gradient):
    """Return a gradient (C, h, w) under a Gaussian of one cell, with zeros around it."""
    smooth, weights = np.zeros_like(gradient), bell()
    height, width = gradient.shape[1:]
    for dy in range(-4, 5):
        for dx in range(-4, 5):
            for y in range(max(0, -dy), min(height, height - dy)):
                for x in range(max(0, -dx), min(width, width - dx)):
                    smooth[:, y, x] += weights[dy + 4] * weights[dx + 4] * gradient[:, y + dy, x + dx]
    return smooth


def test_odam_multiplies_activations_with_smoothed_gradients():
    for entry in explained("ODAM").detections[:3]:
        activation, gradient = recorded(entry)
        expected = (plainly_smoothed(gradient) * activation).sum(0)
        np.testing.assert_allclose(entry.cams[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("items", [BOX_SIDE, ("class", *BOX_SIDE), ("width",)], ids="+".join)
def test_odam_shows_the_strongest_of_several_items_each_by_itself(items):
    together = explained("ODAM", backprop_array=items)
    alone = [explained("ODAM", backprop_array=item) for item in items]
    assert len(together.detections) > 2
    for number, entry in enumerate(together.detections):
        maps = [np.maximum(explanation.detections[number].cams[0], 0) for explanation in alone]
        expected = np.max([each / each.max() if each.any() else each for each in maps], axis=0)
        shown = np.maximum(entry.cams[0], 0)
        np.testing.assert_allclose(shown / max(shown.max(), 1e-12), expected, atol=1e-4)
        assert entry.score == pytest.approx(
            sum(explanation.detections[number].score for explanation in alone), abs=1e-4
        )


def test_the_box_side_differs_from_the_class_side():
    sides = [explained("ODAM", backprop_array=items).detections[0].heatmap for items in ("class", BOX_SIDE)]
    assert np.abs(sides[0] - sides[1]).max() > 0.2


def test_the_strongest_map_scales_each_item_to_its_own_peak():
    contributions = np.array([[[[0.0, 10.0]], [[0.0, 10.0]]], [[[0.1, 0.0]], [[0.1, -5.0]]]], dtype=np.float32)
    np.testing.assert_allclose(strongest(contributions), [[1.0, 1.0]])
    np.testing.assert_allclose(strongest(contributions[1:]), [[0.2, -5.0]])


def test_ssgradcam_weights_each_cell_by_the_size_of_its_own_gradient():
    for entry in explained("SSGradCAM").detections[:3]:
        activation, gradient = recorded(entry)
        expected = sum(g.mean() * a * np.abs(g) / np.abs(g).max() for g, a in zip(gradient, activation, strict=True))
        np.testing.assert_allclose(entry.cams[0], expected, rtol=1e-3, atol=1e-6)


def test_ssgradcam_plus_plus_weights_channels_inside_the_box():
    for entry in explained("SSGradCAM++").detections[:3]:
        activation, gradient = recorded(entry)
        # The box as it was detected: that of the entry ends at the edge of the picture.
        x1, y1, x2, y2 = entry.detection.xyxy
        stride = PICTURE.shape[0] / activation.shape[1]
        inside = np.zeros(activation.shape[1:])
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                inside[y, x] = x1 < (x + 1) * stride and x2 > x * stride and y1 < (y + 1) * stride and y2 > y * stride
        expected = np.zeros(activation.shape[1:])
        for g, a in zip(gradient, activation, strict=True):
            alpha = g**2 / (2 * g**2 * inside + (a * inside).sum() * g**3 + 1e-6)
            expected += (alpha * np.maximum(g, 0)).sum() * a * np.abs(g) / np.abs(g).max()
        np.testing.assert_allclose(entry.cams[0], expected, rtol=2e-3, atol=1e-6)


def test_a_channel_without_gradient_has_an_empty_space_map():
    gradients = np.array([[[[0.0, 0.0]], [[-4.0, 1.0]]]], dtype=np.float32)
    np.testing.assert_allclose(space_map(gradients), [[[[0.0, 0.0]], [[1.0, 0.25]]]])


def test_the_region_of_a_box_is_the_cells_that_it_touches():
    like = torch.zeros(1, 2, 4, 6)
    found = region(torch.tensor([8.0, 5.0, 17.0, 16.0]), (32, 48), like)
    expected = torch.zeros(4, 6)
    expected[0:2, 1:3] = 1
    assert (found == expected).all()
    assert found.shape == like.shape
    assert region(torch.tensor([9.0, 9.0, 10.0, 10.0]), (32, 48), like).sum() == 2


@pytest.mark.parametrize("method", ["ODAM", "SSGradCAM++"])
def test_a_layer_that_a_detection_does_not_depend_on_is_said_to_be_empty(method):
    explanation = explained(method, layer=-2, max_det=1000)
    empty = [entry for entry in explanation.detections if entry.note]
    assert empty
    assert all("has no gradient at layer model.7" in entry.note for entry in empty)


@pytest.mark.parametrize("method", ["ODAM", "SSGradCAM++"])
def test_methods_for_single_detections_refuse_the_sum_of_all_predictions(method):
    with pytest.raises(UsageError, match="explains single detections; leave --use-old-target-method out"):
        Settings(method=method, use_old_target_method=True)


FUSED = {"max": np.max, "product": np.prod}


@pytest.mark.parametrize("method", ["LayerCAM", "HiResCAM", "EigenCAM"])
@pytest.mark.parametrize("fusion", FUSED)
def test_the_maps_of_several_layers_become_one_as_asked(fusion, method):
    fused = explained(method, layer=[2, 4], fuse=fusion).detections
    assert any(entry.heatmap.any() for entry in fused)
    by_layer = [explained(method, layer=layer).detections for layer in (2, 4)]
    for entry, *alone in list(zip(fused, *by_layer, strict=True))[:3]:
        expected = FUSED[fusion]([each.heatmap for each in alone], axis=0)
        expected -= expected.min()
        np.testing.assert_allclose(entry.heatmap, expected / max(expected.max(), 1e-9), atol=1e-3)


def test_the_maps_of_several_layers_are_averaged_unless_the_method_says_otherwise():
    one, other = explained("LayerCAM", layer=[2, 4]), explained("LayerCAM", layer=[2, 4], fuse="mean")
    assert (one.heatmap == other.heatmap).all()
    averaged = explained("RefineCAM", layer=[2, 4], fuse="mean")
    np.testing.assert_allclose(averaged.heatmap, explained("GradCAM++", layer=[2, 4]).heatmap, atol=1e-6)


def test_refinecam_is_the_product_of_gradcam_plus_plus():
    one = explained("RefineCAM", layer=[2, 4])
    other = explained("GradCAM++", layer=[2, 4], fuse="product")
    np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-6)


def test_fusedlayercam_is_a_fine_layercam_times_the_mean_of_widened_deep_ones():
    fused = explained("FusedLayerCAM", layer="auto", max_det=1000).detections
    assert {entry.detection.stride: entry.layers for entry in fused} == {
        4: ("model.2", "model.7"),
        8: ("model.2", "model.3", "model.4"),
    }
    settings = {"max_det": 1000, "backprop_array": "class_confidence"}
    alone = {layer: explained("LayerCAM", layer=layer, **settings).detections for layer in (2, 3, 4, 7)}
    for index, entry in enumerate(fused):
        fine, *deep = [alone[int(name.split(".")[1])][index].cams[0] for name in entry.layers]
        where = np.mean([np.sqrt(cv2.resize(widened(cam), (96, 64))) for cam in deep], axis=0) ** 2
        expected = cv2.resize(np.maximum(fine, 0), (96, 64)) * where
        assert (
            entry.cams[0] / entry.cams[0].max() == pytest.approx(expected / expected.max(), abs=1e-5)
        ) or not expected.max()


def test_a_widened_cell_reaches_further_the_less_there_is():
    dot = np.zeros((21, 21), dtype=np.float32)
    dot[10, 10] = 5
    wide = widened(dot)
    assert wide.max() == wide[10, 10] == 1
    np.testing.assert_allclose(wide, wide.T, atol=1e-6)
    row = wide[10, 10:16]
    assert (np.diff(row) < 0).all()
    assert row[3] > 1e-4
    assert not widened(-dot).any()


def test_fusedlayercam_explains_class_and_confidence_unless_something_else_is_asked_for():
    assert explained("FusedLayerCAM").items == ("class_confidence",)
    assert explained("FusedLayerCAM", backprop_array="width").items == ("width",)
    assert explained("LayerCAM").items == ("class",)


def test_an_unknown_fusion_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown fusion 'sum'; known: auto, mean, max, product"):
        Settings(fuse="sum")
    with pytest.raises(UsageError, match="FullGrad adds its layers up; leave --fuse max out"):
        Settings(method="FullGrad", fuse="max")


def test_every_item_has_its_own_map():
    maps = [explained("ODAM", backprop_array=item).detections[0].heatmap for item in ITEMS]
    assert all(each.max() == pytest.approx(1) for each in maps)
