"""Hyperparameters: checked, and fitted to the model."""

import pytest

from utils.training.hyperparameters import load_hyp, scaled_to_model


def test_an_unknown_hyperparameter_is_an_error():
    with pytest.raises(ValueError, match="mosiac is unknown"):
        load_hyp({"mosiac": 1.0})


def test_a_probability_above_one_is_an_error():
    with pytest.raises(ValueError, match="fliplr is 2"):
        load_hyp({"fliplr": 2})


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert load_hyp({"lr0": "1e-3"})["lr0"] == 0.001


def test_loss_gains_follow_levels_classes_and_size():
    scaled = scaled_to_model({"box": 1.0, "cls": 1.0, "obj": 1.0}, levels=4, classes=8, imgsz=1280)
    assert scaled == pytest.approx({"box": 0.75, "cls": 0.075, "obj": 3.0})
