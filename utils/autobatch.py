"""Find the largest batch that fits into a GPU's memory."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from utils.base.logger import LOGGER

DEFAULT_BATCH = 16
TRIED = (1, 2, 4, 8, 16)
# The share of the free memory that is taken; training needs a little more than the passes that are measured.
SHARE = 0.8


def find_batch_size(model: nn.Module, imgsz: int, device: torch.device) -> int:
    """Return how many images (3, imgsz, imgsz) of a batch fit onto `device`, by passes of small ones; 16 on a CPU."""
    if device.type != "cuda":
        LOGGER.info(f"AutoBatch: measuring needs a GPU, taking a batch of {DEFAULT_BATCH}")
        return DEFAULT_BATCH
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    trial = copy.deepcopy(model).train()
    used = [_bytes_used(trial, batch, imgsz, device) for batch in TRIED]
    slope, start = np.polyfit(TRIED, used, deg=1)
    batch = int((free * SHARE - start) / slope) if slope > 0 else DEFAULT_BATCH
    torch.cuda.empty_cache()
    LOGGER.info(f"AutoBatch: {batch} images of {imgsz} pixels take {SHARE:.0%} of {free / 2**30:.1f} GiB free")
    return max(batch, 1)


def _bytes_used(model: nn.Module, batch: int, imgsz: int, device: torch.device) -> int:
    """Return the most memory that a pass forward and backward took."""
    torch.cuda.reset_peak_memory_stats(device)
    images = torch.zeros(batch, 3, imgsz, imgsz, device=device)
    with torch.autocast(device.type):
        maps = model(images)
    sum(level.float().mean() for level in maps).backward()
    model.zero_grad()
    return torch.cuda.max_memory_allocated(device)
