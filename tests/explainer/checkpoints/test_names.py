"""Class names: text, one for each class of the head, whatever a checkpoint brings."""

import logging

import pytest
from fresh_interpreter import IN_STOCK
from scenes import confident_detector, picture, save_checkpoint

from explainer.checkpoints.checkpoint import load_model
from explainer.checkpoints.repair import names_by_index
from explainer.detectors.weights import open_model
from explainer.errors import UsageError
from explainer.explain import Explainer
from models.common import AutoShape

GIVEN = [
    (None, ["class0", "class1", "class2"]),
    (["ant"], ["ant", "class1", "class2"]),
    (["ant", "bee", "cat", "dog"], ["ant", "bee", "cat"]),
    ("ant", ["ant", "class1", "class2"]),
    ([1, True, None], ["1", "True", "class2"]),
    (["ant", "", " "], ["ant", "class1", "class2"]),
    ({"0": "ant", "1": "bee", "2": "cat"}, ["ant", "bee", "cat"]),
    ({1: "ant", 2: "bee", 3: "cat"}, ["ant", "bee", "cat"]),
    ({"1": "ant", "3": "cat"}, ["ant", "class1", "cat"]),
    ({1: "bee"}, ["class0", "bee", "class2"]),
    ({"ant": 0}, ["class0", "class1", "class2"]),
    (7, ["class0", "class1", "class2"]),
]


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_names_are_text_and_one_for_each_class(given, expected):
    assert names_by_index(given, 3) == dict(enumerate(expected))


def test_a_name_that_no_line_holds_is_cut():
    (name,) = names_by_index(["x" * 2_000_000], 1).values()
    assert (len(name), name[-2:]) == (500, "x…")


def named(names, **changes):
    model = confident_detector(**changes)
    model.names = names
    return model


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_names_are_mended_on_loading(given, expected, tmp_path):
    assert load_model(save_checkpoint(tmp_path / "odd.pt", named(given))).names == dict(enumerate(expected))


def test_the_head_and_not_the_model_says_how_many_classes_there_are(tmp_path):
    model = named(["ant"])
    model.nc = 1
    loaded = load_model(save_checkpoint(tmp_path / "odd.pt", model))
    assert (loaded.nc, len(loaded.names)) == (3, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["ant"], "2 of its 3 classes have no name"),
        ([*"abcde"], "2 names are left out"),
        ({1: "a", 2: "b", 3: "c"}, "numbered from 1"),
    ],
)
def test_names_that_do_not_fit_are_told_of_with_the_file(given, words, tmp_path, capsys):
    load_model(save_checkpoint(tmp_path / "odd.pt", named(given)))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert "odd.pt" in line
    assert words in line


def test_names_that_fit_are_not_told_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="yolov5"):
        load_model(save_checkpoint(tmp_path / "fine.pt", named({0: "ant", 1: "bee", 2: "cat"})))
    assert not caplog.records


def last_class_wins(names):
    """Return a detector with odd names that is surest of its last class."""
    model = named(names)
    head = model.model[-1]
    for convolution in head.m:
        convolution.bias.data.view(head.na, head.no)[:, 7] = 9.0
    return model


@pytest.mark.parametrize("names", [["ant"], {1: "ant"}, None])
def test_a_model_in_memory_is_explained_and_left_as_it_is(names):
    model = last_class_wins(names)
    answer = Explainer(model, method="LayerCAM", imgsz=96, conf_thres=0.05)(picture())
    assert {each.detection.name for each in answer.detections} == {"class2"}
    assert model.names == names


def test_a_model_without_names_is_explained():
    model = last_class_wins(None)
    del model.names
    answer = Explainer(model, method="LayerCAM", imgsz=96, conf_thres=0.05)(picture())
    assert {each.detection.name for each in answer.detections} == {"class2"}


@pytest.mark.skipif(IN_STOCK, reason="the AutoShape of stock YOLOv5 takes names as they are")
def test_autoshape_names_what_it_finds():
    model = AutoShape(last_class_wins(["ant"]), verbose=False)
    model.conf = 0.05
    found = model(picture(), size=96)
    assert set(found.pandas().xyxy[0]["name"]) == {"class2"}
    model.names = ["other"]
    assert "class2" in str(model(picture(), size=96))


def test_names_of_data_are_those_of_the_head(tmp_path):
    weights = save_checkpoint(tmp_path / "short.pt", named(["ant"]))
    data = tmp_path / "data.yaml"
    data.write_text("names: {'1': x, '2': 8, '3': yes}", encoding="utf-8")
    assert open_model(weights, data=str(data)).names == {0: "x", 1: "8", 2: "True"}
    data.write_text("names: [x]", encoding="utf-8")
    with pytest.raises(UsageError, match="names 1 classes, and the checkpoint has 3"):
        open_model(weights, data=str(data))
