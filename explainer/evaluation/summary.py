"""The figures of an evaluation: one table of what they mean, and from a row for each detection to a row for each contender.

The table `FIGURES` drives the columns of the results, the tables and the plots; a summary has means, their intervals, and who
loses to a baseline, and can be told in Markdown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from explainer.evaluation.options import BASELINES_OF_ALL, Evaluation
from explainer.maps.measures import bootstrap_interval
from explainer.settings import as_tuple

# What a method must not lose to: the strongest of them counts.
MUST_BEAT = BASELINES_OF_ALL
# COCO's: areas in pixels of the image; here of the box.
SMALL, LARGE = 32**2, 96**2
ALL_DETECTIONS = "all"
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
LOSES = "†"


@dataclass(frozen=True)
class Figure:
    """One figure of a detection's heatmap.

    group   which of `GROUPS` it belongs to
    title   how tables and plots call it
    better  "higher", "lower", or "" where neither is better
    about   what it says
    digits  after the point
    """

    group: str
    title: str
    better: str
    about: str
    digits: int = 3


FAITH, PLACE, SANITY, STEADY, COST = GROUPS = (
    "Does the score follow the heatmap?",
    "Where does it lie?",
    "Does it depend on what was learnt?",
    "Does it stay when the picture hardly changes?",
    "What does it cost?",
)
RANDOMISED = ("head", "neck", "all")

FIGURES = {
    "overall": Figure(FAITH, "overall", "higher", "insertion less deletion"),
    "deletion": Figure(
        FAITH, "deletion", "lower", "score left while the hottest pixels are taken away first, on average"
    ),
    "insertion": Figure(
        FAITH, "insertion", "higher", "score reached while the hottest pixels are put back first, on average"
    ),
    "drop": Figure(FAITH, "drop", "lower", "score lost when only what the heatmap shows is left"),
    "increase": Figure(FAITH, "increase", "higher", "share of detections whose score rises when only that is left"),
    "road": Figure(
        FAITH, "ROAD", "higher", "score without the coldest less score without the hottest pixels, halved; imputed"
    ),
    "energy_in_box": Figure(PLACE, "EBPG", "higher", "share of the heatmap inside the detected box"),
    "peak_in_box": Figure(PLACE, "PG", "higher", "share of detections whose peak lies inside the detected box"),
    "enrichment": Figure(PLACE, "enrichment", "higher", "energy in the box over the box's share of the image", 1),
    "energy_in_label": Figure(
        PLACE, "EBPG label", "higher", "share of the heatmap on the labelled object: outline, or box"
    ),
    "peak_in_label": Figure(PLACE, "PG label", "higher", "share of detections whose peak lies on the labelled object"),
    "on_others": Figure(
        PLACE, "ODI", "lower", "of what lies on labelled objects, the share that lies on other ones alone"
    ),
    "compactness": Figure(PLACE, "compactness", "lower", "spread around the peak, in half diagonals of the box"),
    "sparseness": Figure(PLACE, "sparseness", "", "Gini index: 0 for an even spread, 1 for a dot"),
    "blank": Figure(PLACE, "blank", "lower", "share of detections whose heatmap is empty"),
    **{
        f"{kind}_{stage}": Figure(
            SANITY,
            f"{title} {stage}",
            "lower",
            f"{title} of the heatmaps before and after the weights are shuffled: {stage}",
        )
        for kind, title in (("spearman", "Spearman"), ("ssim", "SSIM"))
        for stage in RANDOMISED
    },
    "spearman_class": Figure(
        SANITY, "Spearman class", "lower", "of the heatmaps for the first and the second class of a box"
    ),
    "ssim_class": Figure(SANITY, "SSIM class", "lower", "of the heatmaps for the first and the second class of a box"),
    "max_sensitivity": Figure(
        STEADY,
        "max sensitivity",
        "lower",
        "how far the map moves under noise of a few levels, at most, over its length",
    ),
    "mean_sensitivity": Figure(STEADY, "mean sensitivity", "lower", "the same on average"),
    "repeat_flip": Figure(
        STEADY, "repeat flip", "higher", "correlation with the map of the mirrored picture, mirrored back"
    ),
    "repeat_shift": Figure(
        STEADY,
        "repeat shift",
        "higher",
        "correlation with the maps of the picture shifted by a few pixels, shifted back",
    ),
    "milliseconds": Figure(COST, "ms", "lower", "for the explanation, per detection", 1),
    "passes": Figure(COST, "passes", "lower", "forward passes for the explanation, by multiply-adds, per detection", 2),
    "passes_per_image": Figure(COST, "passes per image", "lower", "the same for all detections of an image", 2),
    "memory": Figure(COST, "MiB", "lower", "at the explanation's peak, above what was in use before", 1),
}
# The one in which a method must not lose to a baseline.
DECISIVE = "overall"


def splits(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the rows of all detections, of those of each size, and of each third by confidence."""
    yield ALL_DETECTIONS, rows
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
    """Return the baselines whose figure is not lower than that of a row, the strongest first; "" for a baseline itself."""
    if (row.method, row.layer) in MUST_BEAT:
        return ""
    baselines = table[[pair in MUST_BEAT for pair in zip(table.method, table.layer, strict=True)]]
    ahead = baselines[baselines[DECISIVE] >= row[DECISIVE]]
    return " ".join(ahead.sort_values(DECISIVE, ascending=False, kind="stable").method)


def strongest_baseline(summary: pd.DataFrame) -> tuple[str, str]:
    """Return the method and the layer of the baseline with the highest figure over all detections."""
    whole = summary[summary.split == ALL_DETECTIONS].sort_values(DECISIVE, ascending=False, kind="stable")
    return next(pair for pair in zip(whole.method, whole.layer, strict=True) if pair in MUST_BEAT)


def markdown(summary: pd.DataFrame, about: str) -> str:
    """Return the tables of a summary, one for each group of figures, and what the figures mean; `about` stands on top."""
    whole = summary[summary.split == ALL_DETECTIONS]
    known = known_figures(summary)
    parts = [f"# Evaluation of explanations\n\n{about}"]
    for group in GROUPS:
        names = [name for name in known if FIGURES[name].group == group]
        if names:
            parts.append(f"## {group}\n\n{group_table(whole, names)}")
    parts.append(f"## {FIGURES[DECISIVE].title}, by size and by confidence\n\n{split_table(summary)}")
    parts.append("## What the figures mean\n\n" + "\n".join(f"- {line}" for line in meanings(known)))
    return "\n\n".join(parts) + "\n"


def known_figures(summary: pd.DataFrame) -> list[str]:
    """Return the names of the figures that are known of some contender."""
    whole = summary[summary.split == ALL_DETECTIONS]
    return [name for name in FIGURES if name in summary.columns and whole[name].notna().any()]


def tables_of(summary: pd.DataFrame) -> Iterator[tuple[str, list, list[list]]]:
    """Yield title, columns and rows of the tables for a page: one for each group of figures, and one by split."""
    from explainer.pictures.report import Column

    whole, known = summary[summary.split == ALL_DETECTIONS], known_figures(summary)
    first = [Column("method", "method"), Column("layer", "layer"), Column("loses_to", f"{LOSES} loses to")]
    leading = whole[["method", "layer", "loses_to"]].values.tolist()
    for group in GROUPS:
        names = [name for name in known if FIGURES[name].group == group]
        columns = [
            Column(name, figure.title + ARROWS[figure.better], "mean", figure.digits, figure.about)
            for name in names
            for figure in (FIGURES[name],)
        ]
        figures = [
            [[row[name], row[f"{name}_low"], row[f"{name}_high"]] for name in names] for _, row in whole.iterrows()
        ]
        if names:
            yield group, first + columns, [left + right for left, right in zip(leading, figures, strict=True)]
    order, digits = list(dict.fromkeys(summary.split)), FIGURES[DECISIVE].digits
    cells = {(row.split, row.method, row.layer): row[DECISIVE] for _, row in summary.iterrows()}
    rows = [[*left, *(cells.get((split, *left[:2])) for split in order)] for left in leading]
    title = f"{FIGURES[DECISIVE].title}, by size and by confidence"
    yield title, first + [Column(split, split, "number", digits) for split in order], rows


def about(rows: pd.DataFrame, options: Evaluation) -> str:
    """Return what was evaluated, and how, in a few sentences."""
    weights = " ".join(Path(entry).name for entry in as_tuple(options.weights))
    items = " ".join(as_tuple(options.backprop_array)).replace("auto", "each method's own")
    detections = len(rows.drop_duplicates(["image", "row"]))
    return (
        f"{weights} on {Path(options.data).name}: {detections} detections above confidence {options.conf_thres} "
        f"of {rows.image.nunique()} images, at most {options.max_det_per_image} of each. "
        f"Deletion to {options.deletion}, insertion from a blur, {options.steps} steps"
        f"{' in half precision' if options.half else ''}, seed {options.seed}. "
        f"Explained item: {items}. The padding is never counted."
    )


def group_table(whole: pd.DataFrame, names: list[str]) -> str:
    """Return mean and interval of some figures, a line for each contender."""
    heading = ["method", "layer", *(FIGURES[name].title + ARROWS[FIGURES[name].better] for name in names)]
    lines = [[*first_cells(row), *(with_interval(row, name) for name in names)] for _, row in whole.iterrows()]
    return table_text(heading, lines)


def split_table(summary: pd.DataFrame) -> str:
    """Return the decisive figure of each contender for each split, in the order of all detections."""
    whole, order = summary[summary.split == ALL_DETECTIONS], list(dict.fromkeys(summary.split))
    sizes = {split: int(some.detections.max()) for split, some in summary.groupby("split", sort=False)}
    cells = {(row.split, row.method, row.layer): number(row[DECISIVE], DECISIVE) for _, row in summary.iterrows()}
    heading = ["method", "layer", *(f"{split} ({sizes[split]})" for split in order)]
    lines = [
        [*first_cells(row), *(cells.get((split, row.method, row.layer), "") for split in order)]
        for _, row in whole.iterrows()
    ]
    return table_text(heading, lines)


def meanings(names: list[str]) -> list[str]:
    """Return what each figure means, and the mark of a contender that loses to a baseline, a line each."""
    lines = [f"{FIGURES[name].title}{ARROWS[FIGURES[name].better]}: {FIGURES[name].about}" for name in names]
    baselines = ", ".join(method for method, _ in MUST_BEAT)
    lines.append(f"{LOSES}: loses to the strongest of {baselines}, which explain nothing, in {FIGURES[DECISIVE].title}")
    lines.append("in brackets: 95 % confidence interval of the mean, by a bootstrap over images")
    return lines


def first_cells(row: pd.Series) -> list[str]:
    """Return the first cells of a contender's line; baselines are in italics."""
    method = f"*{row.method}*" if (row.method, row.layer) in MUST_BEAT else row.method
    return [method + (f" {LOSES}" if row.loses_to else ""), row.layer]


def with_interval(row: pd.Series, name: str) -> str:
    """Return a figure and its interval; "" where it is not known."""
    if pd.isna(row[name]):
        return ""
    low, high = (number(row[f"{name}_{end}"], name) for end in ("low", "high"))
    return f"{number(row[name], name)} [{low}, {high}]"


def number(value: float, name: str) -> str:
    """Return a value with as many digits as its figure needs."""
    digits = FIGURES[name].digits
    # Adding zero turns a rounded -0.0 into 0.0.
    return "" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def table_text(heading: list[str], lines: list[list[str]]) -> str:
    """Return a table in Markdown; numbers stand at the right."""
    rule = ["---"] * 2 + ["--:"] * (len(heading) - 2)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *lines))
