"""Missing pixels as what their neighbours let one expect, solved in a few sweeps over grids of falling size.

Each missing pixel is the weighted mean of the eight around it, missing ones among them: the linear imputation of ROAD,
https://arxiv.org/abs/2202.00449. Its system has an equation for each missing pixel, and is another one for every mask: no
factorisation can be kept. Conjugate gradients solve it. Each of their steps is prepared by a multigrid cycle over grids with
half the cells each way, and what is left of the mask on them, so that a larger picture takes hardly more steps.

Multigrid: https://doi.org/10.1137/1.9780898719505; steps: https://doi.org/10.1137/S1064827597323415.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# How much each of the eight neighbours weighs; of those outside of the picture there is nothing, and the others weigh more.
WEIGHTS = np.float32([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
# A grid with so few cells is solved at once.
FEW_CELLS = 200
# How much of a step of Jacobi's is taken: it smooths best below 1.
DAMPING = np.float32(0.85)
# The largest change, in values of 0..1, after which there is nothing left to improve, and steps at most.
CLOSE_ENOUGH, MOST_STEPS = 1e-5, 60
# Divisors are no smaller than this.
TINY = 1e-30


def filled_from_neighbours(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a picture, float32 (h, w, 3) in 0..1, whose pixels that are not known, bool (h, w), follow their neighbours.

    The others stay. A picture without a known pixel becomes its mean.
    """
    if known.all():
        return picture.copy()
    if not known.any():
        return np.broadcast_to(picture.mean(axis=(0, 1)), picture.shape).copy()
    kept = in_twos(picture * known[..., None])
    system = System.of(in_twos(np.float32(~known)), neighbours(in_twos(np.float32(known))))
    solved = solution(system, neighbours(kept) * system.three(system.missing))
    height, width = known.shape
    return np.where(known[..., None], picture, solved[:height, :width])


def in_twos(array: np.ndarray) -> np.ndarray:
    """Return an array (h, w, ...) with zeros at two sides, so that it can be halved until few cells are left."""
    sides, step = array.shape[:2], 1
    while np.prod([-(-side // step) for side in sides]) > FEW_CELLS:
        step *= 2
    margins = [(0, -side % step) for side in sides] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, margins)


def neighbours(array: np.ndarray) -> np.ndarray:
    """Return the weighted sum of the eight cells around each of an array (h, w) or (h, w, 3), zero beyond its edge."""
    import cv2

    return cv2.filter2D(array, -1, WEIGHTS, borderType=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class System:
    """The system on one grid: of all that is missing, a cell's value times its weight less the sum of its neighbours'.

    missing  1 where a cell is one of the unknowns and 0 elsewhere, float32 (h, w)
    weight   what stands on the diagonal: of all neighbours, known or missing, float32 (h, w), zero where nothing is missing
    """

    missing: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, missing: np.ndarray, bound: np.ndarray) -> System:
        """Return the system of the missing cells (h, w); bound: the weight (h, w) of what is known beside each of them."""
        return cls(missing, (neighbours(missing) + bound) * missing)

    @staticmethod
    def three(array: np.ndarray) -> np.ndarray:
        """Return an array (h, w) for three colours: (h, w, 3)."""
        return np.repeat(array[..., None], 3, axis=2)

    @cached_property
    def mask(self) -> np.ndarray:
        """`missing` for three colours."""
        return self.three(self.missing)

    @cached_property
    def diagonal(self) -> np.ndarray:
        """`weight` for three colours."""
        return self.three(self.weight)

    @cached_property
    def step(self) -> np.ndarray:
        """How far a step of Jacobi's goes along what is left, for three colours."""
        inverse = np.divide(DAMPING, self.weight, out=np.zeros_like(self.weight), where=self.weight > 0)
        return self.three(inverse)

    @cached_property
    def coarser(self) -> System | None:
        """The system on cells twice as wide; None where there are so few that they are solved at once."""
        import cv2

        if self.missing.size <= FEW_CELLS:
            return None
        height, width = self.missing.shape
        half = width // 2, height // 2
        bound = self.weight - neighbours(self.missing) * self.missing
        missing = np.float32(cv2.resize(self.missing, half, interpolation=cv2.INTER_AREA) > 0)
        return System.of(missing, 4 * cv2.resize(bound, half, interpolation=cv2.INTER_AREA))

    @cached_property
    def inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the missing cells, and the inverse of their system, float32."""
        height, width = self.missing.shape
        columns = np.eye(height * width, dtype=np.float32).reshape(-1, height, width)
        system = np.array([self.weight * column - neighbours(column) * self.missing for column in columns])
        (cells,) = np.nonzero(self.missing.ravel())
        system = system.reshape(len(system), -1)[np.ix_(cells, cells)].T
        return cells, np.float32(np.linalg.inv(np.float64(system)))

    def times(self, values: np.ndarray) -> np.ndarray:
        """Return the left side of the system for values (h, w, 3) that are zero where nothing is missing."""
        return self.diagonal * values - neighbours(values) * self.mask

    def cycle(self, right: np.ndarray) -> np.ndarray:
        """Return about what solves the system for a right side (h, w, 3): a step, the rest on the coarser grid, a step."""
        import cv2

        if self.coarser is None:
            cells, inverse = self.inverse
            values = np.zeros_like(right)
            values.reshape(-1, 3)[cells] = inverse @ right.reshape(-1, 3)[cells]
            return values
        height, width = self.missing.shape
        values = self.step * right
        left = right - self.times(values)
        half = np.float32(4) * cv2.resize(left, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        values += cv2.resize(self.coarser.cycle(half), (width, height), interpolation=cv2.INTER_LINEAR) * self.mask
        values += self.step * (right - self.times(values))
        return values


def solution(system: System, right: np.ndarray) -> np.ndarray:
    """Return what solves a system for a right side (h, w, 3): flexible conjugate gradients, a cycle for each step.

    The three colours are one system with three times as many equations.
    """
    values = system.cycle(right)
    left = right - system.times(values)
    direction, before, product = np.zeros_like(right), np.zeros_like(right), np.inf
    for _ in range(MOST_STEPS):
        prepared = system.cycle(left)
        direction = prepared + np.float32(dot(prepared, left - before) / max(product, TINY)) * direction
        through, product = system.times(direction), dot(prepared, left)
        length = np.float32(product / max(dot(direction, through), TINY))
        values += length * direction
        before, left = left, left - length * through
        if length * np.abs(direction).max() < CLOSE_ENOUGH:
            break
    return values


def dot(some: np.ndarray, others: np.ndarray) -> float:
    """Return the sum of the products of two arrays."""
    return float(np.vdot(some, others))
