"""Timing of a piece of code."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Profile(contextlib.ContextDecorator):
    """Add up the seconds spent inside `with profile:` or in a function decorated with `@Profile()`.

    Attributes:
        t: seconds in all.
        dt: seconds of the last time.
    """

    def __init__(self, t: float = 0.0, device: torch.device | str | None = None) -> None:
        """Start at `t` seconds; work queued on a CUDA `device` is waited for before the clock is read."""
        self.t = t
        self.dt = 0.0
        self.device = device
        self._cuda = str(device or "").startswith("cuda")

    def __enter__(self) -> Profile:
        self._start = self.time()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.dt = self.time() - self._start
        self.t += self.dt

    def time(self) -> float:
        """Return a reading of the clock in seconds."""
        if self._cuda:
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()
