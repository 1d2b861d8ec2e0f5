"""The summary of an evaluation as Markdown."""

from pathlib import Path

import pandas as pd

from explainer.evaluation.figures import DECISIVE, FIGURES, GROUPS
from explainer.evaluation.options import Evaluation
from explainer.evaluation.summary import ALL, BASELINES
from explainer.settings import as_tuple

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
LOSES = "†"


def markdown(summary: pd.DataFrame, about: str) -> str:
    """Return the tables of a summary, one for each group of figures, and what the figures mean; `about` stands on top."""
    whole = summary[summary.split == ALL]
    known = [name for name in FIGURES if name in summary.columns and whole[name].notna().any()]
    parts = [f"# Evaluation of explanations\n\n{about}"]
    for group in GROUPS:
        names = [name for name in known if FIGURES[name].group == group]
        if names:
            parts.append(f"## {group}\n\n{group_table(whole, names)}")
    parts.append(f"## {FIGURES[DECISIVE].title}, by size and by confidence\n\n{split_table(summary)}")
    parts.append("## What the figures mean\n\n" + meanings(known))
    return "\n\n".join(parts) + "\n"


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
    lines = [[*named(row), *(with_interval(row, name) for name in names)] for _, row in whole.iterrows()]
    return table_text(heading, lines)


def split_table(summary: pd.DataFrame) -> str:
    """Return the decisive figure of each contender for each split, in the order of all detections."""
    whole, order = summary[summary.split == ALL], list(dict.fromkeys(summary.split))
    sizes = {split: int(some.detections.max()) for split, some in summary.groupby("split", sort=False)}
    cells = {(row.split, row.method, row.layer): number(row[DECISIVE], DECISIVE) for _, row in summary.iterrows()}
    heading = ["method", "layer", *(f"{split} ({sizes[split]})" for split in order)]
    lines = [
        [*named(row), *(cells.get((split, row.method, row.layer), "") for split in order)]
        for _, row in whole.iterrows()
    ]
    return table_text(heading, lines)


def meanings(names: list[str]) -> str:
    """Return what each figure means, and the mark of a contender that loses to a baseline."""
    lines = [f"- {FIGURES[name].title}{ARROWS[FIGURES[name].better]}: {FIGURES[name].about}" for name in names]
    baselines = " or ".join(method for method, _ in BASELINES)
    lines.append(f"- {LOSES}: loses to {baselines} in {FIGURES[DECISIVE].title}")
    lines.append("- in brackets: 95 % confidence interval of the mean, by a bootstrap over images")
    return "\n".join(lines)


def named(row: pd.Series) -> list[str]:
    """Return the first cells of a contender's line; baselines are in italics."""
    method = f"*{row.method}*" if (row.method, row.layer) in BASELINES else row.method
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
