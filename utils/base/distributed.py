"""Several processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

# Loading a large data set takes the first process longer than the usual limit of some backends.
TIMEOUT_SECONDS = 3 * 3600


def local_rank() -> int:
    """Return the number of this process on its machine, -1 when it is alone."""
    return int(os.environ.get("LOCAL_RANK", -1))


def process_rank() -> int:
    """Return the number of this process among all, -1 when it is alone."""
    return int(os.environ.get("RANK", -1))


def process_index() -> int:
    """Return the number of this process among all, 0 when it is alone."""
    return max(process_rank(), 0)


def process_count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process logs, validates and saves."""
    return process_index() == 0


@contextmanager
def process_group(*, use_cuda: bool) -> Iterator[None]:
    """Join the other processes inside the block: with NCCL on GPUs, with gloo on CPUs; alone, do nothing."""
    if process_rank() == -1:
        yield
        return
    backend = "nccl" if use_cuda and torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT_SECONDS))
    try:
        yield
    finally:
        # A wrapped model in some reference cycle would outlive the group, and its threads break the process at exit.
        gc.collect()
        dist.destroy_process_group()


@contextmanager
def rank_zero_first(rank: int) -> Iterator[None]:
    """Let the first process through the block before the others, so that these find what it fetched or wrote."""
    together = rank != -1 and dist.is_initialized()
    if together and rank != 0:
        dist.barrier()
    try:
        yield
    finally:
        # Also after an error, which the others run into themselves instead of waiting for ever.
        if together and rank == 0:
            dist.barrier()


def agree(value: bool) -> bool:
    """Return what the first process says."""
    if not dist.is_initialized():
        return value
    said = [value if is_main() else None]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def wait_for_all() -> None:
    """Return when every process has come here; the group must not lose one while others still need it."""
    if dist.is_initialized():
        dist.barrier()
