"""Hyperparameters: checked, and fitted to the model."""

import pytest

from utils.base.paths import ROOT
from utils.training.hyperparameters import load_hyp, scaled_to_model


def test_an_unknown_hyperparameter_is_an_error():
    with pytest.raises(ValueError, match="mosiac is unknown"):
        load_hyp({"mosiac": 1.0})


def test_a_probability_above_one_is_an_error():
    with pytest.raises(ValueError, match="fliplr is 2"):
        load_hyp({"fliplr": 2})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("momentum", 1),
        ("lr0", 0),
        ("lr0", 1e300),
        ("warmup_epochs", 1e308),
        ("anchor_t", 0.5),
        ("shear", 90),
        ("scale", -0.1),
        ("box", float("nan")),
        ("iou_t", float("inf")),
    ],
)
def test_a_value_that_nothing_is_learnt_with_is_an_error_that_says_what_is_possible(name, value):
    with pytest.raises(ValueError, match=rf"the hyperparameters: {name} is \S+; give a number from \S+ to \S+$"):
        load_hyp({name: value})


@pytest.mark.parametrize("value", [True, None, "many", [1], {"a": 1}])
def test_what_is_no_number_is_an_error(value):
    for name in ("fliplr", "lr0"):
        with pytest.raises(ValueError, match=f"{name} is .*; give a number"):
            load_hyp({name: value})


@pytest.mark.parametrize("value", [-1, 1, "many", float("nan"), [0.1]])
def test_a_label_smoothing_that_is_none_is_an_error(value):
    with pytest.raises(ValueError, match="label_smoothing is"):
        load_hyp({"label_smoothing": value})


NO_ANCHORS = [-3, True, "3", 1e9, float("nan"), {"a": 1}]
NO_SIDES = [
    [],
    [[]],
    [1, 2],
    [[1, 2, 3]],
    [[1, 2], [1, 2, 3, 4]],
    [[0, 5]],
    [["a", "b"]],
    [[[1, 2]]],
    [[float("inf"), 1]],
]


@pytest.mark.parametrize("value", NO_ANCHORS + NO_SIDES)
def test_anchors_that_are_none_are_an_error(value):
    with pytest.raises(ValueError, match=r"the hyperparameters: anchors is .*; give their number for each level"):
        load_hyp({"anchors": value})


def test_anchors_are_a_number_or_their_sides_and_none_or_zero_means_those_of_the_model():
    assert load_hyp({"anchors": 3.4})["anchors"] == 3
    assert load_hyp({"anchors": [[10, 13], [16, 30]]})["anchors"] == [[10, 13], [16, 30]]
    assert "anchors" not in load_hyp({"anchors": 0}) | load_hyp({"anchors": None})


def test_every_file_of_the_tree_is_possible():
    for path in sorted((ROOT / "data/hyps").glob("*.yaml")):
        assert load_hyp(path)["lr0"] > 0


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert load_hyp({"lr0": "1e-3"})["lr0"] == 0.001


def test_loss_gains_follow_levels_classes_and_size():
    scaled = scaled_to_model({"box": 1.0, "cls": 1.0, "obj": 1.0}, levels=4, classes=8, imgsz=1280)
    assert scaled == pytest.approx({"box": 0.75, "cls": 0.075, "obj": 3.0})
