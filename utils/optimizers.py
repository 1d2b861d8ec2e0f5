"""Optimizers, and how learning rate and momentum change over a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from utils.logger import LOGGER

# Groups of parameters in the order of checkpoints: biases, decayed weights, weights of normalisations.
BIASES, WEIGHTS, NORMS = range(3)
NORM_TYPES = tuple(cls for name, cls in vars(nn).items() if "Norm" in name and isinstance(cls, type))


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
