"""Evolve hyperparameters: train again and again, each time with a mutation of what was among the best so far.

A folder holds the whole evolution: evolve.csv, a row for each generation; hyp_evolve.yaml, the best hyperparameters, for
`--hyp`; evolve.png, what each of them was worth; and training/, the training of the latest generation.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from explainer.errors import UsageError
from utils.base.logger import LOGGER
from utils.base.paths import writing_whole
from utils.plots import new_figure, save_figure
from utils.training.options import TrainOptions
from utils.training.results_log import COLUMNS, FIRST_METRIC
from utils.validating.metrics import fitness

# The figures of a training: precision, recall, mAP50, mAP50-95, and the three losses of validation.
METRICS = COLUMNS[FIRST_METRIC : FIRST_METRIC + 7]
# The least and the largest value of what is mutated; where it is 0 at first it is switched off and stays so.
BOUNDS = {
    "lr0": (1e-5, 0.1),
    "lrf": (0.001, 1.0),
    "momentum": (0.5, 0.99),
    "weight_decay": (0.0, 0.005),
    "warmup_epochs": (0.0, 10.0),
    "warmup_momentum": (0.0, 0.95),
    "warmup_bias_lr": (0.0, 0.3),
    "box": (0.01, 0.5),
    "cls": (0.05, 5.0),
    "cls_pw": (0.3, 3.0),
    "obj": (0.1, 5.0),
    "obj_pw": (0.3, 3.0),
    "anchor_t": (1.5, 8.0),
    "fl_gamma": (0.0, 3.0),
    "hsv_h": (0.0, 0.2),
    "hsv_s": (0.0, 0.95),
    "hsv_v": (0.0, 0.95),
    "degrees": (0.0, 60.0),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.9),
    "shear": (0.0, 15.0),
    "perspective": (0.0, 0.001),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
}
# Of how many of the best a parent is drawn, how many of the values change, and by about which share.
PARENTS, CHANGED, SPREAD = 5, 0.6, 0.25
SMALLEST_FACTOR, LARGEST_FACTOR = 1 / 3, 3.0
# Stands for the folder of the training of a generation.
TRAINING = "training"


class DivergedError(UsageError):
    """A training whose loss became infinite or no number."""


@dataclass(frozen=True)
class Generation:
    """One training: its figures, in the order of `METRICS`, and the hyperparameters that led to them."""

    figures: tuple[float, ...]
    hyp: Mapping[str, float]

    @property
    def fitness(self) -> float:
        """How good it was, 0 to 1."""
        return float(fitness(np.array([self.figures]))[0])


class Evolution:
    """The generations so far, in a folder.

    Attributes:
        folder: of all that is written; names: of the hyperparameters, in the order of evolve.csv.
        generations: oldest first.
    """

    def __init__(self, folder: Path, hyp: Mapping[str, float]) -> None:
        """Begin with `hyp`, or go on with the evolve.csv in the folder.

        Raises:
            ValueError: for an evolve.csv that is none, or of other hyperparameters.
        """
        self.folder, self.path, self._first = folder, folder / "evolve.csv", dict(hyp)
        self.names = [name for name, value in hyp.items() if isinstance(value, (int, float))]
        self.generations = read_generations(self.path, self.names) if self.path.exists() else []

    @property
    def best(self) -> Generation:
        """The fittest generation, the first of equals."""
        return max(self.generations, key=lambda each: each.fitness)

    def next_hyp(self, seed: int) -> dict[str, float]:
        """Return the hyperparameters to try next: those given at first, then mutations of earlier ones.

        The same seed and the same generations give the same, so that an evolution that was stopped goes on as if not.
        """
        if not self.generations:
            return dict(self._first)
        rng = np.random.default_rng((seed, len(self.generations)))
        return self._first | mutate(choose_parent(self.generations, rng).hyp, rng)

    def add(self, generation: Generation) -> None:
        """Record a generation in evolve.csv, and the best so far in hyp_evolve.yaml."""
        # As they will be read again, so that going on is the same as never having stopped.
        figures = tuple(float(_text(value)) for value in generation.figures)
        hyp = {name: float(_text(generation.hyp[name])) for name in self.names}
        self.generations.append(Generation(figures, hyp))
        rows = [
            [*map(_text, each.figures), *(_text(each.hyp[name]) for name in self.names)] for each in self.generations
        ]
        lines = [",".join(f"{cell:>20s}" for cell in row) for row in ([*METRICS, *self.names], *rows)]
        with writing_whole(self.path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        best, number = self.best, self.generations.index(self.best) + 1
        words = ", ".join(f"{name} {value:.5g}" for name, value in zip(METRICS, best.figures, strict=True))
        content = yaml.safe_dump(self._first | dict(best.hyp), sort_keys=False)
        about = f"# Best of {len(self.generations)} generations: number {number}, fitness {best.fitness:.5g}"
        with writing_whole(self.folder / "hyp_evolve.yaml") as part:
            part.write_text(f"{about}\n# {words}\n{content}", encoding="utf-8")

    def plot(self) -> None:
        """Draw the fitness of each generation over each value that was mutated, as evolve.png; a cross for the best."""
        names = [name for name in self.names if name in BOUNDS]
        columns = 6
        figure = new_figure(14, 2.2 * math.ceil(len(names) / columns))
        values = [each.fitness for each in self.generations]
        shades = np.arange(len(values))
        axes = figure.subplots(math.ceil(len(names) / columns), columns, squeeze=False).ravel()
        for ax, name in zip(axes, names, strict=False):
            ax.scatter([each.hyp[name] for each in self.generations], values, c=shades, cmap="viridis", s=14, alpha=0.8)
            ax.plot(self.best.hyp[name], self.best.fitness, "k+", markersize=14)
            ax.set_title(f"{name} = {self.best.hyp[name]:.3g}", fontsize=9)
            ax.tick_params(labelsize=7)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
        save_figure(figure, self.folder / "evolve.png")


def read_generations(path: Path, names: Sequence[str]) -> list[Generation]:
    """Return the generations in an evolve.csv of these hyperparameters; ValueError where it is none."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    if header != [*METRICS, *names]:
        raise ValueError(f"{path} holds other columns than this evolution has; give another --name, or the same --hyp")
    generations = []
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(cell) for cell in row]
            figures, hyp = values[: len(METRICS)], values[len(METRICS) :]
            generations.append(Generation(tuple(figures), dict(zip(names, hyp, strict=True))))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no row of {len(header)} numbers; delete the line") from error
    return generations


def choose_parent(generations: Sequence[Generation], rng: np.random.Generator) -> Generation:
    """Draw one of the best generations, the fitter the likelier."""
    best = sorted(generations, key=lambda each: -each.fitness)[:PARENTS]
    weights = np.array([each.fitness for each in best]) - best[-1].fitness + 1e-6
    return best[rng.choice(len(best), p=weights / weights.sum())]


def mutate(hyp: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
    """Return hyperparameters of which some are multiplied by factors around 1, within `BOUNDS`; at least one changes.

    What is 0 stays 0, and what has no bounds stays as it is.
    """
    genes = [name for name in hyp if name in BOUNDS and hyp[name]]
    child = dict(hyp)
    # What stands at a bound can be pushed against it, so that one draw may change nothing.
    for _ in range(1000 if genes else 0):
        factors = np.exp(rng.normal(0, SPREAD, len(genes))).clip(SMALLEST_FACTOR, LARGEST_FACTOR)
        changes = rng.random(len(genes)) < CHANGED
        for name, factor in zip(genes, np.where(changes, factors, 1.0), strict=True):
            child[name] = float(f"{np.clip(hyp[name] * factor, *BOUNDS[name]):.5g}")
        if any(child[name] != hyp[name] for name in genes):
            break
    return child


def evolve(
    options: TrainOptions, evolution: Evolution, train_once: Callable[[TrainOptions], Sequence[float]]
) -> Generation:
    """Train until there are as many generations as `options.evolve` says, and return the best.

    Args:
        options: of the trainings; only the last epoch of each is validated and saved.
        evolution: where it goes on.
        train_once: trains and returns the figures, in the order of `METRICS`; none where there are none.
    """
    if len(evolution.generations) >= options.evolve:
        LOGGER.info(
            f"{evolution.path} has {len(evolution.generations)} generations already; give --evolve with a larger number"
        )
    while (number := len(evolution.generations)) < options.evolve:
        hyp = evolution.next_hyp(options.seed)
        LOGGER.info(f"\nGeneration {number + 1} of {options.evolve}")
        # A checkpoint of the generation before must not be measured in place of a missing one.
        for name in ("best", "last"):
            (evolution.folder / TRAINING / "weights" / f"{name}.pt").unlink(missing_ok=True)
        try:
            figures = tuple(train_once(one_generation(options, evolution.folder, hyp)))
        except DivergedError as error:
            LOGGER.warning(f"WARNING: generation {number + 1} counts as 0: {error}")
            figures = ()
        numbers = {name: value for name, value in hyp.items() if name in evolution.names}
        evolution.add(Generation(figures or (0.0,) * len(METRICS), numbers))
        LOGGER.info(f"Fitness {evolution.generations[-1].fitness:.5g}, best {evolution.best.fitness:.5g}")
    evolution.plot()
    LOGGER.info(f"Evolved {len(evolution.generations)} generations: the best is {evolution.folder / 'hyp_evolve.yaml'}")
    return evolution.best


def one_generation(options: TrainOptions, folder: Path, hyp: Mapping[str, float]) -> TrainOptions:
    """Return the options of the training of one generation."""
    quick = {"noval": True, "nosave": True, "noplots": True, "exist_ok": True}
    # The option says it too, and is the one that counts.
    hyp = {name: value for name, value in hyp.items() if name != "label_smoothing"}
    return replace(options, evolve=0, hyp=hyp, project=str(folder), name=TRAINING, **quick)


def _text(value: float) -> str:
    return f"{value:.5g}"
