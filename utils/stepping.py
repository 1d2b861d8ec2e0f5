"""From the losses of batches to steps of the optimizer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.ema import ModelEMA
from utils.optimizers import WarmUp

NOMINAL_BATCH = 64
LARGEST_GRADIENT = 10.0
LEAST_WARM_UP = 100


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
