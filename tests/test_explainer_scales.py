"""What each input of the head sees: one map for each scale, alone or with the sum of all class probabilities."""

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, score_of
from scenes import confident, confident_detector, picture, save_checkpoint

from explainer.explain import Explainer
from explainer.explainer import main, parse_opt
from models.yolo import DetectionModel

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "scales": True}
# The first 768 predictions of the tiny detector are those of stride 4.
ROWS = {4: slice(0, 768), 8: slice(768, None)}


def library_map(layer, target):
    model = RawPredictions(confident_detector())
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    return pytorch_grad_cam.GradCAM(model, [model.detector.model[layer]])(image, targets=[target])[0]


def of_stride(explanation, stride):
    return [entry for entry in explanation.detections if entry.detection.stride == stride]


@pytest.mark.parametrize("stride", [4, 8])
def test_a_scale_shows_what_its_own_detections_depend_on(stride):
    explanation = Explainer(confident_detector(), layer=4, iou_thres=0.05, **SETTINGS)(PICTURE)
    assert list(explanation.per_scale) == [4, 8]
    expected = library_map(4, lambda raw: score_of(of_stride(explanation, stride), raw))
    np.testing.assert_allclose(explanation.per_scale[stride], expected, atol=1e-4)


def test_auto_reads_each_scale_at_its_own_input_and_together_they_are_the_whole_map():
    explanation = Explainer(confident_detector(), **SETTINGS)(PICTURE)
    assert {entry.layers for entry in of_stride(explanation, 4)} == {("model.7",)}
    np.testing.assert_allclose(np.maximum(*explanation.per_scale.values()), explanation.heatmap, atol=1e-6)


def test_the_rest_of_the_answer_stays_what_it_is_without_the_scales():
    explanation = Explainer(confident_detector(), **SETTINGS)(PICTURE)
    without = Explainer(confident_detector(), **SETTINGS | {"scales": False})(PICTURE)
    assert (explanation.heatmap == without.heatmap).all()
    assert explanation.pandas().equals(without.pandas())
    assert without.per_scale == {}


def test_a_scale_without_a_detection_is_blank_and_says_so():
    explanation = Explainer(confident_detector(), classes=1, **SETTINGS)(PICTURE)
    assert {entry.detection.stride for entry in explanation.detections} == {8}
    assert not explanation.per_scale[4].any()
    assert explanation.what_is_at(4) == "no detection"
    assert explanation.what_is_at(8) == f"{len(explanation.detections)} detections"


def test_without_any_detection_every_scale_is_blank():
    explanation = Explainer(confident_detector(), **SETTINGS | {"conf_thres": 0.99})(PICTURE)
    assert [scale.any() for scale in explanation.per_scale.values()] == [False, False]


@pytest.mark.parametrize("stride", [4, 8])
def test_the_older_score_has_a_map_of_each_scale_s_own_sum(stride):
    explanation = Explainer(confident_detector(), layer=4, use_old_target_method=True, **SETTINGS)(PICTURE)
    expected = library_map(4, lambda raw: raw[ROWS[stride], 5:].sum())
    np.testing.assert_allclose(explanation.per_scale[stride], expected, atol=1e-4)


def test_the_older_score_of_a_class_is_shown_where_the_scale_has_no_detection_too():
    explainer = Explainer(confident_detector(), layer=4, class_names="bee", use_old_target_method=True, **SETTINGS)
    explanation = explainer(PICTURE)
    assert {entry.detection.stride for entry in explanation.detections} == {8}
    expected = library_map(4, lambda raw: raw[ROWS[4], 6].sum())
    np.testing.assert_allclose(explanation.per_scale[4], expected, atol=1e-4)
    assert explanation.what_is_at(4) == "all predictions"


def test_the_older_score_in_the_table_stays_that_of_all_predictions():
    settings = SETTINGS | {"use_old_target_method": True, "layer": 4}
    with_scales, without = (
        Explainer(confident_detector(), **settings | {"scales": on})(PICTURE) for on in (True, False)
    )
    assert with_scales.pandas().equals(without.pandas())
    assert (with_scales.heatmap == without.heatmap).all()


def test_the_members_of_an_ensemble_share_their_scales():
    settings = SETTINGS | {"use_old_target_method": True}
    members = [confident_detector(seed) for seed in (0, 2)]
    ensemble = Explainer(members, **settings)(PICTURE)
    alone = [Explainer(member, **settings)(PICTURE) for member in members]
    assert list(ensemble.per_scale) == [4, 8]
    for stride, shown in ensemble.per_scale.items():
        expected = np.maximum(*(explanation.per_scale[stride] for explanation in alone))
        np.testing.assert_allclose(shown, expected, atol=1e-4)


def test_a_network_with_four_scales_has_four_maps():
    torch.manual_seed(0)
    model = confident(DetectionModel("yolov5n6.yaml", nc=3).eval())
    explanation = Explainer(model, imgsz=128, conf_thres=0.01, max_det=20, scales=True)(PICTURE)
    assert list(explanation.per_scale) == [8, 16, 32, 64]
    strides = {entry.detection.stride for entry in explanation.detections}
    assert [scale.any() for scale in explanation.per_scale.values()] == [
        stride in strides for stride in explanation.per_scale
    ]


def test_scales_have_a_sign_where_it_is_asked_for():
    explanation = Explainer(confident_detector(), layer=2, signed=True, **SETTINGS)(PICTURE)
    assert explanation.per_scale[4].min() == -1


def test_given_boxes_and_misses_count_at_their_scale():
    explainer = Explainer(confident_detector(), **SETTINGS)
    boxes = [(10, 5, 60, 50, "bee"), (70, 40, 96, 64, "cat")]
    explanation = explainer(PICTURE, boxes=boxes)
    assert [entry.detection.stride for entry in explanation.detections] == [8, 4]
    assert [explanation.what_is_at(stride) for stride in (4, 8)] == ["1 box", "1 box"]
    assert explainer(PICTURE, boxes=boxes[:1]).what_is_at(4) == "no box"


def test_the_command_writes_a_sheet_with_the_photograph_and_a_tile_for_each_scale(tmp_path):
    weights = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    cv2.imwrite(str(tmp_path / "one.png"), PICTURE[..., ::-1])
    common = ["--weights", weights, "--source", str(tmp_path / "one.png"), "--imgsz", "96", "--conf-thres", "0.05"]
    for arguments in (["--scales"], []):
        assert main(parse_opt([*common, "--project", str(tmp_path / "out"), *arguments])) == 0
    sheet = cv2.imread(str(tmp_path / "out/exp/one/scales.jpg"))
    assert sheet.shape[1] > 2 * sheet.shape[0]
    assert not (tmp_path / "out/exp2/one").exists()
