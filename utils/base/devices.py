"""Devices: which one to compute on, without gradients, timed, and repeatably."""

from __future__ import annotations

import contextlib
import platform
import random
import time

import numpy as np
import torch

from utils.base.logger import LOGGER


def smart_inference_mode():
    """Return a decorator that runs a function without recording gradients, at the lowest cost PyTorch offers."""
    return torch.inference_mode()


def time_sync() -> float:
    """Return a clock reading in seconds, taken after all work queued on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def select_device(
    device: str | int | torch.device | None = "", batch_size: int = 0, newline: bool = True
) -> torch.device:
    """Return the device that a user's word means and log one line about it.

    `device`: "" or None (first GPU if there is one, else CPU), "cpu", "mps", "0", "cuda:1", or "0,1" (the first is returned,
    and `batch_size` must divide by their number). `newline` ends the log line with an empty one.
    Raises ValueError for a device that this machine does not have.
    """
    word = "" if device is None else str(device).strip().lower()
    if word == "cpu" or (not word and not torch.cuda.is_available()):
        chosen, label = torch.device("cpu"), "CPU"
    elif word == "mps":
        chosen, label = _metal_device(), "MPS"
    else:
        indices = _gpu_indices(word, batch_size)
        chosen = torch.device("cuda", indices[0])
        label = ", ".join(_gpu_label(i) for i in indices)
    versions = f"Python-{platform.python_version()} torch-{torch.__version__}"
    LOGGER.info("YOLOv5 🚀 %s %s%s", versions, label, "\n" if newline else "")
    return chosen


def _metal_device() -> torch.device:
    """Return Apple's GPU; ValueError where there is none."""
    if not torch.backends.mps.is_available():
        raise ValueError("device 'mps' needs an Apple GPU, which this machine does not have: use --device cpu")
    return torch.device("mps")


def _gpu_indices(word: str, batch_size: int) -> list[int]:
    """Return the GPU numbers in "", "cuda", "cuda:1" or "0,1", each checked against this machine."""
    numbers = word.replace("cuda:", "").replace("cuda", "") or "0"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ", ".join(["cpu", *map(str, range(count))])
    parts = [part.strip() for part in numbers.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) < count for part in parts):
        raise ValueError(f"device '{word}' is not on this machine: choose --device from {allowed}")
    if batch_size > 0 and batch_size % len(parts):
        raise ValueError(f"batch size {batch_size} does not divide by {len(parts)} GPUs: choose a multiple of it")
    return [int(part) for part in parts]


def _gpu_label(index: int) -> str:
    """Return e.g. "CUDA:0 (NVIDIA H200, 143771MiB)"."""
    properties = torch.cuda.get_device_properties(index)
    return f"CUDA:{index} ({properties.name}, {properties.total_memory / 2**20:.0f}MiB)"


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
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch on all devices; `deterministic` also chooses repeatable GPU convolutions."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
