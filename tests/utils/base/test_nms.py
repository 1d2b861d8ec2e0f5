"""Non-maximum suppression on predictions worked out by hand."""

import pytest
import torch

from utils.base.nms import non_max_suppression


def row(x, y, *columns, side=10):
    """A raw prediction: a square around (x, y), then objectness, class probabilities and whatever follows."""
    return [x, y, side, side, *columns]


def suppress(rows, **options):
    return non_max_suppression(torch.tensor([rows]), **options)[0]


def test_confidence_is_objectness_times_class_and_boxes_become_corners():
    found = suppress([row(50, 50, 0.8, 0.1, 0.5)])
    assert torch.allclose(found, torch.tensor([[45.0, 45, 55, 55, 0.4, 1]]))


def test_the_weaker_of_two_overlapping_boxes_of_a_class_goes():
    found = suppress([row(50, 50, 0.8, 0.9, 0.0), row(51, 50, 0.9, 0.9, 0.0), row(80, 50, 0.5, 0.9, 0.0)])
    assert found[:, 0].tolist() == [46, 75]


def test_boxes_of_different_classes_stay_unless_agnostic():
    rows = [row(50, 50, 0.9, 0.9, 0.0), row(50, 50, 0.8, 0.0, 0.9)]
    assert suppress(rows)[:, 5].tolist() == [0, 1]
    assert suppress(rows, agnostic=True)[:, 5].tolist() == [0]


def test_an_overlap_of_exactly_the_threshold_stays():
    # Two squares of 10 that share 10 x 5: IoU 50 / 150.
    rows = [row(50, 50, 0.9, 1.0, 0.0), row(55, 50, 0.8, 1.0, 0.0)]
    assert len(suppress(rows, iou_thres=0.34)) == 2
    assert len(suppress(rows, iou_thres=0.33)) == 1


def test_low_objectness_is_no_candidate_and_low_confidence_no_detection():
    assert len(suppress([row(50, 50, 0.25, 1.0, 0.0)], conf_thres=0.25)) == 0
    assert len(suppress([row(50, 50, 0.9, 0.25, 0.0)], conf_thres=0.25)) == 0
    assert len(suppress([row(50, 50, 0.9, 0.3, 0.0)], conf_thres=0.25)) == 1


def test_only_wanted_classes_are_kept():
    rows = [row(20, 50, 0.9, 0.9, 0.0), row(80, 50, 0.8, 0.0, 0.9)]
    assert suppress(rows, classes=[1])[:, 5].tolist() == [1]
    assert len(suppress(rows, classes=[])) == 0


def test_multi_label_gives_a_detection_per_class():
    rows = [row(50, 50, 1.0, 0.9, 0.5)]
    assert suppress(rows, multi_label=True)[:, 4:].flatten().tolist() == pytest.approx([0.9, 0, 0.5, 1])
    assert len(suppress(rows)) == 1


def test_multi_label_means_nothing_for_a_single_class():
    assert len(suppress([row(50, 50, 1.0, 0.9)], multi_label=True)) == 1


def test_further_columns_are_carried_times_the_objectness():
    found = suppress([row(50, 50, 0.5, 1.0, 7.0, 1.0)], nm=2)
    assert found[0, 4:].tolist() == [0.5, 0, 3.5, 0.5]


def test_detections_are_sorted_and_at_most_max_det():
    rows = [row(100 * i, 50, c, 1.0, 0.0) for i, c in enumerate((0.5, 0.9, 0.7))]
    assert suppress(rows)[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert suppress(rows, max_det=2)[:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_labels_count_as_certain_predictions():
    labels = [torch.tensor([[1.0, 30, 30, 10, 10]])]
    found = suppress([row(80, 50, 0.1, 0.9, 0.0)], labels=labels)
    assert found.tolist() == [[25, 25, 35, 35, 1, 1]]


def test_each_image_has_its_own_list_and_an_empty_one_its_columns():
    both = torch.tensor([[row(50, 50, 0.9, 0.9, 0.0)], [row(50, 50, 0.0, 0.9, 0.0)]])
    assert [tuple(found.shape) for found in non_max_suppression(both)] == [(1, 6), (0, 6)]


def test_an_output_tuple_of_a_model_is_taken_and_not_changed():
    raw = torch.tensor([[row(50, 50, 0.9, 0.9, 0.0)]])
    before = raw.clone()
    assert len(non_max_suppression((raw, [None]))[0]) == 1
    assert torch.equal(raw, before)


def test_half_precision_keeps_classes_apart():
    raw = torch.tensor([[row(50, 50, 0.9, *[0.0] * 79, 0.9), row(50, 50, 0.9, 0.9, *[0.0] * 79)]]).half()
    assert len(non_max_suppression(raw)[0]) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conf_thres": 1.5}, "conf_thres is 1.5"),
        ({"iou_thres": -0.1}, "iou_thres is -0.1"),
        ({"max_det": -1}, "max_det is -1"),
        ({"classes": [2]}, "class 2 is unknown; this model has the classes 0 to 1"),
        ({"nm": 2}, "prediction has shape"),
    ],
)
def test_a_wrong_argument_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        suppress([row(50, 50, 0.9, 0.9, 0.0)], **options)


def test_a_box_that_is_none_is_no_detection():
    rows = [row(50, float("nan"), 0.9, 0.9, 0.0), row(float("inf"), 50, 0.9, 0.9, 0.0), row(50, 50, 0.8, 0.9, 0.0)]
    assert suppress(rows).tolist() == [pytest.approx([45, 45, 55, 55, 0.72, 0])]
