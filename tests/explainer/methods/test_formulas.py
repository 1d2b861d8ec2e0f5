"""Every method gives the map of its formula: that of pytorch_grad_cam for the same model, layer and score, or its paper's."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel
from scenes import confident_detector, picture
from torch import nn

from explainer.detectors.detector import HEAD
from explainer.detectors.predictions import ITEMS
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods.catalogue import METHODS
from explainer.methods.evidence import Activations, Curvature, Gradients
from explainer.methods.formulas import (
    Library,
    formula_of,
    kernel_projection,
    largest_of_items,
    principal_projection_with_positive_peak,
    space_map,
    sum_of_channels,
    sum_of_scaled_channels,
    weighted,
    weighted_by_mean,
)

# The network's input is the picture itself: no letterbox lies between the library's map and ours.
PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
LAYER = 4
BOX_SIDE = ("x_center", "y_center", "width", "height")


def explained(method, **settings):
    settings = {"layer": LAYER, "max_det": 8} | SETTINGS | settings
    return Explainer(confident_detector(), method=method, **settings)(PICTURE)


def library_map(method, layers, entries, detector=None, **smoothing):
    """Return the library's map of the sum of the scores of some detections."""
    model = RawPredictions(detector or confident_detector())
    layers = [model.detector.model[layer] if isinstance(layer, int) else layer for layer in layers]
    cam = getattr(pytorch_grad_cam, method)(model, layers)
    return cam(IMAGE, targets=[lambda raw: score_of(entries, raw)], **smoothing)[0]


# Methods whose library class cannot be run on a detector, or is no function of the score alone, are tested elsewhere.
COMPARED = [name for name, method in METHODS.items() if method.evidence in {Gradients, Curvature, Activations}]
UNLIKE_THE_LIBRARY = {"GuidedGradients", "FinerCAM", "KPCA_CAM", "SSGradCAM", "FusedLayerCAM", "DetailCAM"}
COMPARED = [name for name in COMPARED if name not in UNLIKE_THE_LIBRARY]
# The library's RefineCAM takes eigen-smoothing for augmentation, its FEM takes no notice of it.
SMOOTHED = [name for name in COMPARED if not METHODS[name].project and name not in {"FEM", "RefineCAM"}]


@pytest.mark.parametrize("layers", [[-2], [4], [2, 4, 7]], ids=str)
@pytest.mark.parametrize("method", COMPARED)
def test_a_map_equals_that_of_the_library(method, layers):
    if method == "ShapleyCAM" and len(layers) > 1:
        pytest.skip("the library's ShapleyCAM frees its graph after the first layer")
    explanation = Explainer(confident_detector(), method=method, layer=layers, together="sum", **SETTINGS)(PICTURE)
    assert len(explanation.detections) > 2
    expected = library_map(method, layers, explanation.detections)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


@pytest.mark.parametrize("method", SMOOTHED)
def test_a_smoothed_map_equals_that_of_the_library(method):
    explanation = Explainer(
        confident_detector(), method=method, layer=4, eigen_smooth=True, together="sum", **SETTINGS
    )(PICTURE)
    expected = library_map(method, [4], explanation.detections, eigen_smooth=True)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


def test_kernel_pca_gives_the_library_s_component_in_double_precision():
    contributions = np.random.default_rng(0).normal(size=(6, 16, 20)).astype(np.float32)
    expected = get_2d_projection_kernel(contributions[None].astype(np.float64))[0]
    np.testing.assert_allclose(kernel_projection(contributions), expected, atol=1e-6)


def test_kernel_pca_refuses_a_layer_whose_kernel_would_fill_the_memory():
    with pytest.raises(
        UsageError,
        match=r"a layer of 160x160 has too many \(at most 6400\); give a smaller --imgsz or a coarser --layer",
    ):
        kernel_projection(np.zeros((2, 160, 160), dtype=np.float32))


def test_a_map_of_one_class_equals_that_of_the_library():
    explanation = Explainer(confident_detector(), layer=4, class_names="bee", **SETTINGS)(PICTURE)
    assert {entry.detection.name for entry in explanation.detections} == {"bee"}
    np.testing.assert_allclose(explanation.heatmap, library_map("GradCAM", [4], explanation.detections), atol=1e-4)


@pytest.mark.parametrize("method", [name for name in COMPARED if METHODS[name].place == HEAD])
def test_auto_gives_the_library_s_map_at_the_head_s_own_inputs_each_stride_by_itself(method):
    explanation = Explainer(confident_detector(), method=method, together="sum", **SETTINGS)(PICTURE)
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
    expected = cam(IMAGE, targets=[lambda raw: raw[:, 5:].sum()])[0]
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


def test_guided_gradients_weight_channels_by_positive_gradients_at_active_cells():
    entries = Explainer(confident_detector(), method="GuidedGradients", layer=4, **SETTINGS)(PICTURE).detections
    detector, kept = confident_detector(), []
    detector.model[4].register_forward_hook(lambda module, args, output: kept.append(output))
    raw = detector(IMAGE)[0][0]
    for entry in entries[:3]:
        (gradient,) = torch.autograd.grad(score_of([entry], raw), kept[0], retain_graph=True)
        activation = kept[0].detach()
        guided = (activation > 0).float() * (gradient > 0).float() * gradient
        expected = (guided.mean((2, 3), keepdim=True) * activation)[0].sum(0)
        np.testing.assert_allclose(entry.cams[0], expected.numpy(), rtol=1e-3, atol=1e-6)


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


def test_the_largest_of_items_scales_each_item_to_its_own_peak():
    contributions = np.array([[[[0.0, 10.0]], [[0.0, 10.0]]], [[[0.1, 0.0]], [[0.1, -5.0]]]], dtype=np.float32)
    np.testing.assert_allclose(largest_of_items(contributions), [[1.0, 1.0]])
    np.testing.assert_allclose(largest_of_items(contributions[1:]), [[0.2, -5.0]])


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


def test_every_item_has_its_own_map():
    maps = [explained("ODAM", backprop_array=item).detections[0].heatmap for item in ITEMS if item != "mask"]
    assert all(each.max() == pytest.approx(1) for each in maps)


def test_contributions_of_the_library_are_what_it_adds_up():
    activations, gradients = np.random.default_rng(0).normal(size=(2, 1, 5, 6, 7)).astype(np.float32)
    found = Library("GradCAM").loaded()(activations, gradients)
    expected = gradients.mean((2, 3), keepdims=True) * activations
    np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weighted_by_mean(activations, gradients), expected[0], rtol=1e-5, atol=1e-6)


def test_a_formula_projects_what_the_channels_contribute():
    activations = np.float32([[[[1, 2]], [[3, 4]]]])
    formula = formula_of(weighted, sum_of_channels)
    assert formula(activations, np.float32([[[[2]], [[-1]]]])).tolist() == [[-1, 0]]


def test_scaled_channels_count_alike():
    found = sum_of_scaled_channels(np.float32([[[0, 10]], [[1, 3]]]))
    assert found.tolist() == [[pytest.approx(0), pytest.approx(2)]]
    assert not sum_of_scaled_channels(np.ones((3, 2, 2), np.float32)).any()


def test_a_projection_is_turned_so_that_its_peak_is_positive():
    contributions = np.zeros((2, 3, 3), np.float32)
    for peak in (9, -9):
        contributions[:, 1, 1] = peak
        found = principal_projection_with_positive_peak(contributions)
        assert found[1, 1] == found.max() > 0
