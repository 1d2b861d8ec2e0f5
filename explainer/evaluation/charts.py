"""Pictures of an evaluation, as RGB arrays, uint8 (H, W, 3): plots, and the best and the worst explanations."""

from collections.abc import Iterator
from math import ceil

import numpy as np
import pandas as pd

from explainer.evaluation.summary import ALL_DETECTIONS, COST, DECISIVE, FIGURES, MUST_BEAT, strongest_baseline
from explainer.files.sources import read_image
from explainer.pictures.sheets import Tile, detection_tile, detection_title, sheet

DOTS_PER_INCH = 110
DELETION, INSERTION, METHOD, BASELINE, BEST = "#c0392b", "#2471a3", "#2471a3", "#a6acaf", "#1e8449"
MIDDLE_HALF = (0.25, 0.75)
# Of the best and of the worst explanations of a contender.
OF_EACH = 4
# Costs beyond this are drawn to a logarithmic scale.
MANY = 50
BETTER = {"higher": "higher is better", "lower": "lower is better", "": ""}


def curve_chart(rows: pd.DataFrame, summary: pd.DataFrame) -> np.ndarray:
    """Return the deletion and insertion curves of each contender: mean, middle half, and dashed the strongest baseline's."""
    from matplotlib.figure import Figure

    order = [(row.method, row.layer) for row in summary[summary.split == ALL_DETECTIONS].itertuples()]
    columns = min(len(order), 4)
    lines = ceil(len(order) / columns)
    figure = Figure(figsize=(3.1 * columns + 0.5, 2.6 * lines + 0.7), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    by_contender = dict(iter(rows.groupby(["method", "layer"], sort=False)))
    strongest = strongest_baseline(summary)
    for panel, pair in zip(panels, order, strict=False):
        for column, colour in (("deletion_curve", DELETION), ("insertion_curve", INSERTION)):
            draw_curve(panel, curves_of(by_contender[pair], column), colour, column.removesuffix("_curve"))
            reference = curves_of(by_contender[strongest], column).mean(axis=0)
            panel.plot(shares(reference), reference, color=colour, linestyle="--", linewidth=0.9)
        panel.set_title(contender_title(*pair), fontsize=9)
    for panel in panels[len(order) :]:
        panel.axis("off")
    panels[0].legend(fontsize=7, loc="center right")
    figure.supxlabel("share of pixels deleted or inserted", fontsize=9)
    figure.supylabel("score, 1 for the whole image", fontsize=9)
    figure.suptitle(f"mean and middle half; dashed: {contender_title(*strongest)}", fontsize=9)
    return as_rgb(figure)


def draw_curve(panel, curves: np.ndarray, colour: str, label: str) -> None:
    """Draw the mean and the spread of curves (N, points)."""
    low, high = np.quantile(curves, MIDDLE_HALF, axis=0)
    panel.fill_between(shares(low), low, high, color=colour, alpha=0.18, linewidth=0)
    panel.plot(shares(low), curves.mean(axis=0), color=colour, label=label)
    panel.set_xlim(0, 1)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.tick_params(labelsize=7)


def figure_chart(summary: pd.DataFrame) -> np.ndarray:
    """Return a panel for each figure with a bar and its confidence interval for each contender, the best in green."""
    from matplotlib.figure import Figure

    whole = summary[summary.split == ALL_DETECTIONS].iloc[::-1].reset_index(drop=True)
    names = [name for name in FIGURES if name in whole and whole[name].notna().any()]
    columns = min(len(names), 5)
    lines = ceil(len(names) / columns)
    size = 2.6 * columns + 1.6, (0.2 * len(whole) + 0.75) * lines
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for panel, name in zip(panels, names, strict=False):
        draw_bars(panel, whole, name)
    for panel in panels[len(names) :]:
        panel.axis("off")
    return as_rgb(figure)


def draw_bars(panel, whole: pd.DataFrame, name: str) -> None:
    """Draw the bars of one figure; baselines in grey, the best of the others in green."""
    values = whole[name].to_numpy(dtype=float)
    outside = np.array([whole[f"{name}_high"] - values, values - whole[f"{name}_low"]])[::-1]
    panel.barh(range(len(whole)), values, color=bar_colours(whole, name), xerr=np.maximum(outside, 0), ecolor="#555555")
    titles = [contender_title(row.method, row.layer) for row in whole.itertuples()]
    panel.set_yticks(range(len(whole)), titles, fontsize=7)
    better = BETTER[FIGURES[name].better]
    panel.set_title(FIGURES[name].title + (f" ({better})" if better else ""), fontsize=8)
    panel.tick_params(axis="x", labelsize=7)
    if FIGURES[name].group == COST and np.nanmax(values) > MANY:
        panel.set_xscale("symlog", linthresh=1)
    else:
        panel.locator_params(axis="x", nbins=5)
    if not np.nan_to_num(values).any():
        panel.set_xlim(0, 1)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)


def bar_colours(whole: pd.DataFrame, name: str) -> list[str]:
    """Return the colour of each contender's bar."""
    baseline = [(row.method, row.layer) in MUST_BEAT for row in whole.itertuples()]
    values = whole[name].mask(baseline)
    best = {"higher": values.max(), "lower": values.min(), "": None}[FIGURES[name].better]
    return [
        BASELINE if is_baseline else BEST if value == best else METHOD
        for is_baseline, value in zip(baseline, values, strict=True)
    ]


def cost_chart(summary: pd.DataFrame) -> np.ndarray:
    """Return how faithful each contender is against the milliseconds that a detection takes, the names in a column."""
    from matplotlib.figure import Figure

    whole = summary[summary.split == ALL_DETECTIONS]
    figure = Figure(figsize=(8.5, max(5, 0.2 * len(whole) + 1)), dpi=DOTS_PER_INCH, layout="constrained")
    panel = figure.subplots()
    # The rows are sorted by what the chart shows, so that no two lines to the names cross without need.
    for row, height in zip(whole.itertuples(), np.linspace(0.98, 0.02, len(whole)), strict=True):
        colour = BASELINE if (row.method, row.layer) in MUST_BEAT else METHOD
        panel.plot(row.milliseconds, getattr(row, DECISIVE), "o", color=colour)
        panel.annotate(
            contender_title(row.method, row.layer),
            (row.milliseconds, getattr(row, DECISIVE)),
            (1.03, height),
            textcoords="axes fraction",
            verticalalignment="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "relpos": (0, 0.5)},
        )
    panel.set_xscale("log")
    panel.set_xlabel("milliseconds for the explanation, per detection")
    panel.set_ylabel(f"{DECISIVE}: {FIGURES[DECISIVE].about}")
    panel.grid(alpha=0.3)
    return as_rgb(figure)


def curves_of(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return the curves (N, points) that rows hold as text."""
    return np.array([[float(value) for value in text.split()] for text in rows[column]])


def shares(curve: np.ndarray) -> np.ndarray:
    """Return the shares of pixels, 0..1, that the points of a curve belong to."""
    return np.linspace(0, 1, len(curve))


def contender_title(method: str, layer: str) -> str:
    """Return how a contender is called in a plot."""
    return f"{method} {layer}".strip()


def as_rgb(figure) -> np.ndarray:
    """Return a matplotlib figure as an array."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def extremes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one contender with the highest figure, then those with the lowest, the most extreme first."""
    count = min(OF_EACH, len(rows) // 2)
    ordered = rows.sort_values(DECISIVE, ascending=False, kind="stable")
    return pd.concat([ordered.head(count), ordered.iloc[::-1].head(count)])


def example_sheets(rows: pd.DataFrame, evaluator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each contender its name and one picture: the best of its explanations in the first line, then the worst.

    evaluator: an `Evaluator`, whose contenders explain the examples again.
    """
    for contender in evaluator.contenders:
        mine = rows[(rows.method == contender.method) & (rows.layer == contender.layer)]
        tiles = [example_tile(row, evaluator, contender) for row in extremes(mine).itertuples()]
        if tiles:
            name = f"{contender.method} {contender.layer}".strip().replace(" ", "_")
            yield name, sheet(tiles, columns=len(tiles) // 2)


def example_tile(row, evaluator, contender) -> Tile:
    """Return the picture of one row of the table, and its figures."""
    image_rgb = read_image(row.image)
    detection, heatmap = evaluator.explain(image_rgb, row.row, contender)
    figures = f"deletion {row.deletion:.2f}, insertion {row.insertion:.2f}"
    about = detection_title(detection, row.read.split(), row.energy_in_box)
    title = f"{getattr(row, DECISIVE):.2f}  {about}\n{figures}"
    return detection_tile(image_rgb, heatmap, detection, title)
