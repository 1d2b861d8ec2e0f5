"""How a training goes: optimizers, how their rates change, steps from the losses of batches, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.base.logger import LOGGER
from utils.training.model_ema import ModelEMA

# Groups of parameters in the order of checkpoints: biases, decayed weights, weights of normalisations.
BIASES, WEIGHTS, NORMS = range(3)
NORM_TYPES = tuple(cls for name, cls in vars(nn).items() if "Norm" in name and isinstance(cls, type))

NOMINAL_BATCH = 64
LARGEST_GRADIENT = 10.0
LEAST_WARM_UP = 100


def smart_optimizer(
    model: nn.Module, name: str = "Adam", lr: float = 0.001, momentum: float = 0.9, decay: float = 1e-5
) -> torch.optim.Optimizer:
    """Return an optimizer with three groups of parameters, of which only the second, weights, decays.

    Args:
        model: all of its parameters are taken, also frozen ones.
        name: SGD, Adam, AdamW or RMSProp.
        lr: learning rate; momentum: of SGD and RMSProp, beta1 of Adam and AdamW; decay: weight decay.

    Raises:
        ValueError: for another name.
    """
    biases, weights, norms = _parameter_groups(model)
    make = {
        "SGD": lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, nesterov=momentum > 0),
        "Adam": lambda p: torch.optim.Adam(p, lr=lr, betas=(momentum, 0.999)),
        "AdamW": lambda p: torch.optim.AdamW(p, lr=lr, betas=(momentum, 0.999), weight_decay=0.0),
        "RMSProp": lambda p: torch.optim.RMSprop(p, lr=lr, momentum=momentum),
    }
    if name not in make:
        raise ValueError(f"optimizer {name} is unknown; choose {', '.join(make)}")
    optimizer = make[name](biases)
    optimizer.add_param_group({"params": weights, "weight_decay": decay})
    optimizer.add_param_group({"params": norms, "weight_decay": 0.0})
    for group in optimizer.param_groups:
        group["initial_lr"] = lr
    counts = f"{len(norms)} weight(decay=0.0), {len(weights)} weight(decay={decay:g}), {len(biases)} bias"
    LOGGER.info(f"optimizer: {name}(lr={lr:g}) with parameter groups {counts}")
    return optimizer


def _parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return biases, weights and weights of normalisations."""
    groups: tuple[list, list, list] = ([], [], [])
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = BIASES if name == "bias" else NORMS if isinstance(module, NORM_TYPES) else WEIGHTS
            groups[kind].append(parameter)
    return groups


def make_schedule(epochs: int, last: float, *, cosine: bool) -> Callable[[float], float]:
    """Return the function from an epoch to the factor of the learning rate, which falls from 1 to `last`."""
    if cosine:
        return lambda epoch: last + (1 - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    return lambda epoch: last + (1 - last) * (1 - epoch / epochs)


@dataclass(frozen=True)
class WarmUp:
    """The first iterations, in which rates rise, but those of biases fall, and batches are added up more and more.

    Attributes:
        iterations: how many; bias_lr, momentum: where they begin; final_momentum: where that ends.
        accumulate: the number of batches per step at the end.
    """

    iterations: int
    bias_lr: float
    momentum: float
    final_momentum: float
    accumulate: float

    def apply(self, optimizer: torch.optim.Optimizer, iteration: int, factor: float) -> int:
        """Set rates for an iteration, given the schedule's factor; return how many batches make a step."""
        done = min(iteration / max(self.iterations, 1), 1.0)
        for kind, group in enumerate(optimizer.param_groups):
            start = self.bias_lr if kind == BIASES else 0.0
            group["lr"] = start + (group["initial_lr"] * factor - start) * done
            if "momentum" in group:
                group["momentum"] = self.momentum + (self.final_momentum - self.momentum) * done
        return max(1, round(1 + (self.accumulate - 1) * done))


class Stepper:
    """Adds up the gradients of batches to the nominal batch of 64 images, clips them, and steps.

    Attributes:
        optimizer: whose rates follow warm-up and schedule; accumulate: how many batches make a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], float],
        warm_up: WarmUp,
        *,
        ema: ModelEMA | None = None,
        amp: bool = False,
        start: int = 0,
    ) -> None:
        """Begin at iteration `start`; `amp` scales losses so that half precision gradients do not vanish."""
        self.model, self.optimizer, self.schedule, self.warm_up, self.ema = model, optimizer, schedule, warm_up, ema
        self.accumulate = max(1, round(warm_up.accumulate))
        self._scaler = torch.amp.GradScaler("cuda", enabled=amp)
        self._factor = 1.0
        self._last_step = start - 1

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rates of an epoch."""
        self.optimizer.zero_grad()
        self._factor = self.schedule(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._factor

    def begin_batch(self, iteration: int) -> None:
        """Set the rates of an iteration, counted over all epochs, during the warm-up."""
        if iteration <= self.warm_up.iterations:
            self.accumulate = self.warm_up.apply(self.optimizer, iteration, self._factor)

    def backward(self, loss: Tensor, iteration: int) -> None:
        """Add the gradients of a loss, and step where enough have come together."""
        self._scaler.scale(loss).backward()
        if iteration - self._last_step < self.accumulate:
            return
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=LARGEST_GRADIENT)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)
        self._last_step = iteration

    @property
    def rates(self) -> list[float]:
        """The learning rates of the three groups of parameters."""
        return [group["lr"] for group in self.optimizer.param_groups]


class EarlyStopping:
    """Told the fitness of every epoch, says when to stop.

    Attributes:
        best_fitness, best_epoch: of the best one so far; patience: how many epochs without a better one are too many.
        possible_stop: whether the next epoch may be the last.
    """

    def __init__(self, patience: int = 30) -> None:
        """Wait for `patience` epochs; 0 for ever."""
        self.best_fitness, self.best_epoch = 0.0, 0
        self.patience = patience or float("inf")
        self.possible_stop = False

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Take in the fitness of an epoch and return whether to stop."""
        # 0 counts as better: early epochs often have no hit at all.
        if fitness >= self.best_fitness:
            self.best_epoch, self.best_fitness = epoch, fitness
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        stop = waited >= self.patience
        if stop:
            LOGGER.info(
                f"Stopping training early as no improvement observed in last {self.patience} epochs. "
                f"Best results observed at epoch {self.best_epoch}, best model saved as best.pt; "
                f"give --patience with a larger number, or 0 for no early stopping"
            )
        return stop
