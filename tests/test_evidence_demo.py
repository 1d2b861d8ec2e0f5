"""The bundled demo: it is small, its scenes are held-out ones, and it reads emblems alone."""

import torch
from evidence_demo import DEMO, IMGSZ, WEIGHTS, demo_scenes
from torch import nn

import val
from data.scripts.evidence.composing import compose
from data.scripts.evidence.rendering import CLASSES, render
from data.scripts.prove_evidence import prove
from models.experimental import attempt_load

PROVEN_ON = 24
GUESSING = 1 / len(CLASSES)


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
