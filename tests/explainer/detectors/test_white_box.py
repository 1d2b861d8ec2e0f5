"""A detector of another kind than YOLOv5, which says no objectness, is explained like one: twenty lines are enough."""

import copy

import numpy as np
import pytest
import torch
from plain_detector import STRIDE, PlainDetector, PlainNet
from scenes import picture
from torch import nn
from torchvision.ops import box_convert

from explainer.detectors.detector import HEAD, IMAGE, Suppression
from explainer.detectors.predictions import Target
from explainer.detectors.white_box import bias_of, letterboxed, usable_activation
from explainer.errors import UnreadableImageError, UsageError
from explainer.explain import Explainer
from explainer.methods.catalogue import METHODS
from explainer.methods.targets import detections_target

PICTURE = picture(64, 96)
IMAGE_OF_IT = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.3, "imgsz": 96, "max_det": 4}
METHODS_TRIED = ["GradCAM", "LayerCAM", "AblationCAM", "EigenCAM", "FullGrad", "ShapleyCAM", "ODAM", "ScoreCAM"]
METHODS_TRIED += ["FusedLayerCAM", "DetailCAM", "DRISE"]


def explained(method="GradCAM", detector=None, **settings):
    masks = {"masks": 24} if method in ("DRISE", "FocusedRISE") else {}
    return Explainer(detector or PlainDetector(PlainNet()), method=method, **SETTINGS | masks | settings)(PICTURE)


def state(model):
    """Return what must not change in any module."""
    return {
        "tensors": {name: (tensor._version, tensor.sum().item()) for name, tensor in model.state_dict().items()},
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    }


class Case:
    """The picture with its detections, recorded with a graph, and the plain network with the output of one layer."""

    def __init__(self, layer="body.5"):
        self.layer = layer
        with PlainDetector(PlainNet().eval()).borrowed() as self.detector:
            image, letterbox = self.detector.prepare(PICTURE, (64, 96))
            self.recording = self.detector.record(image, (layer,), with_graph=True)
        found, boxes = self.detector.detect(self.recording, letterbox, Suppression(conf_thres=0.3, max_det=4))
        self.classes = torch.tensor([entry.class_index for entry in found])
        self.target = detections_target(self.recording.predictions, boxes, self.classes, ("class",))
        self.scores = self.detector.scores(self.recording, self.target)

    def plainly(self, change=lambda output: output):
        """Return the predictions of the plain network, with the layer's output changed, and that output."""
        net, kept = PlainNet().eval(), []

        def keep(module, args, output):
            kept.append(output)
            return change(output)

        net.get_submodule(self.layer).register_forward_hook(keep)
        return PlainDetector(net).forward(IMAGE_OF_IT)[0], kept[0]


@pytest.mark.parametrize("method", METHODS_TRIED)
def test_every_kind_of_method_explains_it(method):
    explanation = explained(method)
    assert len(explanation.detections) == 4
    assert explanation.heatmap.shape == (64, 96)
    assert explanation.heatmap.max() == pytest.approx(1)
    rows = list(explanation.rows())
    assert len(rows) == 4
    for entry, row in zip(explanation.detections, rows, strict=True):
        assert np.isfinite(entry.score)
        assert np.isfinite(entry.heatmap).all()
        assert (row["name"], row["stride"], row["method"]) == (entry.detection.name, STRIDE, method)
    assert any(entry.heatmap.any() for entry in explanation.detections)


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_leave_the_model_as_it_was(method):
    model = PlainNet().train()
    model.body[0].requires_grad_(False)
    before = state(model)
    explained(method, PlainDetector(model))
    assert state(model) == before


def test_the_model_is_given_back_as_it_was_after_an_error():
    model = PlainNet().train()
    before = state(model)
    explainer = Explainer(PlainDetector(model), **SETTINGS)
    explainer.attributor.formula = None
    with pytest.raises(TypeError):
        explainer(PICTURE)
    assert state(model) == before


def test_gradients_are_those_of_plain_automatic_differentiation():
    case = Case()
    predictions, output = case.plainly()
    scores = case.target.of(predictions)
    torch.testing.assert_close(case.scores.values, scores.detach())
    for index in range(len(scores)):
        (expected,) = torch.autograd.grad(scores[index], output, retain_graph=True)
        (found,) = case.scores.gradients(index, ("body.5",))
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-7)


def test_nothing_below_the_layer_is_recorded():
    case = Case()
    assert case.recording.activations["body.5"].is_leaf
    assert not case.recording.predictions.boxes_xywh.requires_grad


def test_curvatures_are_products_with_the_hessian():
    case = Case("body.8")
    activations = case.recording.activations["body.8"].detach()
    for index in range(2):

        def score(output, index=index):
            return case.target.of(case.plainly(lambda _: output)[0])[index]

        _, expected = torch.autograd.functional.hvp(score, activations, activations)
        gradient, product = case.scores.curvatures(index, ("body.8",))[0]
        np.testing.assert_allclose(gradient, case.scores.gradients(index, ("body.8",))[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(product, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_weights_of_channels_are_what_a_plain_loop_over_them_finds():
    case = Case()
    explanation = explained("AblationCAM", layer="body.5")
    clean, output = case.plainly()
    drops = []
    for channel in range(output.shape[1]):
        kept = torch.ones(1, output.shape[1], 1, 1)
        kept[:, channel] = 0
        without, _ = case.plainly(lambda output, kept=kept: output * kept)
        drops.append(case.target.of(clean) - case.target.of(without))
    weights = torch.stack(drops).detach()
    expected = torch.einsum("cd,chw->dhw", weights, output[0].detach()).numpy()
    np.testing.assert_allclose([entry.cams[0] for entry in explanation.detections], expected, rtol=1e-3, atol=1e-5)


def test_channels_are_shown_to_the_whole_network_by_score_cam():
    case = Case("body.8")
    maps = nn.functional.interpolate(
        case.recording.activations["body.8"].detach(), (64, 96), mode="bilinear", align_corners=True
    )[0]
    masks = [(one - one.min()) / (one.max() - one.min() + 1e-8) for one in maps]
    with torch.no_grad():
        scores = torch.cat([case.target.of(case.detector.forward(IMAGE_OF_IT * mask)) for mask in masks])
    expected = torch.einsum("cd,chw->dhw", scores.softmax(0), case.recording.activations["body.8"][0].detach())
    found = [entry.cams[0] for entry in explained("ScoreCAM", layer="body.8").detections]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_the_map_of_grad_cam_is_that_of_its_formula():
    case = Case()
    predictions, output = case.plainly()
    scores = case.target.of(predictions)
    for index, entry in enumerate(explained(layer="body.5").detections):
        (gradient,) = torch.autograd.grad(scores[index], output, retain_graph=True)
        expected = (gradient.mean((2, 3), keepdim=True) * output)[0].sum(0).detach()
        np.testing.assert_allclose(entry.cams[0], expected.numpy(), rtol=1e-3, atol=1e-6)


def test_the_confidence_is_the_probability_of_the_best_class():
    case = Case()
    found = explained().detections
    probabilities = case.recording.predictions.probabilities
    for entry in found:
        row = probabilities[entry.detection.row]
        assert entry.detection.confidence == pytest.approx(row.max().item())
        assert entry.detection.class_index == row.argmax()
    confidences = [entry.detection.confidence for entry in found]
    assert confidences == sorted(confidences, reverse=True)


def test_detections_are_those_of_a_plain_suppression():
    case = Case()
    predictions = case.recording.predictions
    corners = box_convert(predictions.boxes_xywh, "cxcywh", "xyxy")
    confidences, classes = predictions.probabilities.max(dim=1)
    kept = []
    for row in confidences.argsort(descending=True, stable=True).tolist():
        rivals = [other for other in kept if classes[other] == classes[row]]
        if confidences[row] > 0.3 and all(plain_overlap(corners[row], corners[other]) <= 0.45 for other in rivals):
            kept.append(row)
    assert [entry.detection.row for entry in explained(max_det=1000).detections] == kept
    bees = [row for row in kept if classes[row] == 1]
    assert [entry.detection.row for entry in explained(max_det=1000, classes=1).detections] == bees
    assert 0 < len(bees) < len(kept)


def plain_overlap(one, other):
    """Return the intersection over union of two boxes (4,)."""
    sides = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0)
    areas = [(box[2:] - box[:2]).prod() for box in (one, other)]
    return sides.prod() / (sum(areas) - sides.prod())


def test_a_given_box_is_explained_whether_it_is_found_or_not():
    explanation = Explainer(PlainDetector(PlainNet()), **SETTINGS)(PICTURE, boxes=[(10, 5, 60, 50, "bee")])
    (entry,) = explanation.detections
    assert entry.detection.outcome == "given"
    assert entry.score == pytest.approx(np.log(entry.detection.confidence), rel=1e-4)
    assert entry.cams[0].any()


@pytest.mark.parametrize("setting", ["confidence", ("class", "confidence")], ids=str)
def test_a_confidence_apart_from_the_class_is_no_item_of_it_and_it_says_why(setting):
    with pytest.raises(
        UsageError, match=r"does not say how sure .* leave --backprop-array confidence out, or try class_"
    ):
        explained(backprop_array=setting)


@pytest.mark.parametrize("item", ["class", "class_confidence", "x_center", "y_center", "width", "height"])
def test_the_other_items_are_explained(item):
    assert explained(backprop_array=item).heatmap.any()


def test_the_older_score_classes_and_scales_are_explained_too():
    case = Case()
    explanation = explained(use_old_target_method=True, backward_per_class=True, scales=True, max_det=1000)
    assert set(explanation.per_class) == {"ant", "bee"}
    assert list(explanation.per_scale) == [STRIDE]
    sums = case.recording.predictions.probabilities.sum(dim=0).tolist()
    assert {entry.detection.class_index: entry.score for entry in explanation.detections} == pytest.approx(
        dict(enumerate(sums)), rel=1e-4
    )


def test_layers_are_called_by_their_names():
    detector = PlainDetector(PlainNet())
    assert detector.layers_called(("body_5", "body.5", "head")).by_level == (("body.5", "head"),)
    with pytest.raises(UsageError, match=r"unknown layer 'neck.1'; known: auto, body, body.0, "):
        detector.layers_called(("neck.1",))
    with pytest.raises(UsageError, match=r"unknown layer '4'; known: auto, body"):
        detector.layers_called((4,))


def test_a_layer_that_no_pass_runs_is_said_to_be_none():
    net = PlainNet()
    net.spare = nn.Conv2d(1, 1, 1)
    with pytest.raises(UsageError, match="layer 'spare' is not run in a forward pass; give another --layer"):
        explained(detector=PlainDetector(net), layer="spare")


def test_all_layers_with_a_bias_are_known_and_their_biases():
    detector = PlainDetector(PlainNet().eval())
    assert detector.layers_with_bias() == (IMAGE, "body.1", "body.4", "body.7", "head")
    for name in ("body.1", "head"):
        module = detector.model.get_submodule(name)
        nothing = torch.zeros(1, module.weight.shape[1] if name == "head" else len(module.weight), 1, 1)
        expected = module(nothing)
        torch.testing.assert_close(detector.bias(name), expected)
        assert bias_of(module).shape == (expected.shape[1],)


def test_a_copy_is_a_detector_of_its_own():
    detector = PlainDetector(PlainNet())
    other = detector.copy()
    assert type(other) is PlainDetector
    with torch.no_grad():
        other.model.head.weight.zero_()
    assert detector.model.head.weight.any()
    assert detector.randomisable() == {"all": [detector.model]}


def test_a_model_of_inference_mode_is_explained_by_a_copy():
    with torch.inference_mode():
        detector = PlainDetector(PlainNet())
        explanation = explained(detector=detector)
    assert (explanation.heatmap == explained().heatmap).all()


def test_a_rerun_that_changes_nothing_gives_the_scores():
    case = Case()
    with case.detector.borrowed():
        again = case.scores.rerun("body.5")
        found = again(again.activations.repeat(2, 1, 1, 1))
        of_images = case.scores.of_images(IMAGE_OF_IT)
    torch.testing.assert_close(found, case.scores.baseline.expand(2, -1))
    torch.testing.assert_close(of_images[0], case.scores.baseline)


def test_a_score_that_does_not_depend_on_a_layer_has_a_gradient_of_zeros():
    case = Case("body.5")
    ignoring = Target(None, lambda predictions: predictions.boxes_xywh.new_zeros(1) * predictions.probabilities.sum())
    scores = case.detector.scores(case.recording, ignoring)
    (gradient,) = scores.gradients(0, ("body.5",))
    assert gradient.shape == tuple(case.recording.activations["body.5"].shape)
    assert not gradient.any()


def test_what_is_no_map_is_refused_with_its_shape():
    with pytest.raises(UsageError, match=r"layer 'x' gives \(2, 3\), and a map needs \(1, channels, height, width\)"):
        usable_activation("x", torch.zeros(2, 3))
    with pytest.raises(UsageError, match="layer 'x' gives tuple"):
        usable_activation("x", (torch.zeros(1, 1, 1, 1),))


@pytest.mark.parametrize(("rectangular", "size"), [(True, (64, 96)), (False, (96, 96))])
def test_an_image_fills_no_more_of_a_rectangular_input_than_it_needs(rectangular, size):
    boxed, lies = letterboxed(picture(60, 96), (96, 96), 32, rectangular)
    assert boxed.shape == (*size, 3)
    assert (lies.image_size, lies.input_size, lies.content_size) == ((60, 96), size, (60, 96))
    assert lies.top == (size[0] - 60) // 2
    assert (boxed[0] == 114).all()


def test_an_image_that_is_too_narrow_to_be_seen_is_refused():
    with pytest.raises(UnreadableImageError, match="4x1000 pixels is too narrow for an input of 96"):
        letterboxed(np.zeros((1000, 4, 3), np.uint8), (96, 96), 32, True)


def test_the_place_of_a_method_is_asked_for():
    asked = []

    class Asked(PlainDetector):
        def layers_at(self, place):
            asked.append(place)
            return super().layers_at(place)

    explained(detector=Asked(copy.deepcopy(PlainNet())))
    assert asked == [HEAD]
