"""What an evaluation keeps of a table that was cut, and what it says of one that lacks rows."""

import codecs
import csv
import io
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest

from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.evaluation.results import DETECTION_COLUMNS, TABLE, EvaluationResults, complete_rows, unit_of

# More than nine rows, so that their number, cut short, is a number; a name whose cell is quoted and has several lines.
COUNTS = {("a.png", "GradCAM"): 10, ("a.png", "LayerCAM"): 1, ('b "é",\n1.png', "GradCAM"): 3, ("c.png", "GradCAM"): 2}


def row_of(method, number):
    known = {"row": number, "class": 1, "name": 'a "dog",\n12', "confidence": 0.5, "method": method, "layer": "auto"}
    return known | {"insertion_curve": np.array([0.5, 1.0])}


@pytest.fixture
def whole(tmp_path):
    """Return the folder of an evaluation whose table has units of several sizes."""
    with EvaluationResults(tmp_path / "whole", Evaluation()) as results:
        for (image, method), count in COUNTS.items():
            results.add(image, [row_of(method, number) for number in range(count)])
    return results.folder


def ends_of_units(path):
    """Return where the units of a table end, in bytes, and how many rows there are by then."""
    rows, end = complete_rows(path), path.read_bytes().index(b"\n") + 1
    ends = [(0, 0)]
    for number, row in enumerate(rows, 1):
        end += bytes_of(row)
        if number == len(rows) or unit_of(rows[number]) != unit_of(row):
            ends.append((end, number))
    return ends


def bytes_of(row):
    line = io.StringIO(newline="")
    csv.DictWriter(line, DETECTION_COLUMNS).writerow(row)
    return len(line.getvalue().encode())


def test_wherever_a_table_is_cut_a_unit_is_kept_whole_or_not_at_all(whole, tmp_path):
    data, rows, ends = (whole / TABLE).read_bytes(), complete_rows(whole / TABLE), ends_of_units(whole / TABLE)
    assert [rows_by_then for _, rows_by_then in ends] == [0, *accumulate(COUNTS.values())]
    for length in range(len(data) + 1):
        (tmp_path / "cut.csv").write_bytes(data[:length])
        expected = max(rows_by_then for end, rows_by_then in ends if end <= length)
        assert complete_rows(tmp_path / "cut.csv") == rows[:expected], f"cut at {length}"


def test_a_table_that_another_program_saved_with_a_byte_order_mark_is_read(whole, tmp_path):
    (tmp_path / "marked.csv").write_bytes(codecs.BOM_UTF8 + (whole / TABLE).read_bytes())
    assert complete_rows(tmp_path / "marked.csv") == complete_rows(whole / TABLE) != []


def test_what_was_cut_is_measured_again_and_the_table_is_whole(whole):
    data = (whole / TABLE).read_bytes()
    (whole / TABLE).write_bytes(data[:-20])
    with EvaluationResults(whole, Evaluation(), resumes=True) as results:
        assert results.finished["a.png"] == {("GradCAM", "auto"), ("LayerCAM", "auto")}
        assert not results.finished["c.png"]
        results.add("c.png", [row_of("GradCAM", number) for number in range(2)])
    assert (whole / TABLE).read_bytes() == data
    assert len(results.table()) == sum(COUNTS.values())


def test_a_table_that_went_on_behind_a_cut_keeps_what_is_whole(whole):
    # As a disk that was full for a while leaves it.
    data = (whole / TABLE).read_bytes()
    cut = data.rindex(b"LayerCAM") - 30
    (whole / TABLE).write_bytes(data[:cut] + b"\r\n" + data[data.rindex(b"c.png,0,") :])
    units = {unit_of(row)[:2] for row in complete_rows(whole / TABLE)}
    assert ("c.png", "GradCAM") in units
    assert ("a.png", "LayerCAM") not in units


def test_a_table_that_lacks_rows_in_the_end_is_an_error_that_says_how_to_go_on(whole):
    with EvaluationResults(whole, Evaluation(), resumes=True) as results:
        pass
    lines = (whole / TABLE).read_bytes().splitlines(keepends=True)
    (whole / TABLE).write_bytes(b"".join(lines[:-3]))
    with pytest.raises(OSError, match=r"holds \d+ of the 16 rows .* --resume"):
        results.table()


@pytest.mark.parametrize("damage", [b"image,row\n1,2\n", b'image,"\n', b"\0\0\0\n\0\n", "image,ä\n".encode("latin-1")])
def test_a_table_of_something_else_is_named(tmp_path, damage):
    (tmp_path / TABLE).write_bytes(damage)
    with pytest.raises(UsageError, match=TABLE):
        complete_rows(tmp_path / TABLE)


def test_bytes_that_are_no_text_cost_their_unit_alone(whole):
    data = (whole / TABLE).read_bytes()
    at = data.rindex(b"c.png,1,")
    (whole / TABLE).write_bytes(data[:at] + b"\0" * 200_000 + b"\xff\n")
    assert Counter(map(unit_of, complete_rows(whole / TABLE))).total() == sum(COUNTS.values()) - 2
