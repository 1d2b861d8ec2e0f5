"""Where results go, and what is written there: a folder for each run, tables that open as tables, names that are names."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest

from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.evaluation.results import EvaluationResults, complete_rows
from explainer.files.results import as_cells, check_writable, from_cells, new_folder, safe_name


def test_runs_that_start_at_once_get_a_folder_each(tmp_path):
    together = Barrier(8)

    def start(_):
        together.wait(10)
        return [new_folder(tmp_path / "runs", "exp", False) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        made = {folder for folders in pool.map(start, range(8)) for folder in folders}
    assert len(made) == len(list((tmp_path / "runs").iterdir())) == 80


def test_a_folder_that_another_run_makes_in_between_is_left_to_it(tmp_path, monkeypatch):
    def too_late(path, exist_ok):
        free = next(path for path in (path, path.with_name("exp2")) if not path.exists())
        if free == path:
            free.mkdir()
        return free

    monkeypatch.setattr("utils.general.increment_path", too_late)
    assert new_folder(tmp_path, "exp", False) == tmp_path / "exp2"


def test_an_existing_folder_is_used_again_where_that_is_asked_for(tmp_path):
    assert new_folder(tmp_path, "exp", True) == new_folder(tmp_path, "exp", True) == tmp_path / "exp"


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\ud800"], ids=["long", "null", "surrogate"])
def test_a_name_that_the_file_system_refuses_is_a_mistake(tmp_path, name):
    with pytest.raises(UsageError, match=r"results cannot be written to .*; try --project FOLDER"):
        new_folder(tmp_path, name, False)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_told_before_anything_is_computed(tmp_path):
    with pytest.raises(UsageError, match="results cannot be written"):
        check_writable(tmp_path / ("n" * 300))


def test_a_link_that_leads_nowhere_is_a_mistake(tmp_path):
    (tmp_path / "exp").symlink_to(Path("nowhere"))
    with pytest.raises(UsageError, match="results cannot be written"):
        new_folder(tmp_path, "exp", True)


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
