"""From a row for each detection to a row for each contender: means, their intervals, and who loses to a baseline."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from explainer.evaluation.contenders import GAUSSIAN
from explainer.evaluation.figures import DECISIVE, FIGURES
from explainer.evaluation.options import RANDOM
from explainer.maps.measures import bootstrap_interval

BASELINES = ((RANDOM, "auto"), (GAUSSIAN, ""))
# COCO's: areas in pixels of the image; here of the box.
SMALL, LARGE = 32**2, 96**2
ALL = "all"


def splits(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the rows of all detections, of those of each size, and of each third by confidence."""
    yield ALL, rows
    area = (rows.x2 - rows.x1) * (rows.y2 - rows.y1)
    for name, inside in {
        "small": area < SMALL,
        "medium": (area >= SMALL) & (area < LARGE),
        "large": area >= LARGE,
    }.items():
        yield name, rows[inside]
    # Each detection counts once, however many contenders there are.
    confidence = rows.drop_duplicates(["image", "row", "class"]).confidence
    edges = [0.0, *np.quantile(confidence, [1 / 3, 2 / 3]), 1.0]
    for low, high in pairwise(edges):
        inside = (rows.confidence > low) & (rows.confidence <= high)
        yield f"confidence {max(low, confidence.min()):.2f}-{min(high, confidence.max()):.2f}", rows[inside]


def summarise(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return, for each split and contender, the mean of each figure with the 95 % interval of a bootstrap over images.

    Columns: split, method, layer, detections, loses_to, then for each figure its name, its name with _low and with _high.
    The best in `overall` come first; a baseline's figure is what others must not lose to.
    """
    parts = []
    for split, some in splits(rows):
        if len(some):
            parts.append(summary_of(some, seed).assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    leading = ["split", "method", "layer", "detections", "loses_to"]
    return table[[*leading, *(column for column in table.columns if column not in leading)]]


def summary_of(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the summary of one split, the best first."""
    by_contender = rows.groupby(["method", "layer"], sort=False)
    table = pd.DataFrame(
        {"method": method, "layer": layer, "detections": len(some)} | means(some, seed)
        for (method, layer), some in by_contender
    )
    table["loses_to"] = [lost_to(row, table) for _, row in table.iterrows()]
    return table.sort_values(DECISIVE, ascending=False, kind="stable", ignore_index=True)


def means(rows: pd.DataFrame, seed: int) -> dict[str, float]:
    """Return mean, lower and upper bound of each figure that is known of some row."""
    found = {}
    for name in FIGURES:
        known = rows[rows[name].notna()]
        if len(known):
            values = known[name].to_numpy(dtype=np.float64)
            low, high = bootstrap_interval(values, known.image.to_numpy(dtype=str), seed=seed)
            found |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    return found


def lost_to(row: pd.Series, table: pd.DataFrame) -> str:
    """Return the names of the baselines whose figure is not lower than that of a row; "" for a baseline itself."""
    if (row.method, row.layer) in BASELINES:
        return ""
    baselines = table[[pair in BASELINES for pair in zip(table.method, table.layer, strict=True)]]
    return " ".join(baselines[baselines[DECISIVE] >= row[DECISIVE]].method)
