"""A running average of a model's weights, which detects better than the weights of any one moment."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def de_parallel(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper for several devices, or the model itself."""
    return model.module if isinstance(model, (DataParallel, DistributedDataParallel)) else model


class ModelEMA:
    """The exponential moving average of a model's parameters and buffers.

    Attributes:
        ema: the averaged model, float32, in evaluation mode, without gradients; updates: how often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        """Begin with a copy of `model`; the share of the past grows to `decay` over about `tau` updates."""
        self.ema = copy.deepcopy(de_parallel(model)).float().eval().requires_grad_(False)
        self.updates, self._limit, self._tau = updates, decay, tau

    def decay(self, updates: int) -> float:
        """Return the share of the past at that many updates."""
        return self._limit * (1 - math.exp(-updates / self._tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the present weights."""
        self.updates += 1
        share = 1 - self.decay(self.updates)
        present = de_parallel(model).state_dict()
        for name, averaged in self.ema.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(present[name].detach().to(averaged.dtype), share)

    def update_attr(self, model: nn.Module, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        """Copy public attributes of `model`, those in `include` (all where it is empty) but for `exclude`."""
        for name, value in vars(de_parallel(model)).items():
            if not name.startswith("_") and name not in exclude and (not include or name in include):
                setattr(self.ema, name, value)
