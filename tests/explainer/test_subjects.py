"""What is explained: detections, boxes that the user gives, and labels; what their score is and what is said about them."""

from itertools import product

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_detector import PlainDetector, PlainNet
from plain_scores import RawPredictions, corners, plain_iou, plain_match
from scenes import confident_detector, picture

from explainer.detectors.predictions import Detection, Predictions, confidence_text
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.files.labels import Box
from explainer.methods.catalogue import METHODS
from explainer.pictures.drawing import Style, caption
from explainer.subjects import Subjects, best_confidence, judge, overlaps, remark_on

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
    box = torch.tensor(corners(raw[892:893])[0]).clamp(0).tolist()
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
    overlap = max(plain_iou(box, other) for other in corners(raw))
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
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.reads_layers])
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


def test_boxes_and_settings_that_contradict_them_are_refused_in_a_notebook_too():
    with pytest.raises(UsageError, match="leave it or --boxes out"):
        Explainer(confident_detector(), use_old_target_method=True, **SETTINGS)(PICTURE, boxes=ASKED)


# Labels


def test_boxes_of_different_classes_do_not_overlap():
    boxes = [detection(0.9, 0, 0, 10, 10), detection(0.9, 0, 0, 10, 10, 1), detection(0.9, 3, 3, 3, 3)]
    labels = [label(0, 0, 10, 10), label(5, 0, 15, 10), label(3, 3, 3, 3)]
    np.testing.assert_allclose(overlaps(boxes, labels), [[1, 1 / 3, 0], [0, 0, 0], [0, 0, 0]])
    assert overlaps([], labels).shape == (0, 3)


@pytest.mark.parametrize(
    ("said", "overlap", "remark"),
    [
        ("bee", 0.5, ""),
        ("bee", 0.49, "no raw prediction overlaps it by half, the closest one by 0.49"),
        ("ant", 0.9, "none of the raw predictions closest to it says bee; the closest one says ant"),
    ],
)
def test_a_remark_says_why_a_box_is_hardly_found(said, overlap, remark):
    assert remark_on("bee", said, overlap) == remark


def test_subjects_are_put_one_behind_the_other():
    one, other = detection(0.9, 0, 0, 10, 10), detection(0.8, 1, 1, 5, 5)
    both = Subjects([one], torch.zeros(1, 4)) + Subjects([other], torch.ones(1, 4))
    assert both.detections == [one, other]
    assert both.boxes_xyxy.tolist() == [[0] * 4, [1] * 4]


def detection(confidence, x1, y1, x2, y2, class_index=0):
    return Detection(np.float32([x1, y1, x2, y2]), confidence, class_index, "ant", 8, 0, 0)


def label(x1, y1, x2, y2, class_index=0):
    return Box(np.float32([x1, y1, x2, y2]), class_index)


@pytest.mark.parametrize(
    ("detections", "labels", "outcomes", "missed"),
    [
        ([detection(0.9, 0, 0, 10, 10)], [label(0, 0, 10, 10)], ["hit"], []),
        # Overlap 50 of 100 and 49 of 100.
        ([detection(0.9, 0, 0, 10, 5)], [label(0, 0, 10, 10)], ["hit"], []),
        ([detection(0.9, 0, 0, 10, 4.9)], [label(0, 0, 10, 10)], ["false alarm"], [0]),
        ([detection(0.9, 0, 0, 10, 10)], [label(0, 0, 10, 10, 1)], ["false alarm"], [0]),
        # Two detections of one object: the surer one hits, wherever it stands.
        (
            [detection(0.3, 0, 0, 10, 10), detection(0.9, 0, 0, 10, 9)],
            [label(0, 0, 10, 10)],
            ["false alarm", "hit"],
            [],
        ),
        # The surer one takes the label that it overlaps most, the other one what is left.
        (
            [detection(0.9, 0, 0, 10, 10), detection(0.8, 0, 0, 10, 10)],
            [label(0, 0, 10, 6), label(0, 0, 10, 10)],
            ["hit", "hit"],
            [],
        ),
        ([], [label(0, 0, 10, 10)], [], [0]),
        ([detection(0.9, 0, 0, 10, 10)], [], ["false alarm"], []),
        ([], [], [], []),
    ],
)
def test_a_detection_hits_the_free_label_of_its_class_that_it_overlaps_most(detections, labels, outcomes, missed):
    found, left = judge(detections, labels)
    assert found == outcomes
    assert [index for index, entry in enumerate(labels) if any(entry is other for other in left)] == missed


@pytest.fixture(scope="module")
def sure():
    """Return a detection that lies well inside the picture and overlaps none of its class by half."""
    explainer = Explainer(confident_detector(), **SETTINGS, iou_thres=0.3)
    return next(e.detection for e in explainer(PICTURE).detections if (e.detection.xyxy > 2).all())


def test_detections_are_judged_and_misses_explained_at_their_labels_like_given_boxes(sure):
    explainer = Explainer(confident_detector(), **SETTINGS, iou_thres=0.3)
    labels = [(*sure.xyxy.tolist(), sure.name), (10, 5, 60, 50, "bee")]
    plain, judged = explainer(PICTURE), explainer(PICTURE, labels=labels)
    (given,) = explainer(PICTURE, boxes=labels[1:]).detections
    outcomes = [entry.detection.outcome for entry in judged.detections]
    assert outcomes.count("hit") == 1
    assert outcomes[-1] == "miss"
    assert set(outcomes[:-1]) == {"hit", "false alarm"}
    assert [entry.score for entry in judged.detections[:-1]] == [entry.score for entry in plain.detections]
    assert {entry.detection.outcome for entry in plain.detections} == {""}
    miss = judged.detections[-1]
    assert (miss.score, miss.detection.confidence) == (given.score, given.detection.confidence)
    assert (miss.heatmap == given.heatmap).all()


def test_without_labels_everything_is_a_false_alarm():
    explanation = Explainer(confident_detector(), **SETTINGS)(PICTURE, labels=[])
    assert {entry.detection.outcome for entry in explanation.detections} == {"false alarm"}


def test_labels_of_classes_that_are_not_explained_do_not_count():
    explainer = Explainer(confident_detector(), class_names="ant", conf_thres=0.99, imgsz=96)
    labels = [(10, 5, 60, 50, "bee"), (10, 5, 60, 50, "ant")]
    assert [entry.detection.name for entry in explainer(PICTURE, labels=labels).detections] == ["ant"]


def test_a_miss_says_so_on_its_box_and_in_its_title():
    explainer = Explainer(confident_detector(), conf_thres=0.99, imgsz=96)
    (miss,) = explainer(PICTURE, labels=[(10, 5, 60, 50, "bee")]).detections
    assert caption(miss.detection) == "miss: bee"
    assert miss.title.startswith("miss: bee 0.")


# Near misses


NOTHING = {"conf_thres": 0.99, "imgsz": 96}
CLASSES = ("ant", "bee", "cat")


def near_miss_of(model, image=PICTURE, **settings):
    """Return what is explained in an image in which nothing is detected."""
    return [entry.detection for entry in Explainer(model, **NOTHING | settings)(image).detections]


@pytest.mark.parametrize("chosen", [CLASSES, ("ant",), ("bee",), ("ant", "bee")], ids=" ".join)
@pytest.mark.parametrize("option", ["class_names", "classes"])
def test_the_near_miss_is_the_most_confident_prediction_that_stands_for_a_chosen_class(raw, chosen, option):
    indices = [CLASSES.index(name) for name in chosen]
    confidences, classes = (raw[:, 5:] * raw[:, 4:5]).max(dim=1)
    expected = torch.where(torch.isin(classes, torch.tensor(indices)), confidences, 0).argmax().item()
    given = {option: chosen if option == "class_names" else indices}
    (near,) = near_miss_of(confident_detector(), **given)
    assert (near.row, near.class_index) == (expected, classes[expected])
    assert near.confidence == pytest.approx(confidences[expected].item())
    assert (near.outcome, near.above, near.was_found) == ("below threshold", 0.99, False)
    assert near.remark == f"best below 0.99: {near.name} {near.confidence:.2f}"


def test_a_near_miss_is_explained_as_the_detection_that_a_lower_threshold_makes_of_it():
    near = Explainer(confident_detector(), **NOTHING)(PICTURE)
    found = Explainer(confident_detector(), **SETTINGS | {"max_det": 1})(PICTURE)
    (one,), (other,) = near.detections, found.detections
    assert one.score == other.score
    assert one.detection.xyxy.tolist() == other.detection.xyxy.tolist()
    assert (near.heatmap == found.heatmap).all()


def test_it_is_drawn_dashed_and_says_what_it_is_below():
    (near,) = near_miss_of(confident_detector())
    assert caption(near) == "below 0.99: cat"
    overlay = Explainer(confident_detector(), **NOTHING)(PICTURE).overlay(Style(hide_labels=True, line_thickness=1))
    left, top, right, _ = np.rint(near.xyxy).astype(int)
    assert len({tuple(pixel) for pixel in overlay[max(top - 1, 0), max(left, 0) : right].tolist()}) > 1


def test_a_detector_without_objectness_has_a_near_miss_too():
    explainer = Explainer(PlainDetector(PlainNet().eval()), conf_thres=0.9999, imgsz=96)
    (entry,) = explainer(PICTURE).detections
    probabilities = explainer.detector.predict(IMAGE).probabilities[0]
    assert entry.detection.row == probabilities.amax(dim=1).argmax()
    assert entry.detection.outcome == "below threshold"


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM", "DRISE"])
def test_it_takes_no_more_forward_passes_than_a_detection(method):
    counts = []
    for how in (NOTHING, SETTINGS | {"max_det": 1}):
        model, passes = confident_detector(), []
        model.model[0].register_forward_hook(lambda *_, passes=passes: passes.append(1))
        more = {"masks": 20} if method == "DRISE" else {}
        assert len(Explainer(model, method=method, **how, **more)(PICTURE).detections) == 1
        counts.append(len(passes))
    assert counts[0] == counts[1]


def test_where_something_is_explained_there_is_no_near_miss():
    explainer = Explainer(confident_detector(), **NOTHING)
    boxed = explainer(PICTURE, boxes=[(10, 5, 60, 50, "bee")])
    missed = explainer(PICTURE, labels=[(10, 5, 60, 50, "bee")])
    found = Explainer(confident_detector(), **SETTINGS)(PICTURE)
    outcomes = [{entry.detection.outcome for entry in answer.detections} for answer in (boxed, missed, found)]
    assert outcomes == [{"given"}, {"miss"}, {""}]
    assert explainer(PICTURE, boxes=[]).detections == ()


def test_an_image_without_labels_has_a_near_miss_that_is_no_false_alarm():
    explanation = Explainer(confident_detector(), **NOTHING)(PICTURE, labels=[])
    assert [entry.detection.outcome for entry in explanation.detections] == ["below threshold"]


@pytest.mark.parametrize("given", [{"no_near_miss": True}, {"use_old_target_method": True}], ids=" ".join)
def test_there_is_none_where_it_is_not_wanted_or_no_box_is_explained(given):
    assert near_miss_of(confident_detector(), **given) == []


def test_what_is_as_weak_as_noise_is_no_near_miss():
    model = confident_detector()
    head = model.model[-1]
    for convolution in head.m:
        with torch.no_grad():
            convolution.bias.view(head.na, head.no)[:, 4] -= 6
    assert near_miss_of(model) == []
    assert Explainer(model, **NOTHING)(PICTURE).notes == ("no detection above confidence 0.99",)


def test_what_another_limit_than_the_threshold_left_out_is_no_near_miss():
    # The most confident detection is a cat, and only one is allowed.
    assert near_miss_of(confident_detector(), class_names="ant", conf_thres=0.1, max_det=1) == []


@pytest.mark.parametrize(
    ("confidence", "threshold", "text"),
    [(0.194, 0.25, "0.19"), (0.2496, 0.25, "0.2496"), (0.24996, 0.25, "0.24996"), (0.25, 0.25, "0.25")],
)
def test_a_near_miss_does_not_look_like_its_threshold(confidence, threshold, text):
    near = Detection(np.zeros(4), confidence, 1, "bee", 8, 0, 5, "below threshold", above=threshold)
    assert confidence_text(near) == text


def test_the_best_of_no_predictions_or_of_broken_ones_is_nothing():
    def predictions(*confidences):
        return Predictions(torch.zeros(len(confidences), 4), None, torch.tensor(confidences).reshape(-1, 2))

    assert best_confidence(predictions(), {0, 1}) == 0
    assert best_confidence(predictions([float("nan")] * 2, [0.2, 0.3]), {0, 1}) == pytest.approx(0.3)
    # Each stands for its best class alone.
    assert best_confidence(predictions([0.2, 0.3], [0.1, 0.05]), {0}) == pytest.approx(0.1)


def test_a_picture_of_nothing_has_no_near_miss(assets):
    from explainer.detectors.weights import open_model

    explainer = Explainer(open_model(assets / "weights/yolov5n.pt", device="cpu"))
    for image in (np.zeros((480, 640, 3), np.uint8), np.full((480, 640, 3), 114, np.uint8)):
        assert explainer(image).detections == ()
