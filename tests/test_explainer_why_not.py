"""Boxes that the user gives: what their score and map are, and what is said about boxes that are none."""

import csv
from itertools import product

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import RawPredictions, plain_iou, plain_match
from scenes import confident_detector, picture, save_checkpoint

from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.explainer import main, parse_opt, run
from explainer.files.labels import Box
from explainer.maps.heatmaps import Letterbox
from explainer.methods import METHODS
from explainer.subjects import to_input
from utils.general import scale_boxes, xywh2xyxy

# The network's input is the picture itself: no letterbox lies between a box in the image and one in the input.
PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
# Around the first box nothing is taken for an ant or a cat, around the second one nothing for an ant.
ASKED = [(*box, index) for box, index in product([(10, 5, 60, 50), (70, 40, 96, 64)], range(3))]


@pytest.fixture(scope="module")
def raw():
    return confident_detector()(IMAGE)[0][0].detach()


@pytest.fixture(scope="module")
def answers():
    return Explainer(confident_detector(), layer=4, **SETTINGS)(PICTURE, boxes=ASKED)


def test_the_boxes_are_cases_with_and_without_a_prediction_of_their_class(raw):
    agree = [(raw[plain_match(box, index, raw)[0], 5:].argmax(1) == index).any() for *box, index in ASKED]
    assert agree == [False, True, False, False, True, True]


def test_the_given_boxes_are_explained_in_their_order_and_nothing_else(answers):
    found = [entry.detection for entry in answers.detections]
    assert [(*entry.xyxy.tolist(), entry.class_index) for entry in found] == ASKED
    assert [entry.name for entry in found] == ["ant", "bee", "cat"] * 2
    assert {entry.outcome for entry in found} == {"given"}


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_the_score_and_confidence_are_those_of_the_ten_nearest_predictions(answers, raw, number):
    *box, index = ASKED[number]
    rows, weights = plain_match(box, index, raw)
    probability, objectness = (weights * raw[rows, 5 + index]).sum(), (weights * raw[rows, 4]).sum()
    entry = answers.detections[number]
    assert entry.score == pytest.approx(probability.log().item(), rel=1e-4)
    assert entry.detection.confidence == pytest.approx((probability * objectness).item(), rel=1e-4)


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_the_stride_is_that_of_the_prediction_with_the_most_weight(answers, raw, number):
    *box, index = ASKED[number]
    found = answers.detections[number].detection
    assert found.row == plain_match(box, index, raw)[0][0]
    # The first 768 predictions are the two anchors of stride 4, in 16 rows of 24 cells.
    assert (found.stride, found.level) == ((4, 0) if found.row < 768 else (8, 1))


def test_a_box_that_the_predictions_around_it_take_for_something_else_says_so(raw):
    box = xywh2xyxy(raw[892:893, :4])[0].clamp(0).tolist()
    around = {int(raw[plain_match(box, index, raw)[0][0], 5:].argmax()) for index in range(3)}
    assert around == {1}
    entries = Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=[(*box, "ant"), (*box, "bee")]).detections
    assert [entry.detection.remark for entry in entries] == [
        "none of the raw predictions closest to it says ant; the closest one says bee",
        "",
    ]
    assert entries[0].note.endswith(entries[0].detection.remark)


def test_a_box_that_no_prediction_covers_by_half_says_by_how_much_one_does(raw):
    box = 40, 30, 42, 32
    (entry,) = Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=[(*box, "bee")]).detections
    overlap = max(plain_iou(box, other) for other in xywh2xyxy(raw[:, :4]).tolist())
    assert entry.detection.remark == f"no raw prediction overlaps it by half, the closest one by {overlap:.2f}"


def test_auto_reads_a_box_where_its_stride_is():
    entries = Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=ASKED).detections
    assert {entry.detection.stride for entry in entries} == {4, 8}
    assert all(entry.layers == ({4: "model.7", 8: "model.4"}[entry.detection.stride],) for entry in entries)


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_the_map_of_a_box_that_was_not_detected_equals_that_of_the_library(answers, raw, number):
    *box, index = ASKED[number]
    rows, weights = plain_match(box, index, raw)
    model = RawPredictions(confident_detector())
    cam = pytorch_grad_cam.GradCAM(model, [model.detector.model[4]])
    # As a picture of a batch of one the target gets (N, 5 + classes).
    expected = cam(IMAGE, targets=[lambda every: (weights * every[rows, 5 + index]).sum().log()])[0]
    np.testing.assert_allclose(answers.detections[number].heatmap, expected, atol=1e-4)


def test_a_detection_given_back_as_a_box_is_explained_alike():
    explainer = Explainer(confident_detector(), **SETTINGS)
    found = next(
        entry for entry in explainer(PICTURE).detections if (entry.detection.xyxy > 2).all() and entry.cams[0].any()
    )
    box = (*found.detection.xyxy.tolist(), found.detection.name)
    (again,) = explainer(PICTURE, boxes=[box]).detections
    assert (again.detection.stride, again.layers) == (found.detection.stride, found.layers)
    assert again.score == pytest.approx(found.score, abs=1e-4)
    np.testing.assert_allclose(again.heatmap, found.heatmap, atol=1e-3)


def test_what_is_explained_of_a_box_can_be_chosen(raw):
    explainer = Explainer(confident_detector(), layer=4, backprop_array=["confidence", "width"], **SETTINGS)
    (entry,) = explainer(PICTURE, boxes=[ASKED[1]]).detections
    rows, weights = plain_match(ASKED[1][:4], 1, raw)
    expected = ((weights * raw[rows, 4]).sum() * (weights * raw[rows, 2]).sum()).log()
    assert entry.score == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("image_size", [(720, 1280), (99, 41), (33, 500)])
def test_boxes_move_into_the_input_as_those_of_detections_move_out_of_it(image_size):
    height, width = image_size
    xyxy = np.float32([0.2 * width, 0.3 * height, 0.9 * width, 0.8 * height])
    place = Letterbox(image_size, (384, 640), (384, 640), 0, 0)
    back = scale_boxes(place.input_size, to_input([Box(xyxy, 0)], place), image_size)
    np.testing.assert_allclose(back[0].numpy(), xyxy, atol=1e-2)


def test_a_class_is_given_by_name_or_index_and_one_box_is_a_list_of_one():
    explainer = Explainer(confident_detector(), **SETTINGS)
    by_name = explainer(PICTURE, boxes=[(10, 5, 60, 50, "bee")]).detections[0]
    for written in ([(10, 5, 60, 50, 1)], [("10", "5", "60", "50", "1")], (10, 5, 60, 50, "bee")):
        assert explainer(PICTURE, boxes=written).detections[0].score == by_name.score


def test_a_class_that_is_called_like_a_number_goes_by_its_name():
    model = confident_detector()
    model.names = {0: "1", 1: "0", 2: "two"}
    (entry,) = Explainer(model, **SETTINGS)(PICTURE, boxes=[(10, 5, 60, 50, "1")]).detections
    assert entry.detection.class_index == 0


def test_a_box_may_end_at_the_edge_of_the_image_give_or_take_a_pixel():
    (entry,) = Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=[(-0.5, 0, 96.5, 64, "bee")]).detections
    assert entry.detection.xyxy.tolist() == [0, 0, 96, 64]


def test_no_box_at_all_is_said_to_be_none():
    explanation = Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=[])
    assert explanation.notes == ("no box was given",)
    assert not explanation.heatmap.any()


# Methods that only look at predictions take many passes.
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].reads != "predictions"])
def test_every_method_explains_a_given_box(method):
    settings = {"method": method, "layer": "auto"} | SETTINGS
    (entry,) = Explainer(confident_detector(), **settings)(PICTURE, boxes=ASKED[1]).detections
    assert entry.cams[0].any()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3, 4), "--boxes takes x1 y1 x2 y2 and a class, such as 10 20 110 220 dog; given: 1 2 3 4"),
        (
            ["10 20 30 40 bee"],
            "--boxes takes x1 y1 x2 y2 and a class, such as 10 20 110 220 dog; given: 10 20 30 40 bee",
        ),
        ([("a", 2, 3, 4, "bee")], "--boxes a 2 3 4 bee: the corners are no numbers of pixels"),
        ([(50, 5, 20, 30, "bee")], "--boxes 50 5 20 30 bee encloses nothing: x2 must lie right of x1"),
        ([(10, 5, 10, 30, "bee")], "--boxes 10 5 10 30 bee encloses nothing"),
        ([(10, float("nan"), 20, 30, "bee")], "--boxes 10 nan 20 30 bee encloses nothing"),
        ([(10, 5, 20, 90, "bee")], "--boxes 10 5 20 90 bee reaches out of the image, which has 96x64 pixels"),
        ([(-9, 5, 20, 30, "bee")], "--boxes -9 5 20 30 bee reaches out of the image"),
        ([(10, 5, 20, 30, "dog")], "unknown class of --boxes 'dog'; known: 0 ant, 1 bee, 2 cat"),
        ([(10, 5, 20, 30, 3)], "unknown class of --boxes '3'; known: 0 ant"),
        ([(10, 5, 20, 30, -1)], "unknown class of --boxes '-1'; known: 0 ant"),
    ],
    ids=str,
)
def test_a_box_that_is_none_is_answered_with_what_is_allowed(box, message):
    with pytest.raises(UsageError) as caught:
        Explainer(confident_detector(), **SETTINGS)(PICTURE, boxes=box)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": ASKED, "use_old_target_method": True}, "leave it or --boxes out"),
        ({"labels": "labels", "use_old_target_method": True}, "leave it or --labels out"),
        ({"boxes": ASKED, "labels": "labels"}, "leave one of them out"),
        ({"boxes": ASKED, "class_names": "bee"}, "--boxes says the class of each box itself; leave --class-names out"),
        ({"boxes": ASKED, "classes": 1}, "--boxes says the class of each box itself; leave --classes out"),
        ({"boxes": [(50, 5, 20, 30, "bee")]}, "encloses nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_options_that_contradict_given_boxes_are_refused_before_a_model_is_loaded(given, message):
    with pytest.raises(UsageError, match=message):
        Options(**given)


def test_boxes_and_settings_that_contradict_them_are_refused_in_a_notebook_too():
    with pytest.raises(UsageError, match="leave it or --boxes out"):
        Explainer(confident_detector(), use_old_target_method=True, **SETTINGS)(PICTURE, boxes=ASKED)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


@pytest.fixture
def command(weights, tmp_path):
    """Run the command on the picture and return its exit code and the rows of its table."""
    import cv2

    cv2.imwrite(str(tmp_path / "one.png"), PICTURE[..., ::-1])

    def call(*arguments):
        common = ["--weights", weights, "--source", str(tmp_path / "one.png"), "--imgsz", "96"]
        code = main(parse_opt([*common, "--project", str(tmp_path / "out"), *arguments]))
        table = tmp_path / "out/exp/explanations.csv"
        return code, list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else None

    return call


def test_the_command_takes_boxes_and_writes_a_row_for_each(command, capsys):
    code, rows = command("--boxes", "10", "5", "60", "50", "bee", "--boxes", "70", "40", "96", "64", "0")
    assert code == 0
    assert [(row["name"], row["outcome"], row["x1"]) for row in rows] == [
        ("bee", "given", "10.00"),
        ("ant", "given", "70.00"),
    ]
    assert "64x96 2 given boxes, " in capsys.readouterr().err


def test_a_box_of_a_class_that_the_model_lacks_leaves_nothing_behind(command, capsys):
    code, rows = command("--boxes", "10", "5", "60", "50", "dragon")
    assert (code, rows) == (2, None)
    assert "unknown class of --boxes 'dragon'; known: 0 ant, 1 bee, 2 cat" in capsys.readouterr().err


def test_run_takes_the_same_boxes_and_draws_them_dashed(weights, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 90, np.uint8))
    options = {"weights": weights, "source": str(tmp_path / "grey.png"), "imgsz": 96, "hide_labels": True, "crop": True}
    drawn = run(boxes=[(10, 5, 60, 50, "bee")], line_thickness=1, project=str(tmp_path / "out"), **options)
    along_the_top = {tuple(pixel) for pixel in drawn[5, 11:60].tolist()}
    assert (255, 255, 255) in along_the_top
    assert len(along_the_top) > 1


def test_a_given_box_holds_for_every_frame_of_a_video(command, tmp_path):
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for seed in range(3):
        writer.write(picture(seed=seed))
    writer.release()
    code, rows = command("--source", str(tmp_path / "clip.mp4"), "--boxes", "10", "5", "60", "50", "bee")
    assert code == 0
    assert [(row["frame"], row["x2"]) for row in rows] == [("1", "60.00"), ("2", "60.00"), ("3", "60.00")]
