"""Make what is random repeatable."""

from __future__ import annotations

import random

import numpy as np
import torch


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch on all devices; `deterministic` also chooses repeatable GPU convolutions."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
