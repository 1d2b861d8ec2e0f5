"""What is left of each mask once it was seen: sums, from which the maps of all detections are made at any time."""

from dataclasses import dataclass

import numpy as np
import torch

# Added to the variance of a cell that hardly any mask changes.
LEAST_VARIANCE = 0.01
# Slopes within so many standard errors of zero count as zero.
STANDARD_ERRORS = 2


@dataclass
class Sums:
    """Sums over masks m (h, w) and the scores s (D,) of what they leave of the image, all float64.

    count     the masks
    masks     of m
    squares   of m * m
    scores    of s
    powers    of s * s
    products  of s * m, (D, h, w)
    """

    count: int
    masks: np.ndarray
    squares: np.ndarray
    scores: np.ndarray
    powers: np.ndarray
    products: np.ndarray

    @classmethod
    def zeros(cls, scores: int, size: tuple[int, int]) -> "Sums":
        """Return the sums over no masks (h, w) of that size."""
        return cls(0, np.zeros(size), np.zeros(size), np.zeros(scores), np.zeros(scores), np.zeros((scores, *size)))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def add(self, masks: np.ndarray, scores: np.ndarray) -> None:
        """Add masks (B, h, w) and their scores (B, D), in place."""
        self.count += len(masks)
        self.masks += masks.sum(axis=0, dtype=np.float64)
        self.squares += np.square(masks).sum(axis=0, dtype=np.float64)
        self.scores += scores.sum(axis=0, dtype=np.float64)
        self.powers += np.square(scores, dtype=np.float64).sum(axis=0)
        # By torch: the threads of numpy's matrix product would wait for those that run the network, and cost a pass.
        products = torch.from_numpy(np.float64(scores)).T @ torch.from_numpy(np.float64(masks)).flatten(1)
        self.products += products.view(self.products.shape).numpy()


def mean_kept(sums: Sums, keep: float) -> np.ndarray:
    """Return the maps (D, h, w) of RISE: the mean of s * m, divided by what a mask keeps on average."""
    return sums.products / (sums.count * keep)


def significant_slopes(sums: Sums) -> np.ndarray:
    """Return maps (D, h, w): by how much each score rises, on average, when a cell is kept that was not.

    That is the slope b of a straight line through the scores, cell by cell. Shrunk by its standard error e to
    b * max(0, 1 - (k e / b)^2), it is zero where it cannot be told from noise, and nearly b where it stands out: the
    non-negative garrote, https://doi.org/10.1080/00401706.1995.10484371.
    """
    n = sums.count
    covariance = sums.products / n - (sums.scores / n)[:, None, None] * (sums.masks / n)
    of_mask = sums.squares / n - (sums.masks / n) ** 2 + LEAST_VARIANCE
    of_score = (sums.powers / n - (sums.scores / n) ** 2)[:, None, None]
    slopes = covariance / of_mask
    unexplained = (of_score - slopes * covariance).clip(min=0)
    noise = STANDARD_ERRORS**2 * unexplained / (of_mask * n)
    squares = slopes**2
    return slopes * np.where(squares > noise, 1 - noise / np.where(squares > 0, squares, 1), 0)


def reliability(some: np.ndarray, others: np.ndarray) -> float:
    """Return how reliable the mean of two independent maps (D, h, w) is, at worst over D: 1 without noise, 0 for noise.

    The correlation r of the two as that of maps from twice as many masks, 2 r / (1 + r): the formula of Spearman and
    Brown. Maps without contrast agree.
    """
    centred = [maps.reshape(len(maps), -1) - maps.mean(axis=(1, 2))[:, None] for maps in (some, others)]
    products = (centred[0] * centred[1]).sum(axis=1)
    lengths = np.sqrt(np.prod([np.square(each).sum(axis=1) for each in centred], axis=0))
    correlations = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1.0)
    correlations = correlations.clip(min=0)
    return float(np.min(2 * correlations / (1 + correlations), initial=1.0))
