"""How much sooner are the pixels that ROAD takes away imputed than by the library, and how far apart are the values?

    python benchmarks/road_speed.py [--image photo.jpg]

A picture loses what lies around its middle, and what lies at its border, in four shares, on the grid that `--road` solves on.
Each mask is filled by `explainer.maps.imputation` and by pytorch_grad_cam's NoisyLinearImputer without noise, in turns in
one process; the ratio is that of the sums of the medians. Without a photograph a smooth pattern is taken.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2
import numpy as np
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explainer.evaluation.faithfulness import GRID_SIDE, SHARES  # noqa: E402
from explainer.maps.imputation import filled_from_neighbours  # noqa: E402

BUDGET = 5


def pattern(height: int, width: int) -> np.ndarray:
    """Return a picture, float32 (height, width, 3) in 0..1, of waves."""
    y, x = np.mgrid[:height, :width]
    return np.float32(np.stack([np.sin(y / 9 + x / (11 + 7 * c)) for c in range(3)], axis=2) / 2 + 0.5)


def on_grid(path: str | None) -> np.ndarray:
    """Return a photograph at the size that ROAD solves at, or a pattern."""
    if path is None:
        return pattern(GRID_SIDE * 3 // 4, GRID_SIDE)
    image = cv2.imread(path)
    scale = GRID_SIDE / max(image.shape[:2])
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    return np.float32(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1]) / 255


def masks(height: int, width: int):
    """Yield what is known, bool (height, width), for each share of the pixels: first all but the middle, then the middle."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2) + np.random.default_rng(0).normal(0, 3, (height, width))
    for share in SHARES:
        yield distance > np.quantile(distance, share)
        yield distance < np.quantile(distance, 1 - share)


def by_library(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the picture filled by the library, without noise."""
    colours = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    return NoisyLinearImputer(noise=0)(colours, torch.from_numpy(np.float32(known))).numpy().transpose(1, 2, 0)


def timed(fill, picture: np.ndarray, known: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the seconds that a mask takes, and the picture."""
    started = perf_counter()
    filled = fill(picture, known)
    return perf_counter() - started, filled


def main() -> None:
    """Print both times for a mask, their ratio, and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a photograph to take pixels from")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds")
    arguments = parser.parse_args()
    picture, apart, sums = on_grid(arguments.image), 0.0, [0.0, 0.0]
    for known in masks(*picture.shape[:2]):
        times = ([], [])
        for _ in range(arguments.rounds):
            (first, ours), (second, theirs) = (
                timed(fill, picture, known) for fill in (filled_from_neighbours, by_library)
            )
            times[0].append(first)
            times[1].append(second)
            apart = max(apart, float(np.abs(ours - theirs).max()))
        sums = [total + median(found) for total, found in zip(sums, times, strict=True)]
    ours, theirs = (1e3 * total / (2 * len(SHARES)) for total in sums)
    print(
        f"{picture.shape[1]}x{picture.shape[0]}: {ours:.1f} ms for a mask, {theirs:.1f} ms by the library: "
        f"{theirs / ours:.1f} times as fast (budget {BUDGET}), values at most {apart:.1e} apart"
    )


if __name__ == "__main__":
    main()
