"""The bundled demo: what the command takes without arguments, offline; and a tree that has none."""

import socket

import pandas as pd
import pytest
from evidence_demo import DEMO, demo_scenes
from fresh_interpreter import IN_STOCK, tree

from data.scripts.evidence.rendering import CLASSES
from explainer.command.options import build_options, weights_and_source
from explainer.detectors.weights import DEMO_COMMAND, bundled_demo, demo_hint
from explainer.evaluate import run as evaluate
from explainer.evaluation.options import Evaluation, asked_or_demo
from explainer.explainer import main, parse_opt

HAS_DEMO = bundled_demo(tree()) is not None
needs_the_demo = pytest.mark.skipif(not HAS_DEMO, reason="the tree has no data/demo")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def another_tree(tmp_path):
    """A tree with a demo, where nothing else is at hand."""
    (tmp_path / "data/demo/images").mkdir(parents=True)
    (tmp_path / "data/demo/demo.pt").touch()
    return tmp_path


def test_without_weights_and_source_it_is_the_demo(another_tree):
    assert weights_and_source(None, None, another_tree) == (
        another_tree / "data/demo/demo.pt",
        another_tree / "data/demo/images",
    )


@needs_the_demo
def test_the_options_are_those_of_the_demo():
    assert build_options({}).weights == tree() / "data/demo/demo.pt"
    assert build_options({}).source == tree() / "data/demo/images"


def test_what_is_given_is_kept_and_the_rest_is_as_in_detect(another_tree):
    assert weights_and_source(None, "cat.jpg", another_tree) == (another_tree / "yolov5s.pt", "cat.jpg")
    assert weights_and_source("best.pt", None, another_tree) == ("best.pt", another_tree / "data/demo/images")
    (another_tree / "data/images").mkdir()
    assert weights_and_source("best.pt", None, another_tree) == ("best.pt", another_tree / "data/images")


def test_a_tree_without_the_demo_falls_back_on_the_defaults_of_detect(tmp_path):
    assert weights_and_source(None, None, tmp_path) == (tmp_path / "yolov5s.pt", tmp_path / "data/images")
    assert demo_hint(tmp_path) == ""


@needs_the_demo
def test_the_command_without_arguments_explains_the_demo_offline(no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(parse_opt(["--project", str(tmp_path)])) == 0
    table = pd.read_csv(tmp_path / "exp/explanations.csv")
    assert len(list((tmp_path / "exp").glob("*.jpg"))) == len(demo_scenes())
    assert set(table["name"]) == set(CLASSES)
    assert (table["energy_in_box"] > 0).all()


@pytest.mark.skipif(IN_STOCK, reason="stock YOLOv5 downloads by curl, which tries for minutes")
@pytest.mark.parametrize("name", ["yolov5s.pt", "nowhere.pt"])
def test_weights_that_cannot_be_had_are_named_in_a_line_that_leads_to_the_demo(name, no_network, tmp_path, capsys):
    source = str(DEMO / "images")
    assert main(parse_opt(["--weights", str(tmp_path / name), "--source", source, "--project", str(tmp_path)])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("explainer: error: ")
    assert name in error
    assert error.endswith(DEMO_COMMAND) or not HAS_DEMO


def test_an_evaluation_without_weights_and_data_is_one_of_the_demo(another_tree, tmp_path_factory):
    demo = another_tree / "data/demo"
    assert asked_or_demo(None, None, another_tree) == (demo / "demo.pt", demo / "images")
    assert asked_or_demo("best.pt", None, another_tree) == ("best.pt", another_tree / "data/coco128.yaml")
    assert asked_or_demo(None, "mine.yaml", another_tree) == (another_tree / "yolov5s.pt", "mine.yaml")
    bare = tmp_path_factory.mktemp("bare")
    assert asked_or_demo(None, None, bare) == (bare / "yolov5s.pt", bare / "data/coco128.yaml")


@needs_the_demo
def test_the_demo_is_evaluated_offline_with_its_labels_and_can_be_gone_on_with(no_network, tmp_path):
    few = {"fraction": 0.1, "steps": 3, "imgsz": 320, "max_det_per_image": 2, "method": "GradCAM", "nosave": True}
    folder = evaluate(project=tmp_path, **few)
    rows = pd.read_csv(folder / "detections.csv")
    assert set(rows["name"]) <= set(CLASSES)
    assert rows["energy_in_label"].notna().any()
    assert Evaluation().weights == tree() / "data/demo/demo.pt"
    assert evaluate(resume=str(folder)) == folder
