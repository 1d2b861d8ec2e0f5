"""Detectors of torchvision: they find what the models find, and each detection is explained by its own region or cell."""

import copy

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from scenes import picture
from small_torchvision import KINDS, LABELS, small_model
from torch import nn

from explainer.detectors.detector import IMAGE, PLACES, Sight, Suppression
from explainer.detectors.local import LocalScores, PyramidScores, window
from explainer.detectors.pyramid import labels_and_names
from explainer.detectors.weights import detector_of
from explainer.errors import UnreadableImageError, UsageError
from explainer.explain import Explainer
from explainer.maps.heatmaps import normalise
from explainer.methods.catalogue import METHODS
from explainer.methods.targets import classes_target, detections_target, similarity_target

PICTURE = picture(90, 120)
FEW = Suppression(conf_thres=0.2, iou_thres=0.5, max_det=4)
BELOW = dict.fromkeys(KINDS, "backbone.body.layer2") | {"SSD": "backbone.first.1"}
# Those whose heads look at a part of the pyramid alone.
LOCAL = [kind for kind in KINDS if kind != "FCOS"]


def as_own(model):
    """Return the thresholds of a model itself."""
    last = getattr(model, "roi_heads", model)
    return Suppression(
        conf_thres=last.score_thresh, iou_thres=last.nms_thresh, max_det=last.detections_per_img, classes=()
    )


class Case:
    """A small model, recorded on the picture, with the scores of its first detections."""

    def __init__(self, kind, layers=("pyramid.0",), with_graph=False, items=("class",)):
        self.model = small_model(kind)
        with detector_of(self.model, None).borrowed() as self.detector:
            self.seen = self.detector.see(PICTURE, Sight(self.detector.input_size(None), layers, with_graph))
            self.recording = self.seen.recording
            self.found, self.boxes = self.detector.detect(self.recording, self.seen.letterbox, FEW)
        self.classes = torch.tensor([entry.class_index for entry in self.found])
        self.own = torch.tensor([entry.row for entry in self.found])
        parts = self.recording.predictions, self.boxes, self.classes, items, self.own
        self.target = detections_target(*parts)
        self.scores = self.detector.scores(self.recording, self.target)

    def whole(self, pyramid):
        """Return the scores (D,) that the whole head gives for another pyramid."""
        (found,) = self.detector.found(pyramid, tuple(self.recording.image.shape[2:]))
        return self.target.of(found.predictions)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_those_of_the_model_itself(kind):
    model = small_model(kind)
    own = model([torch.from_numpy(PICTURE.transpose(2, 0, 1).copy()).float() / 255])[0]
    with detector_of(model, None).borrowed() as detector:
        seen = detector.see(PICTURE, Sight(detector.input_size(None), (), False))
        found, _ = detector.detect(seen.recording, seen.letterbox, as_own(model))
    assert len(found) == len(own["boxes"]) > 10
    np.testing.assert_allclose([entry.confidence for entry in found], own["scores"].detach(), atol=1e-4)
    np.testing.assert_allclose([entry.xyxy for entry in found], own["boxes"].detach(), rtol=1e-4, atol=1e-3)
    assert [entry.class_index + 1 for entry in found] == own["labels"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_of_a_detection_is_that_of_its_own_prediction(kind):
    explanation = Explainer(small_model(kind), conf_thres=0.2, max_det=4)(PICTURE)
    both = Explainer(small_model(kind), conf_thres=0.2, max_det=4, backprop_array="class_confidence")(PICTURE)
    for entry, product in zip(explanation.detections, both.detections, strict=True):
        assert product.score == pytest.approx(np.log(entry.detection.confidence), abs=1e-5)
        if kind != "FCOS":
            assert entry.score == pytest.approx(product.score)


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("item", ["class", "x_center", "height"])
def test_gradients_of_parts_are_those_of_the_whole_head(kind, item):
    case = Case(kind, items=(item,))
    assert isinstance(case.scores, LocalScores)
    leaves = [each.detach().requires_grad_() for each in case.recording.head_inputs]
    whole = case.whole(leaves)
    torch.testing.assert_close(case.scores.values, whole.detach(), atol=1e-4, rtol=1e-4)
    for index in range(len(case.found)):
        expected = torch.autograd.grad(whole[index], leaves, retain_graph=True, materialize_grads=True)
        for mine, theirs in zip(case.scores.head_gradient(index), expected, strict=True):
            torch.testing.assert_close(torch.zeros_like(theirs) if mine is None else mine, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    case = Case(kind)
    level, index = case.found[0].level, 0
    gradient = case.scores.head_gradient(index)[level]
    place = tuple(int(each) for each in np.unravel_index(gradient.abs().argmax().item(), gradient.shape))
    differences = []
    for step in (1e-2, -1e-2):
        pyramid = [each.detach().clone() for each in case.recording.head_inputs]
        pyramid[level][place] += step
        differences.append(case.scores.of_features(case.scores.select(pyramid))[0, index].item())
    assert (differences[0] - differences[1]) / 2e-2 == pytest.approx(gradient[place].item(), rel=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_below_the_pyramid_is_that_of_the_whole_network(kind):
    case = Case(kind, (BELOW[kind],), with_graph=True)
    (gradient,) = case.scores.gradients(0, (BELOW[kind],))
    leaf, detector = case.recording.activations[BELOW[kind]].detach().requires_grad_(), case.detector
    with detector.at_layer(BELOW[kind], lambda output: leaf):
        score = case.whole(detector.pyramid(case.recording.image))[0]
    (expected,) = torch.autograd.grad(score, leaf)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-5, rtol=1e-3)
    assert gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_above_a_layer_is_run_again_as_the_whole_network_runs_it(kind):
    layer = BELOW[kind]
    wanted = detector_of(small_model(kind), None).needed_above(layer)
    case = Case(kind, (layer, *wanted))
    again = case.scores.rerun(layer)
    torch.testing.assert_close(again(again.activations)[0], case.scores.baseline, atol=1e-4, rtol=1e-4)
    changed = torch.cat((again.activations * 0.9, again.activations * 1.1))
    with case.detector.at_layer(layer, lambda output: changed):
        pyramid = case.detector.pyramid(case.recording.image.expand(2, -1, -1, -1))
    expected = case.scores.of_features(case.scores.select(pyramid))
    torch.testing.assert_close(again(changed), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", LOCAL)
def test_a_channel_of_the_pyramid_is_taken_away_from_the_parts_as_from_the_map(kind):
    case = Case(kind)
    level = case.found[0].level
    again = case.scores.rerun(f"pyramid.{level}")
    without = again.activations.clone()
    without[:, 3] = 0
    pyramid = [each.detach().clone() for each in case.recording.head_inputs]
    pyramid[level][:, 3] = 0
    expected = case.scores.of_features(case.scores.select(pyramid))
    torch.testing.assert_close(again(without), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", LOCAL)
def test_curvature_at_the_pyramid_is_that_of_the_parts_put_back(kind):
    case = Case(kind)
    level = case.found[0].level
    ((gradient, product),) = case.scores.curvatures(0, (f"pyramid.{level}",))
    np.testing.assert_allclose(gradient, case.scores.head_gradient(0)[level].numpy(), atol=1e-6)
    step, maps = 1e-3, []
    for factor in (1 + step, 1 - step):
        moved = copy.copy(case.recording)
        inputs = [each.detach() for each in case.recording.head_inputs]
        inputs[level] = inputs[level] * factor
        object.__setattr__(moved, "head_inputs", tuple(inputs))
        parts = case.detector.local(moved, case.target.rows)
        scores = LocalScores(case.detector, moved, case.target, parts)
        maps.append(scores.head_gradient(0)[level].numpy())
    finite = (maps[0] - maps[1]) / (2 * step)
    assert np.corrcoef(finite.ravel(), product.ravel())[0, 1] > 0.98
    with pytest.raises(UsageError, match="at its pyramid alone"):
        case.scores.curvatures(0, (BELOW[kind],))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "FullGrad"])
def test_every_method_gives_a_map_or_says_why_there_is_none(kind, method):
    masks = {} if METHODS[method].reads_layers else {"masks": 16}
    model = small_model(kind)
    before = copy.deepcopy(model.state_dict())
    explainer = Explainer(model, method=method, conf_thres=0.2, max_det=2, **masks)
    explanation = explainer(PICTURE)
    assert len(explanation.detections) == 2
    for entry in explanation.detections:
        assert entry.heatmap.any() or entry.note
        assert entry.heatmap.shape == PICTURE.shape[:2]
    again = explainer(PICTURE)
    np.testing.assert_array_equal(again.heatmap, explanation.heatmap)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_fullgrad_says_why_it_does_not_apply():
    with pytest.raises(UsageError, match="FullGrad reads the gradient behind every bias"):
        Explainer(small_model("SSD"), method="FullGrad")


def test_the_map_of_a_region_is_that_of_the_librarys_own_gradcam():
    explainer = Explainer(small_model("Faster R-CNN"), method="GradCAM", conf_thres=0.2, max_det=1)
    with explainer.detector.borrowed() as detector:
        seen = detector.see(PICTURE, explainer.sight)
        ((found,), _) = detector.detect(seen.recording, seen.letterbox, explainer.settings.suppression)

        class Whole(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = detector.model

            def forward(self, images):
                return detector.forward(images).probabilities

        layer = detector.model.backbone.fpn.layer_blocks[found.level]
        target = lambda probabilities: probabilities[found.row, found.class_index].log()  # noqa: E731
        with GradCAM(Whole(), [layer]) as library:
            expected = library(seen.recording.image.clone().requires_grad_(), [target])[0]
    (entry,) = explainer(PICTURE).detections
    mine = normalise(cv2.resize(np.maximum(entry.cams[0], 0), expected.shape[::-1]))
    np.testing.assert_allclose(mine, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_all_predictions_go_through_the_whole_head(kind):
    case = Case(kind, (BELOW[kind],), with_graph=True)
    scores = case.detector.scores(case.recording, classes_target([[0], [1, 2]]))
    assert isinstance(scores, PyramidScores)
    expected = case.recording.predictions.probabilities.sum(dim=0)
    torch.testing.assert_close(scores.values, torch.stack((expected[0], expected[1:].sum())), rtol=1e-4, atol=1e-4)
    assert scores.gradients(0, (BELOW[kind],))[0].any()
    similar = similarity_target(case.recording.predictions, case.boxes, case.classes, ("class",), case.own)
    left = case.detector.scores(case.recording, similar).of_images(case.recording.image.repeat(2, 1, 1, 1))
    certain = case.recording.predictions.certainty[case.own]
    sizes = case.recording.predictions.boxes_xywh[case.own, 2:]
    assert ((left >= certain - 1e-3) | (sizes == 0).any(dim=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_box_is_explained_and_the_places_have_layers(kind):
    explainer = Explainer(small_model(kind), method="LayerCAM")
    (entry,) = explainer(PICTURE, boxes=[(20, 10, 70, 60, 1)]).detections
    assert entry.detection.outcome == "given"
    assert np.isfinite(entry.score)
    for place in PLACES.values():
        layers = explainer.detector.layers_at(place)
        assert len(layers.by_level) == len(explainer.detector.strides)
        for names in layers.by_level:
            explainer.detector.layers_called(names)


def test_layers_are_called_by_name_and_those_of_the_heads_are_refused():
    detector = detector_of(small_model("Faster R-CNN"), None)
    called = detector.layers_called(("backbone_body_layer2", "pyramid.1"))
    assert called.by_level[0] == ("backbone.body.layer2", "pyramid.1")
    assert not called.at_head
    assert detector.layers_called(("pyramid_2",)).at_head
    for wrong in ("roi_heads.box_head.fc6", 17):
        with pytest.raises(UsageError, match=r"pyramid\.0, pyramid\.1"):
            detector.layers_called((wrong,))


def test_images_are_fitted_as_the_models_own_transform_does_and_as_asked():
    detector = detector_of(small_model("RetinaNet"), None)
    image, letterbox = detector.prepare(PICTURE, detector.input_size(None))
    own = detector.model.transform([torch.from_numpy(PICTURE.transpose(2, 0, 1).copy()).float() / 255])[0]
    assert letterbox.content_size == tuple(own.image_sizes[0]) == (96, 128)
    mean, std = (
        torch.tensor(each)[:, None, None] for each in (detector.transform.image_mean, detector.transform.image_std)
    )
    torch.testing.assert_close((image - mean) / std, own.tensors, atol=1e-5, rtol=1e-5)
    assert detector.prepare(PICTURE, detector.input_size((64, 64)))[1].content_size == (48, 64)
    with pytest.raises(UnreadableImageError, match="too narrow"):
        detector.prepare(np.zeros((1, 5000, 3), np.uint8), (64, 64))


def test_a_model_of_one_size_takes_no_other_and_stretches_what_it_sees():
    detector = detector_of(small_model("SSD"), None)
    assert detector.prepare(PICTURE, detector.input_size(None))[1].content_size == (96, 96)
    with pytest.raises(UsageError, match="images of 96 96 pixels alone; leave --imgsz out"):
        detector.input_size((64, 64))


def test_the_classes_of_coco_are_the_usual_eighty():
    labels, names = labels_and_names(nn.Module(), 91)
    assert (len(names), names[0], names[15], names[79]) == (80, "person", "cat", "toothbrush")
    assert labels[[0, 15, 79]].tolist() == [1, 17, 90]
    model = nn.Module()
    model.names = ["ant", "bee", "cow"]
    assert labels_and_names(model, LABELS)[1] == {0: "ant", 1: "bee", 2: "cow"}


def test_windows_stay_inside_the_map():
    places, cells = window(torch.tensor([0, 4, 9]), 2, 10)
    assert places.tolist() == [0, 2, 4]
    assert cells.tolist() == [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [5, 6, 7, 8, 9]]
    assert window(torch.tensor([1]), 5, 3)[1].tolist() == [[0, 1, 2]]


def test_a_head_that_normalises_over_the_whole_map_is_run_as_a_whole():
    assert isinstance(Case("FCOS").scores, PyramidScores)
    assert IMAGE not in Case("FCOS").recording.activations
