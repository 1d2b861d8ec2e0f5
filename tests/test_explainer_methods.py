"""Every method gives the map that pytorch_grad_cam gives for the same model, layer and score."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel
from scenes import confident_detector, picture
from test_explainer_network import state
from torch import nn

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.formulas import kernel_projection
from explainer.methods import METHODS, canonical_method
from explainer.network import Network, borrowed
from explainer.settings import Settings

# The network's input is the picture itself: no letterbox lies between the library's map and ours.
PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


def library_map(method, layers, entries, detector=None, **smoothing):
    """Return the library's map of the sum of the scores of some detections."""
    model = RawPredictions(detector or confident_detector())
    layers = [model.detector.model[layer] if isinstance(layer, int) else layer for layer in layers]
    cam = getattr(pytorch_grad_cam, method)(model, layers)
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    return cam(image, targets=[lambda raw: score_of(entries, raw)], **smoothing)[0]


# Methods whose library class cannot be run on a detector, or is no function of the score alone, are tested elsewhere.
COMPARED = [name for name, method in METHODS.items() if method.evidence in {"gradients", "curvature", "activations"}]
COMPARED = [
    name for name in COMPARED if name not in {"GuidedGradients", "FinerCAM", "KPCA_CAM", "SSGradCAM", "FusedLayerCAM"}
]
# The library's RefineCAM takes eigen-smoothing for augmentation, its FEM takes no notice of it.
SMOOTHED = [name for name in COMPARED if not METHODS[name].project and name not in {"FEM", "RefineCAM"}]


@pytest.mark.parametrize("layers", [[-2], [4], [2, 4, 7]], ids=str)
@pytest.mark.parametrize("method", COMPARED)
def test_a_map_equals_that_of_the_library(method, layers):
    if method == "ShapleyCAM" and len(layers) > 1:
        pytest.skip("the library's ShapleyCAM frees its graph after the first layer")
    explanation = Explainer(confident_detector(), method=method, layer=layers, **SETTINGS)(PICTURE)
    assert len(explanation.detections) > 2
    expected = library_map(method, layers, explanation.detections)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


@pytest.mark.parametrize("method", SMOOTHED)
def test_a_smoothed_map_equals_that_of_the_library(method):
    explanation = Explainer(confident_detector(), method=method, layer=4, eigen_smooth=True, **SETTINGS)(PICTURE)
    expected = library_map(method, [4], explanation.detections, eigen_smooth=True)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-4)


def test_kernel_pca_gives_the_library_s_component_in_double_precision():
    contributions = np.random.default_rng(0).normal(size=(6, 16, 20)).astype(np.float32)
    expected = get_2d_projection_kernel(contributions[None].astype(np.float64))[0]
    np.testing.assert_allclose(kernel_projection(contributions), expected, atol=1e-6)


def test_kernel_pca_refuses_a_layer_whose_kernel_would_fill_the_memory():
    with pytest.raises(UsageError, match=r"a layer of 160x160 has too many \(at most 6400\); try --layer auto"):
        kernel_projection(np.zeros((2, 160, 160), dtype=np.float32))


def test_a_map_of_one_class_equals_that_of_the_library():
    explanation = Explainer(confident_detector(), layer=4, class_names="bee", **SETTINGS)(PICTURE)
    assert {entry.detection.name for entry in explanation.detections} == {"bee"}
    np.testing.assert_allclose(explanation.heatmap, library_map("GradCAM", [4], explanation.detections), atol=1e-4)


@pytest.mark.parametrize("method", [name for name in COMPARED if METHODS[name].reads == "head"])
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
    with pytest.raises(UsageError, match=r"unknown method 'GradCamel'; known: GradCAM, .*RandomCAM, GradCAM\+\+"):
        canonical_method("GradCamel")


def test_the_readme_lists_every_method_with_its_sentence_and_paper():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"| [{name}]({method.paper}) | {method.summary} |" in readme


@pytest.mark.parametrize("name", ["SESS", "sess", "GuidedBackpropReLUModel", "DeepFeatureFactorization"])
def test_a_method_that_cannot_apply_says_why(name):
    with pytest.raises(UsageError, match=r"--method \w+ does not apply: .*; try --"):
        canonical_method(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "FullGrad", "layer": 4}, "FullGrad reads all layers that have a bias; leave --layer out"),
        ({"method": "EigenCAM", "eigen_smooth": True}, "--eigen-smooth does not apply to EigenCAM"),
        ({"method": "FinerCAM", "backprop_array": "width"}, "FinerCAM compares classes; leave --backprop-array width"),
        ({"method": "FinerCAM", "use_old_target_method": True}, "leave --use-old-target-method out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_a_method_has_no_use_for_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Settings(**given)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_and_repeats_itself(method):
    explainer = Explainer(confident_detector(), method=method, max_det=5, **SETTINGS)
    first, second = explainer(PICTURE), explainer(PICTURE)
    assert any(cam.any() for entry in first.detections for cam in entry.cams)
    assert (first.heatmap == second.heatmap).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_as_it_was(method):
    model = confident_detector().train()
    before = state(model)
    Explainer(model, method=method, max_det=5, **SETTINGS)(PICTURE)
    assert state(model) == before


WITHOUT_RERUNS = [
    name
    for name in METHODS
    if METHODS[name].reads != "predictions" and METHODS[name].evidence not in {"ablation", "masking"}
]


@pytest.mark.parametrize("method", WITHOUT_RERUNS)
def test_one_forward_pass_is_enough(method):
    model, passes = confident_detector(), []
    explainer = Explainer(model, method=method, max_det=5, **SETTINGS)
    model.model[0].register_forward_hook(lambda *args: passes.append(1))
    explainer(PICTURE)
    assert len(passes) == 1


def test_random_weights_lie_between_minus_one_and_one_and_differ_between_detections():
    explanation = Explainer(confident_detector(), method="RandomCAM", layer=4, **SETTINGS)(PICTURE)
    activations = recorded(confident_detector(), "model.4")
    weights = [weights_of(entry.cams[0], activations) for entry in explanation.detections[:20]]
    assert np.abs(weights).max() <= 1
    assert np.std(weights) == pytest.approx(1 / np.sqrt(3), rel=0.1)
    assert not np.allclose(weights[0], weights[1])


def recorded(detector, layer):
    """Return the activations (C, h, w) of a layer for the picture."""
    network = Network(detector)
    with borrowed(network):
        image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
        return network.record(image, (layer,), with_graph=False).activations[layer][0].numpy()


def weights_of(cam, activations):
    """Return the weights by which channels were added up to a map; they must fit exactly."""
    columns = activations.reshape(len(activations), -1).T.astype(np.float64)
    weights, *_ = np.linalg.lstsq(columns, cam.ravel(), rcond=None)
    np.testing.assert_allclose(columns @ weights, cam.ravel(), atol=1e-4)
    return weights


def test_guided_gradients_weight_channels_by_positive_gradients_at_active_cells():
    entries = Explainer(confident_detector(), method="GuidedGradients", layer=4, **SETTINGS)(PICTURE).detections
    detector, kept = confident_detector(), []
    detector.model[4].register_forward_hook(lambda module, args, output: kept.append(output))
    raw = detector(torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255)[0][0]
    for entry in entries[:3]:
        (gradient,) = torch.autograd.grad(score_of([entry], raw), kept[0], retain_graph=True)
        activation = kept[0].detach()
        guided = (activation > 0).float() * (gradient > 0).float() * gradient
        expected = (guided.mean((2, 3), keepdim=True) * activation)[0].sum(0)
        np.testing.assert_allclose(entry.cams[0], expected.numpy(), rtol=1e-3, atol=1e-6)
