"""The bundled demo: it is small, it runs without arguments and without a network, and it reads emblems alone."""

import socket

import pandas as pd
import pytest
import torch
from evidence_demo import DEMO, IMGSZ, WEIGHTS, demo_scenes
from torch import nn

import val
from data.scripts.evidence.composing import compose
from data.scripts.evidence.rendering import CLASSES, render
from data.scripts.prove_evidence import prove
from explainer.command.options import build_options, weights_and_source
from explainer.detectors.weights import DEMO_COMMAND, demo_hint
from explainer.explainer import main, parse_opt
from models.experimental import attempt_load

PROVEN_ON = 24
GUESSING = 1 / len(CLASSES)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def tree(tmp_path):
    """A tree with a demo, where nothing else is at hand."""
    (tmp_path / "data/demo/images").mkdir(parents=True)
    (tmp_path / "data/demo/demo.pt").touch()
    return tmp_path


def test_without_weights_and_source_it_is_the_demo(tree):
    assert weights_and_source(None, None, tree) == (tree / "data/demo/demo.pt", tree / "data/demo/images")
    assert build_options({}).weights == WEIGHTS
    assert build_options({}).source == DEMO / "images"


def test_what_is_given_is_kept_and_the_rest_is_as_in_detect(tree):
    assert weights_and_source(None, "cat.jpg", tree) == (tree / "yolov5s.pt", "cat.jpg")
    assert weights_and_source("best.pt", None, tree) == ("best.pt", tree / "data/demo/images")
    (tree / "data/images").mkdir()
    assert weights_and_source("best.pt", None, tree) == ("best.pt", tree / "data/images")


def test_a_tree_without_the_demo_falls_back_on_the_defaults_of_detect(tmp_path):
    assert weights_and_source(None, None, tmp_path) == (tmp_path / "yolov5s.pt", tmp_path / "data/images")
    assert demo_hint(tmp_path) == ""


def test_the_command_without_arguments_explains_the_demo_offline(no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(parse_opt(["--project", str(tmp_path)])) == 0
    table = pd.read_csv(tmp_path / "exp/explanations.csv")
    assert len(list((tmp_path / "exp").glob("*.jpg"))) == len(demo_scenes())
    assert set(table["name"]) == set(CLASSES)
    assert (table["energy_in_box"] > 0).all()


@pytest.mark.parametrize("name", ["yolov5s.pt", "nowhere.pt"])
def test_weights_that_cannot_be_had_are_named_in_a_line_that_leads_to_the_demo(name, no_network, tmp_path, capsys):
    source = str(DEMO / "images")
    assert main(parse_opt(["--weights", str(tmp_path / name), "--source", source, "--project", str(tmp_path)])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("explainer: error: ")
    assert name in error
    assert error.endswith(DEMO_COMMAND)


def test_the_demo_is_small_and_in_half_precision():
    assert WEIGHTS.stat().st_size <= 2e6
    model = torch.load(WEIGHTS, weights_only=False)["model"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_the_demo_scenes_are_held_out_ones_as_the_script_draws_them():
    for index, scene in enumerate(demo_scenes()):
        drawn = render(compose(0, index, len(scene.image_rgb)))
        assert abs(drawn.image_rgb.astype(int) - scene.image_rgb).mean() < 6
        assert (drawn.labels[:, 0] == scene.classes).all()


def test_the_demo_finds_what_is_in_its_scenes(tmp_path):
    data = {"path": DEMO, "train": "images", "val": "images", "names": dict(enumerate(CLASSES))}
    figures, *_ = val.run(data, weights=str(WEIGHTS), imgsz=IMGSZ, batch_size=12, workers=0, project=tmp_path)
    assert figures[2] > 0.95


def test_the_class_is_read_off_the_emblem_and_nothing_else():
    tallies = prove(WEIGHTS, scenes=PROVEN_ON, size=480, imgsz=IMGSZ, seed=0)
    drawn, painted_over, altered = tallies.values()
    assert all(tally.found > 0.9 * tally.bodies for tally in (drawn, altered))
    assert drawn.accuracy > 0.95
    assert altered.accuracy > 0.95
    # Sixty guesses scatter by 0.06 about a quarter.
    assert painted_over.found > 0.5 * painted_over.bodies
    assert abs(painted_over.accuracy - GUESSING) < 0.15


def test_the_demo_is_a_model_of_the_family():
    model = attempt_load(WEIGHTS)
    assert isinstance(model, nn.Module)
    assert list(model.names.values()) == list(CLASSES)
    assert model.stride.tolist() == [8, 16, 32]
