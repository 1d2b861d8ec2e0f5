"""What the pages say of the methods agrees with the code, and with one another."""

from pathlib import Path

import pytest

from explainer.detectors.detector import PLACES
from explainer.methods.catalogue import METHODS

ROOT = Path(__file__).parents[1]
README, MEASURED = (ROOT / name for name in ("README.md", "docs/methods.md"))


def table_under(path: Path, heading: str) -> list[dict[str, str]]:
    """Return the rows of the first table under a heading, by the titles of its columns, without emphasis."""
    text = path.read_text(encoding="utf-8").split(f" {heading}\n", 1)[1]
    lines = text[text.index("\n|") + 1 :].split("\n\n", 1)[0].replace("*", "").replace("†", "").splitlines()
    titles, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_every_method_is_measured():
    measured = {row["method"].strip() for row in table_under(MEASURED, "Does the score follow the heatmap?")}
    assert set(METHODS) <= measured


def test_auto_reads_where_the_table_says():
    rows = table_under(MEASURED, "Where each method reads: `auto`")
    assert rows
    for row in rows:
        assert row["`auto`"] == METHODS[row["method"]].place.name


def test_auto_is_the_place_with_the_best_figure_or_within_a_fiftieth_of_it():
    for row in table_under(MEASURED, "Where each method reads: `auto`"):
        figures = {place: float(row[place]) for place in PLACES if place in row}
        assert figures[row["`auto`"]] > max(figures.values()) - 0.02


@pytest.mark.parametrize("figure", ["overall", "deletion", "insertion"])
def test_the_figures_of_the_readme_are_those_that_were_measured(figure):
    whole = {row["method"]: row for row in table_under(MEASURED, "Held against what explains nothing")}
    rows = table_under(README, "How far can it be believed?")
    assert rows
    for row in rows:
        title = next(title for title in whole[row["method"]] if title.startswith(figure))
        assert whole[row["method"]][title].split()[0] == row[figure]
