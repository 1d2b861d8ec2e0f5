"""What speaks for a score: gradients and what they are held against, random weights, the region of a box."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from scenes import confident, confident_detector, picture
from tiny_detectors import tiny_spec

from explainer.detectors.detector import HEAD, IMAGE, NECK, Suppression
from explainer.detectors.yolov5 import YOLOv5
from explainer.explain import Explainer
from explainer.methods.evidence import (
    Activations,
    BiasGradients,
    Curvature,
    Evidence,
    Gradients,
    ItemGradients,
    RegionGradients,
    region,
)
from explainer.methods.targets import boxes_target, detections_target, items_target
from explainer.settings import Settings
from models.yolo import DetectionModel

# The network's input is the picture itself.
PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
FULL_GRAD = SETTINGS | {"max_det": 3, "method": "FullGrad"}
BACKBONE_IN_ORDER = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 1]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [16, 3, 1]],
]
HEAD_IN_ORDER = [
    [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
    [[-1, 2], 1, "Concat", [1]],
    [-1, 1, "Conv", [8, 3, 1]],
    [[-1, 4], 1, "Detect", ["nc", "anchors"]],
]


def input_tensor():
    return torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255


class Case:
    """The picture with its first detections, recorded with a graph at two layers."""

    layers = ("model.2", "model.4")

    def __init__(self):
        with YOLOv5(confident_detector()).borrowed() as self.detector:
            image, letterbox = self.detector.prepare(PICTURE, (64, 96))
            self.recording = self.detector.record(image, (IMAGE, *self.layers), with_graph=True)
        found, self.boxes = self.detector.detect(
            self.recording, letterbox, Suppression(conf_thres=0.05, iou_thres=0.2, max_det=3)
        )
        self.classes = torch.tensor([entry.class_index for entry in found])

    def evidence(self, kind, make=detections_target, items=("class",)):
        """Return evidence of a kind for the detections."""
        target = make(self.recording.predictions, self.boxes, self.classes, items)
        return kind(self.detector, self.recording, target, Settings())


@pytest.fixture(scope="module")
def case():
    return Case()


def test_gradients_and_values_are_those_of_the_scores(case):
    evidence = case.evidence(Gradients)
    assert len(evidence.values) == 3
    assert evidence.values == pytest.approx(evidence.target.of(case.recording.predictions).tolist(), rel=1e-4)
    for found, layer in zip(evidence.at(0, case.layers), case.layers, strict=True):
        assert found.shape == evidence.factor(layer).shape
        assert (found == evidence.scores.gradients(0, (layer,))[0]).all()


def test_the_evidence_of_several_items_is_that_of_each_one_after_the_other(case):
    items = ("class", "width", "confidence")
    together = case.evidence(ItemGradients, items_target, items)
    alone = [case.evidence(Gradients, items=(item,)) for item in items]
    assert together.values == pytest.approx(np.sum([each.values for each in alone], axis=0), rel=1e-4)
    for index in range(3):
        for found, layer in zip(together.at(index, case.layers), case.layers, strict=True):
            assert found.shape[0] == 3
            for one, other in zip(found, alone, strict=True):
                np.testing.assert_allclose(one[None], other.at(index, (layer,))[0], rtol=1e-4, atol=1e-7)


def test_the_region_lies_beside_the_gradient_where_there_is_one(case):
    evidence, plain = case.evidence(RegionGradients, boxes_target), case.evidence(Gradients)
    for index, box in enumerate(case.boxes.numpy()):
        (found,), (gradient,) = evidence.at(index, ("model.4",)), plain.at(index, ("model.4",))
        assert (found[:1] == gradient).all()
        assert (found[1:] == region(box, (64, 96), gradient.shape) * gradient.any()).all()


def test_curvature_takes_half_of_the_hessian_times_the_activations_off(case):
    evidence = case.evidence(Curvature)
    ((gradient, product),) = evidence.scores.curvatures(0, ("model.4",))
    assert (evidence.at(0, ("model.4",))[0] == gradient - 0.5 * product).all()


def test_activations_alone_need_no_evidence(case):
    evidence = case.evidence(Activations)
    assert evidence.at(0, case.layers) is None
    assert not Activations.graph


def test_gradients_at_biases_are_held_against_the_biases_and_the_image(case):
    evidence = case.evidence(BiasGradients)
    assert (evidence.factor(IMAGE) == case.recording.image.detach().numpy()).all()
    assert evidence.factor("model.0.bn").shape == (1, 8, 1, 1)
    layers = BiasGradients.layers(case.detector, ("auto",), None).by_level
    assert len(layers) == 2
    assert layers[0] == layers[1] == case.detector.layers_with_bias()
    assert layers[0][0] == IMAGE
    assert layers[0][-2:] == ("model.8.m.0", "model.8.m.1")


def test_auto_reads_at_the_method_s_place_and_anything_else_where_it_is_told_to(case):
    assert Evidence.layers(case.detector, ("auto",), HEAD) == case.detector.layers_at(HEAD)
    assert Evidence.layers(case.detector, ("neck",), HEAD) == case.detector.layers_at(NECK)
    assert Evidence.layers(case.detector, (2, -2), HEAD) == case.detector.layers_called((2, -2))


@pytest.mark.parametrize("method", ["ODAM", "SSGradCAM++"])
def test_a_layer_that_a_detection_does_not_depend_on_is_said_to_be_empty(method):
    explanation = Explainer(confident_detector(), method=method, layer=-2, **SETTINGS)(PICTURE)
    empty = [entry for entry in explanation.detections if entry.note]
    assert empty
    assert all("has no gradient at layer model.7" in entry.note for entry in empty)


def test_the_region_of_a_box_is_the_cells_that_it_touches():
    found = region(np.float32([8, 5, 17, 16]), (32, 48), (1, 2, 4, 6))
    expected = np.zeros((4, 6))
    expected[0:2, 1:3] = 1
    assert (found == expected).all()
    assert found.shape == (1, 2, 4, 6)
    assert found.dtype == np.float32
    assert region(np.float32([9, 9, 10, 10]), (32, 48), (1, 2, 4, 6)).sum() == 2


def test_random_weights_lie_between_minus_one_and_one_and_differ_between_detections():
    explanation = Explainer(confident_detector(), method="RandomCAM", layer=4, **SETTINGS)(PICTURE)
    activations = recorded(confident_detector(), "model.4")
    weights = [weights_of(entry.cams[0], activations) for entry in explanation.detections[:20]]
    assert np.abs(weights).max() <= 1
    assert np.std(weights) == pytest.approx(1 / np.sqrt(3), rel=0.1)
    assert not np.allclose(weights[0], weights[1])


def recorded(detector, layer):
    """Return the activations (C, h, w) of a layer for the picture."""
    with YOLOv5(detector).borrowed() as network:
        return network.record(input_tensor(), (layer,), with_graph=False).activations[layer][0].numpy()


def weights_of(cam, activations):
    """Return the weights by which channels were added up to a map; they must fit exactly."""
    columns = activations.reshape(len(activations), -1).T.astype(np.float64)
    weights, *_ = np.linalg.lstsq(columns, cam.ravel(), rcond=None)
    np.testing.assert_allclose(columns @ weights, cam.ravel(), atol=1e-4)
    return weights


# FullGrad


def scaled(maps):
    """Return the sum of maps (C, h, w) at the input's size, each scaled to 0..1 before."""
    total = np.zeros(PICTURE.shape[:2])
    for one in maps:
        total += cv2.resize((one - one.min()) / (one.max() - one.min() + 1e-7), PICTURE.shape[1::-1])
    return total


def by_definition(detector, entries):
    """Return FullGrad's map, written out with one backward pass and a hook on every layer that has a bias."""
    image, outputs = input_tensor().requires_grad_(), {}
    for name, module in detector.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)) and module.bias is not None:
            # The activation that follows writes in place: it gets a copy.
            module.register_forward_hook(
                lambda module, args, output, name=name: outputs.setdefault(name, output).clone()
            )
    score = score_of(entries, detector(image)[0][0])
    gradients = torch.autograd.grad(score, [image, *outputs.values()])
    total = scaled((image * gradients[0])[0].abs().detach().numpy())
    for name, gradient in zip(outputs, gradients[1:], strict=True):
        module = detector.get_submodule(name)
        bias = module.bias.detach()
        if isinstance(module, torch.nn.BatchNorm2d):
            zeros = torch.zeros(1, len(bias), 1, 1)
            bias = module.eval()(zeros)[0, :, 0, 0].detach()
        total += scaled((bias[:, None, None] * gradient[0]).abs().numpy())
    return (total - total.min()) / (total.max() - total.min())


@pytest.mark.parametrize("fused", [False, True])
def test_the_map_is_that_of_the_definition(fused):
    detector = confident_detector()
    detector = detector.fuse() if fused else detector
    explanation = Explainer(detector, together="sum", **FULL_GRAD)(PICTURE)
    expected = by_definition(detector.requires_grad_(), explanation.detections)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=3e-3)


def test_where_blocks_run_in_the_order_of_their_parts_the_map_is_the_library_s():
    def detector():
        torch.manual_seed(0)
        return confident(DetectionModel({**tiny_spec(), "backbone": BACKBONE_IN_ORDER, "head": HEAD_IN_ORDER}).eval())

    explanation = Explainer(detector(), together="sum", **FULL_GRAD)(PICTURE)
    cam = pytorch_grad_cam.FullGrad(RawPredictions(detector()), [])
    expected = cam(input_tensor(), targets=[lambda raw: score_of(explanation.detections, raw)])[0]
    np.testing.assert_allclose(explanation.heatmap, expected, atol=3e-3)


def test_the_table_shows_that_all_biases_were_read():
    (entry, *_) = Explainer(confident_detector(), **FULL_GRAD)(PICTURE).detections
    assert entry.layers == ("biases",)
    assert entry.heatmap.max() == 1
