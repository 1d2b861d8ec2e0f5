"""What the subjects of an image have together: maps of classes and scales, maps with a sign, maps inside their boxes."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from fresh_interpreter import tree
from plain_scores import RawPredictions, score_of
from scenes import confident, confident_detector, picture

from explainer.attribution import EVERYTHING, Group
from explainer.combining import combined
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.maps.heatmaps import Letterbox, only_in_box
from explainer.methods.catalogue import METHODS
from explainer.pictures.drawing import Style
from explainer.settings import Settings
from models.yolo import DetectionModel

PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
SCALES = SETTINGS | {"scales": True}
WITH_A_SIGN = [name for name, method in METHODS.items() if not method.no_sign]
WHOLE = Letterbox((2, 2), (2, 2), (2, 2), 0, 0)
# The first 768 predictions of the tiny detector are those of stride 4.
ROWS = {4: slice(0, 768), 8: slice(768, None)}


def library_map(layer, target):
    model = RawPredictions(confident_detector())
    return pytorch_grad_cam.GradCAM(model, [model.detector.model[layer]])(IMAGE, targets=[target])[0]


def of_stride(explanation, stride):
    return [entry for entry in explanation.detections if entry.detection.stride == stride]


@pytest.mark.parametrize("stride", [4, 8])
def test_a_scale_shows_what_its_own_detections_depend_on(stride):
    explanation = Explainer(confident_detector(), layer=4, iou_thres=0.05, together="sum", **SCALES)(PICTURE)
    assert list(explanation.per_scale) == [4, 8]
    expected = library_map(4, lambda raw: score_of(of_stride(explanation, stride), raw))
    np.testing.assert_allclose(explanation.per_scale[stride], expected, atol=1e-4)


def test_auto_reads_each_scale_at_its_own_input_and_together_they_are_the_whole_map():
    explanation = Explainer(confident_detector(), **SCALES)(PICTURE)
    assert {entry.layers for entry in of_stride(explanation, 4)} == {("model.7",)}
    np.testing.assert_allclose(np.maximum(*explanation.per_scale.values()), explanation.heatmap, atol=1e-6)


def test_the_rest_of_the_answer_stays_what_it_is_without_the_scales():
    explanation = Explainer(confident_detector(), **SCALES)(PICTURE)
    without = Explainer(confident_detector(), **SCALES | {"scales": False})(PICTURE)
    assert (explanation.heatmap == without.heatmap).all()
    assert explanation.pandas().equals(without.pandas())
    assert without.per_scale == {}


def test_a_scale_without_a_detection_is_blank_and_says_so():
    explanation = Explainer(confident_detector(), classes=1, **SCALES)(PICTURE)
    assert {entry.detection.stride for entry in explanation.detections} == {8}
    assert not explanation.per_scale[4].any()
    assert explanation.what_is_at(4) == "no detection"
    assert explanation.what_is_at(8) == f"{len(explanation.detections)} detections"


def test_without_any_detection_every_scale_is_blank():
    explanation = Explainer(confident_detector(), **SCALES | {"conf_thres": 0.99, "no_near_miss": True})(PICTURE)
    assert [scale.any() for scale in explanation.per_scale.values()] == [False, False]


def test_a_near_miss_shows_at_its_own_scale_alone():
    explanation = Explainer(confident_detector(), **SCALES | {"conf_thres": 0.99})(PICTURE)
    assert [scale.any() for scale in explanation.per_scale.values()] == [True, False]
    assert [explanation.what_is_at(stride) for stride in (4, 8)] == ["1 box", "no detection"]


def test_of_several_classes_one_near_miss_is_shown_not_one_of_each():
    explanation = Explainer(confident_detector(), backward_per_class=True, **SETTINGS | {"conf_thres": 0.99})(PICTURE)
    assert list(explanation.per_class) == ["cat"]
    assert (explanation.per_class["cat"] == explanation.heatmap).all()


@pytest.mark.parametrize("stride", [4, 8])
def test_the_older_score_has_a_map_of_each_scale_s_own_sum(stride):
    explanation = Explainer(confident_detector(), layer=4, use_old_target_method=True, **SCALES)(PICTURE)
    expected = library_map(4, lambda raw: raw[ROWS[stride], 5:].sum())
    np.testing.assert_allclose(explanation.per_scale[stride], expected, atol=1e-4)


def test_the_older_score_of_a_class_is_shown_where_the_scale_has_no_detection_too():
    explainer = Explainer(confident_detector(), layer=4, class_names="bee", use_old_target_method=True, **SCALES)
    explanation = explainer(PICTURE)
    assert {entry.detection.stride for entry in explanation.detections} == {8}
    expected = library_map(4, lambda raw: raw[ROWS[4], 6].sum())
    np.testing.assert_allclose(explanation.per_scale[4], expected, atol=1e-4)
    assert explanation.what_is_at(4) == "all predictions"


def test_the_older_score_in_the_table_stays_that_of_all_predictions():
    settings = SCALES | {"use_old_target_method": True, "layer": 4}
    with_scales, without = (
        Explainer(confident_detector(), **settings | {"scales": on})(PICTURE) for on in (True, False)
    )
    assert with_scales.pandas().equals(without.pandas())
    assert (with_scales.heatmap == without.heatmap).all()


def test_the_members_of_an_ensemble_share_their_scales():
    settings = SCALES | {"use_old_target_method": True}
    members = [confident_detector(seed) for seed in (0, 2)]
    ensemble = Explainer(members, **settings)(PICTURE)
    alone = [Explainer(member, **settings)(PICTURE) for member in members]
    assert list(ensemble.per_scale) == [4, 8]
    for stride, shown in ensemble.per_scale.items():
        expected = np.maximum(*(explanation.per_scale[stride] for explanation in alone))
        np.testing.assert_allclose(shown, expected, atol=1e-4)


def test_a_network_with_four_scales_has_four_maps():
    torch.manual_seed(0)
    model = confident(DetectionModel(str(tree() / "models/hub/yolov5n6.yaml"), nc=3).eval())
    explanation = Explainer(model, imgsz=128, conf_thres=0.01, max_det=20, scales=True)(PICTURE)
    assert list(explanation.per_scale) == [8, 16, 32, 64]
    strides = {entry.detection.stride for entry in explanation.detections}
    assert [scale.any() for scale in explanation.per_scale.values()] == [
        stride in strides for stride in explanation.per_scale
    ]


def test_scales_have_a_sign_where_it_is_asked_for():
    explanation = Explainer(confident_detector(), layer=2, signed=True, **SCALES)(PICTURE)
    assert explanation.per_scale[4].min() == -1


def test_given_boxes_and_misses_count_at_their_scale():
    explainer = Explainer(confident_detector(), **SCALES)
    boxes = [(10, 5, 60, 50, "bee"), (70, 40, 96, 64, "cat")]
    explanation = explainer(PICTURE, boxes=boxes)
    assert [entry.detection.stride for entry in explanation.detections] == [8, 4]
    assert [explanation.what_is_at(stride) for stride in (4, 8)] == ["1 box", "1 box"]
    assert explainer(PICTURE, boxes=boxes[:1]).what_is_at(4) == "no box"


# Of groups


def test_everything_is_the_strongest_of_its_layers_and_classes_are_kept_apart():
    cams = {
        EVERYTHING: [(np.float32([[0, 0], [0, 4]]),), (np.float32([[2, 0], [0, 1]]),)],
        Group(stride=8): [(np.float32([[0, 5], [0, 0]]),)],
    }
    maps = combined(cams, WHOLE, Settings())
    np.testing.assert_allclose(maps.heatmap, [[1, 0], [0, 1]])
    assert maps.signed is None
    np.testing.assert_allclose(maps.of_group[Group(stride=8)], [[0, 1], [0, 0]])


def test_classes_each_by_itself_make_the_map_of_everything():
    cams = {
        Group(class_index=0): [(np.float32([[0, 0], [0, 4]]),)],
        Group(class_index=1): [(np.float32([[9, -9], [0, 0]]),)],
    }
    maps = combined(cams, WHOLE, Settings(signed=True))
    np.testing.assert_allclose(maps.heatmap, [[1, 0], [0, 1]])
    np.testing.assert_allclose(maps.signed, [[1, -1], [0, 1]])
    np.testing.assert_allclose(maps.of_group[Group(class_index=1)], [[1, -1], [0, 0]])


# Maps with a sign


def signed_map_of_the_library(method, layer, entries):
    """Return the library's map of the scores of some detections as its class leaves it, by its largest magnitude."""
    model = RawPredictions(confident_detector())
    kept = []

    class Unrectified(getattr(pytorch_grad_cam, method)):
        def get_cam_image(self, *arguments):
            kept.append(super().get_cam_image(*arguments))
            return kept[-1]

    cam = Unrectified(model, [model.detector.model[layer]])
    cam(IMAGE, targets=[lambda raw: score_of(entries, raw)])
    return kept[0][0] / np.abs(kept[0]).max()


# At layer 2 of the tiny detector much speaks against its detections; by Grad-CAM nothing else does.
@pytest.mark.parametrize("method", ["GradCAM", "XGradCAM", "HiResCAM"])
@pytest.mark.parametrize("layer", [2, 4])
def test_a_signed_map_is_that_of_the_library_before_it_is_rectified(method, layer):
    ways = SETTINGS | {"signed": True, "max_det": 5, "together": "sum"}
    explainer = Explainer(confident_detector(), method=method, layer=layer, **ways)
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


@pytest.mark.parametrize("method", WITH_A_SIGN)
def test_a_method_with_a_sign_shows_it(method):
    settings = SETTINGS | {"method": method, "signed": True, "max_det": 5}
    layers = (2, 3) if METHODS[method].chooses_layers else ("auto",) * 2
    maps = [Explainer(confident_detector(), layer=layer, **settings)(PICTURE).signed for layer in layers]
    assert [np.abs(signed).max() for signed in maps] == pytest.approx([1, 1])
    assert min(signed.min() for signed in maps) < 0


# Inside boxes


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


# In a notebook.


@pytest.fixture(scope="module")
def explanation(model):
    return Explainer(model, backward_per_class=True, max_det=4, **SETTINGS)(picture())


# Together: each by itself, or their sum


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "EigenCAM"])
def test_together_each_detection_is_scaled_to_its_own_peak_and_the_hottest_shows(method):
    explanation = Explainer(confident_detector(), method=method, layer=4, **SETTINGS)(PICTURE)
    assert len(explanation.detections) > 3
    expected = np.max([entry.heatmap for entry in explanation.detections], axis=0)
    np.testing.assert_allclose(explanation.heatmap, expected, atol=1e-5)


def test_together_shows_each_detection_where_the_sum_lets_one_shadow_the_others():
    each, summed = (
        Explainer(confident_detector(), method="LayerCAM", layer=4, together=way, **SETTINGS)(PICTURE)
        for way in ("each", "sum")
    )
    assert each.pandas().equals(summed.pandas())
    dimmest = [
        min(answer.heatmap.flat[entry.heatmap.argmax()] for entry in answer.detections) for answer in (each, summed)
    ]
    assert dimmest[0] == pytest.approx(1, abs=1e-3)
    assert dimmest[1] < 0.9


def test_the_map_of_a_class_shows_each_of_its_detections():
    explanation = Explainer(confident_detector(), layer=4, backward_per_class=True, **SETTINGS)(PICTURE)
    for name, heatmap in explanation.per_class.items():
        own = [entry.heatmap for entry in explanation.detections if entry.detection.name == name]
        np.testing.assert_allclose(heatmap, np.max(own, axis=0), atol=1e-5)


def test_the_map_of_a_scale_shows_each_of_its_detections():
    explanation = Explainer(confident_detector(), layer=4, iou_thres=0.05, **SCALES)(PICTURE)
    for stride, heatmap in explanation.per_scale.items():
        own = [entry.heatmap for entry in of_stride(explanation, stride)]
        np.testing.assert_allclose(heatmap, np.max(own, axis=0), atol=1e-5)


def test_signed_maps_together_say_the_most_for_and_the_most_against():
    explanation = Explainer(confident_detector(), method="HiResCAM", layer=3, signed=True, **SETTINGS)(PICTURE)
    own = [entry.signed for entry in explanation.detections]
    expected = np.maximum(np.max(own, axis=0), 0) + np.minimum(np.min(own, axis=0), 0)
    np.testing.assert_allclose(explanation.signed, expected / np.abs(expected).max(), atol=1e-5)


def test_another_way_to_show_several_together_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="each"):
        Explainer(confident_detector(), together="mean")
