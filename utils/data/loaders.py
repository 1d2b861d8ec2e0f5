"""Batches of a data set, in an order that the seed, the epoch and the process decide."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from utils.base.distributed import process_count, process_index, rank_zero_first
from utils.base.logger import LOGGER
from utils.data.training_data import LoadImagesAndLabels


class EpochSampler(Sampler):
    """Gives (index, epoch) of every item in turn, each process its own share, all of them equally many.

    Attributes:
        epoch: set it before each epoch; it decides the order, and what augmentation does.
        weights: (n,) how often each item is to be drawn in comparison; None for each exactly once.
    """

    def __init__(self, n: int, batch_size: int, *, shuffle: bool, seed: int = 0, rank: int = -1) -> None:
        """Sample from `n` items; in their own order, without `shuffle`, whole batches go to the processes in turn."""
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.share, self.shares = (rank, process_count()) if rank != -1 else (0, 1)
        self.epoch = 0
        self.weights: np.ndarray | None = None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(int(index), self.epoch) for index in self._indices()])

    def __len__(self) -> int:
        return len(self._indices())

    def _indices(self) -> np.ndarray:
        if not self.shuffle:
            return self._whole_batches()
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            order = rng.permutation(self.n)
        else:
            order = rng.choice(self.n, self.n, p=self.weights / self.weights.sum())
        # Some come twice rather than that a process runs short.
        return np.resize(order, math.ceil(self.n / self.shares) * self.shares)[self.share :: self.shares]

    def _whole_batches(self) -> np.ndarray:
        batches = [
            np.arange(start, min(start + self.batch_size, self.n)) for start in range(0, self.n, self.batch_size)
        ]
        count = math.ceil(len(batches) / self.shares) * self.shares
        return np.concatenate([batches[i % len(batches)] for i in range(self.share, count, self.shares)])


def create_dataloader(
    path: str | list[str],
    imgsz: int,
    batch_size: int,
    stride: int,
    single_cls: bool = False,
    hyp: Mapping[str, float] | None = None,
    augment: bool = False,
    cache: str | None = None,
    pad: float = 0.0,
    rect: bool = False,
    rank: int = -1,
    workers: int = 8,
    image_weights: bool = False,
    quad: bool = False,
    prefix: str = "",
    shuffle: bool = False,
    seed: int = 0,
) -> tuple[DataLoader, LoadImagesAndLabels]:
    """Return a loader of batches (images uint8 (B, 3, h, w), targets (n, 6), paths, shapes), and its data set.

    `rank` is this process among those that train together, -1 alone; `workers` the most processes that load. The loader's
    `sampler` is an `EpochSampler`, whose weights `image_weights` needs set. The rest is told at `LoadImagesAndLabels`.
    """
    if rect and shuffle:
        LOGGER.warning("WARNING: --rect sorts images by their proportions, so they are not shuffled")
        shuffle = False
    with rank_zero_first(rank):
        dataset = LoadImagesAndLabels(
            path,
            imgsz,
            batch_size,
            augment,
            hyp,
            rect,
            cache_images=cache,
            single_cls=single_cls,
            stride=stride,
            pad=pad,
            prefix=prefix,
            seed=seed,
        )
    batch_size = min(batch_size, len(dataset))
    count = min(
        (os.cpu_count() or 1) // max(torch.cuda.device_count(), 1), batch_size if batch_size > 1 else 0, workers
    )
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=EpochSampler(len(dataset), batch_size, shuffle=shuffle or image_weights, seed=seed, rank=rank),
        num_workers=count,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=dataset.collate_fn4 if quad else dataset.collate_fn,
        generator=torch.Generator().manual_seed(seed + process_index()),
    )
    return loader, dataset
