"""The steps of a training, and the batches they are taken on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
# The share of all steps in which the learning rate rises.
WARM_UP = 0.1
LARGEST_GRADIENT = 5.0
# How often the losses are printed, in steps.
TOLD_EVERY = 50


class Steps:
    """AdamW whose rate rises and falls once in so many steps, with clipped gradients; prints the losses."""

    def __init__(self, module: nn.Module, steps: int) -> None:
        self.module, self.steps, self.done = module, steps, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.schedule = OneCycleLR(self.optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP)
        self.began, self.means = time.perf_counter(), {}

    def step(self, losses: dict[str, Tensor]) -> None:
        """Follow the gradient of the sum of the losses, each a scalar, by one step."""
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.schedule.step()
        self.tell(losses)

    def tell(self, losses: dict[str, Tensor]) -> None:
        """Print now and then the mean of each loss since the last time."""
        self.done += 1
        for name, value in losses.items():
            self.means[name] = self.means.get(name, 0.0) + value.item() / TOLD_EVERY
        if self.done % TOLD_EVERY == 0:
            told = "  ".join(f"{name} {value:.4f}" for name, value in self.means.items())
            print(f"{self.done:5}/{self.steps}  {time.perf_counter() - self.began:5.0f} s  {told}", flush=True)
            self.means = {}


def batches(count: int, size: int, epochs: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the indices (size,) of every batch of all epochs, shuffled; the rest of an epoch is left out."""
    for _ in range(epochs):
        yield from rng.permutation(count)[: count // size * size].reshape(-1, size)


def as_tensor(images_rgb: np.ndarray) -> Tensor:
    """Return images uint8 (..., H, W, 3) as float32 (..., 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images_rgb, -1, -3))).float() / 255
