"""What is written about a stranger's words: tables that open as tables, and names that are names of files."""

import csv
import io

import pandas as pd
import pytest

from explainer.evaluation.options import Evaluation
from explainer.evaluation.results import EvaluationResults, complete_rows
from explainer.files.results import as_cells, from_cells, safe_name


@pytest.mark.parametrize("text", ["=1+1", "+cmd|'/C calc'!A0", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-"])
def test_a_text_that_a_spreadsheet_takes_for_a_formula_is_marked_and_comes_back(text):
    assert as_cells({"name": text}) == {"name": f"'{text}"}
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow(as_cells({"name": text}).values())
    (cells,) = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert from_cells({"name": cells[0]}) == {"name": text}


@pytest.mark.parametrize(
    "value", ["-1.5", "-inf", "-2", "+3", "-0.1 0.2", "cat", "it's", "'quoted'", "", None, -2, 1.5]
)
def test_numbers_and_other_texts_stay(value):
    assert as_cells({"x": value}) == from_cells({"x": value}) == {"x": value}


def test_a_table_of_an_evaluation_is_read_back_as_it_was(tmp_path):
    row = {"row": 0, "class": 0, "name": "=1+1", "confidence": 0.5, "method": "GradCAM", "layer": "-2", "read": "@x"}
    with EvaluationResults(tmp_path, Evaluation()) as results:
        results.add("-photos/a.jpg", [row])
        table = results.table()
    assert [table[name][0] for name in ("image", "name", "layer", "read")] == ["-photos/a.jpg", "=1+1", "-2", "@x"]
    assert pd.read_csv(tmp_path / "detections.csv")["name"][0] == "'=1+1"
    (kept,) = complete_rows(tmp_path / "detections.csv")
    assert (kept["image"], kept["name"], kept["layer"]) == ("-photos/a.jpg", "=1+1", "-2")
    with EvaluationResults(tmp_path, Evaluation(), resumes=True) as results:
        assert results.finished == {"-photos/a.jpg": {("GradCAM", "-2")}}
    assert pd.read_csv(tmp_path / "detections.csv")["name"][0] == "'=1+1"


def test_a_name_of_a_file_has_no_control_characters():
    assert safe_name("a\x1b[2J\nb\x00c\x9bd") == "a_[2J_b_c_d"
