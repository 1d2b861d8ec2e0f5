"""From subjects to maps of layers: what is asked, views of the image, and maps of several layers that become one."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, corners, plain_iou
from scenes import confident_detector, picture

from explainer.attribution import EVERYTHING, SMOOTHING, Attributor, EvidenceSum, Group, Question, View, groups_of
from explainer.detectors.yolov5 import YOLOv5
from explainer.explain import Explainer
from explainer.maps.detail import detail_of
from explainer.maps.heatmaps import widened
from explainer.settings import Settings
from explainer.subjects import Asked, subjects

PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
SMOOTH = SETTINGS | {"aug_smooth": True}


def explained(method, **settings):
    settings = {"layer": 4, "max_det": 8} | SETTINGS | settings
    return Explainer(confident_detector(), method=method, **settings)(PICTURE)


# Questions


class Case:
    """What is asked of the picture by some settings."""

    def __init__(self, **settings):
        detector, self.settings = YOLOv5(confident_detector()), Settings(**SETTINGS | settings)
        self.attributor = Attributor(detector, self.settings, frozenset(detector.names))
        with detector.borrowed() as lent:
            self.seen = lent.see(PICTURE, self.attributor.sight)
        self.subjects = subjects(self.seen, Asked(), self.settings, self.attributor.planner.chosen)
        self.plan = self.attributor.planner.plan(self.subjects)

    def groups(self):
        """Return all groups that any question adds to."""
        return {group for question in self.plan.questions for group in question.groups}


def test_each_subject_is_a_question_of_its_own_at_the_layers_of_its_level():
    case = Case()
    assert case.plan.questions == case.plan.of_detection
    for index, (question, found) in enumerate(zip(case.plan.questions, case.subjects.detections, strict=True)):
        layer = ("model.7", "model.4")[found.level]
        assert question == Question(index, (layer,), (EVERYTHING,))


def test_classes_each_by_itself_stand_for_everything_together():
    assert Case(backward_per_class=True).groups() == {Group(class_index=index) for index in range(3)}


def test_what_comes_from_a_scale_is_added_up_besides_everything():
    assert Case(scales=True).groups() == {EVERYTHING, Group(stride=4), Group(stride=8)}
    both = Case(scales=True, backward_per_class=True)
    for question, found in zip(both.plan.questions, both.subjects.detections, strict=True):
        expected = Group(class_index=found.class_index), Group(stride=found.stride)
        assert question.groups == groups_of(found, both.settings) == expected


def test_the_older_score_is_asked_once_for_each_place_where_it_is_read():
    case = Case(use_old_target_method=True)
    assert [(question.index, question.layers) for question in case.plan.questions] == [
        (0, ("model.7",)),
        (0, ("model.4",)),
    ]
    for question, found in zip(case.plan.of_detection, case.subjects.detections, strict=True):
        assert question.layers == (("model.7", "model.4")[found.level],)
    target = case.plan.target(case.seen.recording, View())
    assert target.of(case.seen.recording.predictions).tolist() == [
        pytest.approx(case.seen.recording.predictions.probabilities.sum().item(), rel=1e-5)
    ]


def test_the_older_score_has_a_number_for_each_class_and_each_scale_behind_them():
    case = Case(use_old_target_method=True, backward_per_class=True, scales=True, layer=4)
    assert [(question.index, question.groups) for question in case.plan.questions] == [
        *((index, (Group(class_index=index),)) for index in range(3)),
        *((3 + index, (Group(stride=stride),)) for index, stride in enumerate((4, 8))),
    ]
    scores = case.plan.target(case.seen.recording, View()).of(case.seen.recording.predictions)
    assert scores[:3].sum().item() == pytest.approx(scores[3:].sum().item(), rel=1e-5)


def test_what_a_map_needs_is_recorded_and_a_graph_only_where_gradients_pass_through_it():
    def sight(**settings):
        return Case(**settings).attributor.sight

    assert sight(method="GradCAM").layers == ("model.7", "model.4")
    assert not sight(method="GradCAM").with_graph
    assert sight(method="GradCAM", layer=4).with_graph
    assert sight(method="AblationCAM", layer=4).layers == ("model.4", "model.2")
    assert not sight(method="AblationCAM", layer=4).with_graph
    assert sight(method="AblationCAM").layers == ("model.7", "model.4")
    assert sight(method="EigenCAM").input_size == (96, 96)


def test_evidence_of_several_scores_adds_up_layers_by_layers():
    class Reader:
        """Notes what is read, and gives it back as maps."""

        def cams(self, layers, evidence):
            return layers, [part.tolist() for part in evidence]

    total, one = EvidenceSum(), np.ones((1, 1), np.float32)
    total.add(("a",), [one], "maps of the only score that was read at a")
    total.add(("b",), [one], "unused")
    total.add(("b",), [2 * one], "unused")
    assert total.cams(Reader()) == ["maps of the only score that was read at a", (("b",), [[[3]]])]


def test_activations_alone_are_the_same_for_every_subject():
    explanation = explained("EigenCAM")
    assert len({id(entry.cams[0]) for entry in explanation.detections}) == 1


# Views


class ScoreOfBoxes:
    """The scores of given boxes and classes; the boxes are mirrored for the last three of six passes."""

    def __init__(self, entries, raw):
        self.boxes = [corners(raw[entry.detection.row, None])[0] for entry in entries]
        self.classes = [entry.detection.class_index for entry in entries]
        self.passes = 0

    def __call__(self, raw):
        mirrored = self.passes >= 3
        self.passes += 1
        total = 0
        for (x1, y1, x2, y2), index in zip(self.boxes, self.classes, strict=True):
            box = (PICTURE.shape[1] - x2, y1, PICTURE.shape[1] - x1, y2) if mirrored else (x1, y1, x2, y2)
            overlap = torch.tensor([plain_iou(box, other) for other in corners(raw)])
            nearest = overlap.argsort(descending=True)[:10].tolist()
            same = [row for row in nearest if raw[row, 5:].argmax() == index] or nearest[:1]
            total = total + (torch.softmax(overlap[same], dim=0) * raw[same, 5 + index]).sum().log()
        return total


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_the_smoothed_map_equals_that_of_the_library(method, eigen_smooth):
    ways = SMOOTH | {"eigen_smooth": eigen_smooth, "together": "sum"}
    explainer = Explainer(confident_detector(), method=method, layer=4, max_det=3, **ways)
    explanation = explainer(PICTURE)
    model = RawPredictions(confident_detector())
    target = ScoreOfBoxes(explanation.detections, model(IMAGE)[0].detach())
    cam = getattr(pytorch_grad_cam, method)(model, [model.detector.model[4]])
    expected = cam(IMAGE, targets=[target], aug_smooth=True, eigen_smooth=eigen_smooth)[0]
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(explanation.heatmap, expected, atol=2e-3)


def test_six_passes_are_made_and_the_picture_as_it_is_comes_first():
    model, seen = confident_detector(), []
    model.model[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    Explainer(model, layer=4, max_det=3, **SMOOTH)(PICTURE)
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
    explanation = Explainer(confident_detector(), method=method, max_det=3, **SMOOTH)(picture(50, 90))
    for entry in explanation.detections:
        assert entry.heatmap.shape == (50, 90)
    assert any(entry.heatmap.any() for entry in explanation.detections)


@pytest.mark.parametrize(
    "options", [{"backward_per_class": True, "layer": 4}, {"use_old_target_method": True, "layer": -2}], ids=str
)
def test_classes_are_smoothed(options):
    explanation = Explainer(confident_detector(), **options, **SMOOTH)(PICTURE)
    assert explanation.heatmap.max() == 1
    assert all(heatmap.any() for heatmap in explanation.per_class.values())


# Maps of several layers


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


@pytest.mark.parametrize(
    "settings", [{"layer": "auto"}, {"layer": [2, 4], "fuse": "product"}, {"layer": [2, 4]}], ids=str
)
def test_detailcam_is_fusedlayercam_times_the_detail_of_the_input(settings):
    sharp, fused = (explained(method, **settings).detections for method in ("DetailCAM", "FusedLayerCAM"))
    whole, _ = YOLOv5(confident_detector()).prepare(PICTURE, (96, 96))
    detail = detail_of(whole[0].permute(1, 2, 0).numpy(), fused[0].letterbox)
    assert len(fused) > 2
    for entry, coarse in zip(sharp, fused, strict=True):
        assert entry.layers == coarse.layers
        expected = [cv2.resize(np.maximum(cam, 0), (96, 64)) * detail for cam in coarse.cams]
        np.testing.assert_allclose(entry.cams, expected, rtol=1e-4, atol=1e-9)


def test_each_view_of_a_picture_has_its_own_detail():
    plain, smooth = (explained("DetailCAM", layer=[2], **views).detections for views in ({}, {"aug_smooth": True}))
    blank = detail_of(np.float32(PICTURE) / 255, plain[0].letterbox) == 0
    assert blank.any()
    for entry in smooth:
        assert entry.cams[0].any()
        assert not entry.cams[0][blank].any()
