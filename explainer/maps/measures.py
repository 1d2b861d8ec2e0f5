"""How well a heatmap explains, in figures: pure functions on arrays.

A heatmap is a float array (height, width) without negative values, a region the part of it that belongs to an object: a
boolean mask of the same shape, or rows and columns as two slices. A figure that is not defined is None: that of an empty
heatmap, or of an object without pixels.
"""

from collections.abc import Sequence

import numpy as np

from explainer.maps.heatmaps import peak

Region = np.ndarray | tuple[slice, slice]

# Structural similarity, as Wang et al. set it: standard deviation and half the side of the window in pixels, and two small
# constants.
WINDOW_SIGMA, HALF_WINDOW, STABLE_MEAN, STABLE_VARIANCE = 1.5, 5, 0.01**2, 0.03**2


def area_under(curve: Sequence[float]) -> float:
    """Return the area under values at equal distances over 0..1, by trapezoids.

    Of the score against the share of pixels deleted or inserted: the deletion and insertion figures of RISE,
    https://arxiv.org/abs/1806.07421.
    """
    values = np.asarray(curve, dtype=np.float64)
    return float((values[1:] + values[:-1]).mean() / 2)


def share_inside(heatmap: np.ndarray, region: Region) -> float | None:
    """Return the share of the heatmap's sum that lies inside a region, 0..1.

    The energy-based pointing game of Score-CAM, https://arxiv.org/abs/1910.01279.
    """
    total = float(heatmap.sum(dtype=np.float64))
    return float(heatmap[region].sum(dtype=np.float64)) / total if total > 0 else None


def peak_inside(heatmap: np.ndarray, region: Region) -> bool | None:
    """Return whether the highest value lies inside a region: one round of the pointing game, https://arxiv.org/abs/1608.00507."""
    highest = peak(heatmap)
    if highest is None:
        return None
    x, y = highest
    if isinstance(region, tuple):
        rows, columns = region
        return rows.start <= y < rows.stop and columns.start <= x < columns.stop
    return bool(region[y, x])


def enrichment(heatmap: np.ndarray, region: Region) -> float | None:
    """Return how many times more of the sum lies inside a region than if it were spread evenly: 1 is chance."""
    share, area = share_inside(heatmap, region), heatmap[region].size
    return None if share is None or not area else share * heatmap.size / area


def object_discrimination(heatmap: np.ndarray, own: Region, others: Sequence[Region]) -> float | None:
    """Return how much of what lies on objects lies on others than the explained one, 0..1: lower is better.

    The object discrimination index of ODAM, https://arxiv.org/abs/2304.06354: the others are one region, their union without
    what the explained one covers itself, so that no pixel counts twice. None where there is no other object.
    """
    elsewhere = np.zeros(heatmap.shape, bool)
    for region in others:
        elsewhere[region] = True
    elsewhere[own] = False
    on_own, on_others = (float(heatmap[region].sum(dtype=np.float64)) for region in (own, elsewhere))
    return on_others / (on_own + on_others) if len(others) and on_own + on_others > 0 else None


def compactness(heatmap: np.ndarray, xyxy: np.ndarray) -> float | None:
    """Return how far the heatmap spreads around its peak, in half diagonals of a box in pixels: lower is tighter.

    The root of the mean squared distance, weighted with the heatmap, https://arxiv.org/abs/2304.06354.
    """
    highest = peak(heatmap)
    x1, y1, x2, y2 = np.asarray(xyxy, dtype=np.float64)
    half_diagonal = np.hypot(x2 - x1, y2 - y1) / 2
    if highest is None or not half_diagonal > 0:
        return None
    columns, rows = (heatmap.sum(axis=axis, dtype=np.float64) for axis in (0, 1))
    squared = sum(
        float(sums @ (np.arange(len(sums)) - centre) ** 2)
        for sums, centre in zip((columns, rows), highest, strict=True)
    )
    return float(np.sqrt(squared / columns.sum()) / half_diagonal)


def gini(heatmap: np.ndarray) -> float | None:
    """Return the Gini index of the values: 0 where all are equal, near 1 where few hold everything, https://arxiv.org/abs/1810.06583."""
    values = np.sort(heatmap, axis=None).astype(np.float64)
    total, count = values.sum(), values.size
    if not total > 0:
        return None
    return float(2 * (values @ np.arange(1, count + 1)) / (count * total) - (count + 1) / count)


def confidence_drop(value: float) -> float:
    """Return how much of the score, 1 for the whole image, is lost when only the evidence is shown: 0..1, lower is better.

    The average drop of Grad-CAM++, https://arxiv.org/abs/1710.11063.
    """
    return max(0.0, 1.0 - value)


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the rank correlation of two maps, -1..1; None where one of them has no contrast."""
    ranks = np.stack([average_ranks(first), average_ranks(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=1))
    return float(ranks[0] @ ranks[1] / lengths.prod()) if lengths.all() else None


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value (float64, flattened), from 0; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[which.ravel()]


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean structural similarity of two maps with values in 0..1, -1..1, https://doi.org/10.1109/TIP.2003.819861.

    The mean is taken where the window lies inside the maps, as Wang et al. and scikit-image have it; all over an axis that is
    shorter than the window.
    """
    import cv2

    def smooth(array: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(array, (2 * HALF_WINDOW + 1,) * 2, WINDOW_SIGMA)

    a, b = np.float64(first), np.float64(second)
    mean_a, mean_b = smooth(a), smooth(b)
    variance_a, variance_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    closeness = (2 * mean_a * mean_b + STABLE_MEAN) / (mean_a**2 + mean_b**2 + STABLE_MEAN)
    structure = (2 * covariance + STABLE_VARIANCE) / (variance_a + variance_b + STABLE_VARIANCE)
    inside = tuple(
        slice(HALF_WINDOW, side - HALF_WINDOW) if side > 2 * HALF_WINDOW else slice(None) for side in a.shape
    )
    return float((closeness * structure)[inside].mean())


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, *, seed: int, draws: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap confidence interval of the mean of values (N,), drawing whole groups (N,) with replacement.

    Groups are images: detections of one image resemble each other, so drawing them one by one would promise too much.
    """
    _, number = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(number, weights=values), np.bincount(number)
    chosen = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
