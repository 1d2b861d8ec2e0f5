"""Evolving hyperparameters: parents, mutations, the table and going on with it."""

import csv

import numpy as np
import pytest
import yaml

from utils.training.evolution import (
    BOUNDS,
    METRICS,
    DivergedError,
    Evolution,
    Generation,
    choose_parent,
    evolve,
    mutate,
)
from utils.training.hyperparameters import load_hyp
from utils.training.options import TrainOptions

HYP = load_hyp({})


def generation(share, **changes):
    """Return a generation with all four figures at `share`, which is its fitness."""
    return Generation((share,) * 4 + (0.0,) * 3, HYP | changes)


def run(folder, count, figures_of=lambda options: (options.hyp["lr0"],) * 4 + (0.0,) * 3, **changes):
    """Evolve with a training that is the better the larger lr0 is; return the evolution."""
    evolution = Evolution(folder, load_hyp(changes))
    evolve(TrainOptions(evolve=count), evolution, figures_of)
    return evolution


def rows_of(folder):
    with (folder / "evolve.csv").open(encoding="utf-8", newline="") as file:
        return [[cell.strip() for cell in row] for row in csv.reader(file)]


def test_a_mutation_stays_within_bounds_and_changes_something():
    rng = np.random.default_rng(0)
    hyp = HYP
    for _ in range(200):
        child = mutate(hyp, rng)
        assert child != hyp
        assert all(low <= child[name] <= high for name, (low, high) in BOUNDS.items())
        hyp = child


def test_what_is_switched_off_stays_off():
    child = mutate(HYP | {"mixup": 0.0, "fliplr": 0.0}, np.random.default_rng(1))
    assert (child["mixup"], child["fliplr"]) == (0, 0)


def test_every_hyperparameter_that_is_used_has_bounds():
    assert set(HYP) - set(BOUNDS) == {"iou_t"}


def test_parents_are_the_five_best_and_the_fitter_the_likelier():
    generations = [generation(share / 10) for share in range(8)]
    rng = np.random.default_rng(0)
    drawn = [round(choose_parent(generations, rng).fitness * 10) for _ in range(2000)]
    counts = np.bincount(drawn, minlength=8)
    assert counts[:3].sum() == 0
    # Weights by what they are better than the fifth: 0 1 2 3 4.
    np.testing.assert_allclose(counts[3:] / 2000, [0, 0.1, 0.2, 0.3, 0.4], atol=0.03)


def test_the_first_generation_is_what_was_given_and_better_ones_are_built_on(tmp_path):
    evolution = run(tmp_path, 30)
    assert evolution.generations[0].hyp == HYP
    assert evolution.best.hyp["lr0"] > HYP["lr0"]


def test_all_generations_stand_in_the_table_and_the_best_in_a_yaml_that_trains(tmp_path):
    evolution = run(tmp_path, 4)
    header, *rows = rows_of(tmp_path)
    assert header == [*METRICS, *HYP]
    assert len(rows) == 4
    assert load_hyp(tmp_path / "hyp_evolve.yaml")["lr0"] == pytest.approx(max(float(row[7]) for row in rows))
    assert (tmp_path / "evolve.png").stat().st_size > 10_000
    assert yaml.safe_load((tmp_path / "hyp_evolve.yaml").read_text(encoding="utf-8")) == dict(evolution.best.hyp)


def test_an_evolution_that_was_stopped_goes_on_as_if_it_was_not(tmp_path):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()

    def figures_of(options):
        return (options.hyp["lr0"] / 3,) * 7

    run(tmp_path / "whole", 5, figures_of, box=0.0512345678)
    run(tmp_path / "stopped", 2, figures_of, box=0.0512345678)
    run(tmp_path / "stopped", 5, figures_of, box=0.0512345678)
    assert rows_of(tmp_path / "stopped") == rows_of(tmp_path / "whole")


def test_a_finished_evolution_trains_no_more(tmp_path):
    run(tmp_path, 2)

    def fail(options):
        raise AssertionError("trained")

    assert len(run(tmp_path, 2, fail).generations) == 2


def test_a_generation_that_diverges_counts_as_nothing(tmp_path):
    def diverge(options):
        raise DivergedError("the loss became nan")

    assert [each.fitness for each in run(tmp_path, 2, diverge).generations] == [0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "other columns"),
        ("a,b\n1,2\n", "other columns"),
        (",".join([*METRICS, *HYP]) + "\n1,2\n", "line 2 is no row of"),
        (",".join([*METRICS, *HYP]) + "\n" + ",".join(["x"] * (7 + len(HYP))), "line 2 is no row of"),
    ],
)
def test_a_damaged_table_is_named(text, words, tmp_path):
    (tmp_path / "evolve.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"evolve\.csv.*{words}"):
        Evolution(tmp_path, HYP)
