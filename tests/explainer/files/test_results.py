"""Where results go, and what is written there: a folder for each run, tables that open as tables, names that are names."""

import codecs
import csv
import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pandas as pd
import pytest

from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.evaluation.results import EvaluationResults, complete_rows
from explainer.files.results import (
    GrowingTable,
    Page,
    Results,
    Video,
    as_cells,
    check_writable,
    finished_files,
    free_name,
    from_cells,
    new_folder,
    plain,
    safe_name,
    write_picture,
    written_whole,
)
from explainer.files.sources import Frame


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


@pytest.fixture
def full_disk(monkeypatch):
    """Let a file take half of what is written to it and then no more."""

    def write_half(path, data, **_):
        with path.open("wb") as file:
            file.write((data.encode() if isinstance(data, str) else data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    monkeypatch.setattr(Path, "write_text", write_half)


def frame(path, number=0):
    return Frame(Path(path), np.zeros((8, 8, 3), np.uint8), "", number, fps=5)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GREY = np.full((16, 16, 3), 90, np.uint8)


@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_a_picture_that_a_full_disk_cuts_is_not_there_and_the_earlier_one_stays(tmp_path, full_disk, earlier):
    if earlier:
        with (tmp_path / "a.png").open("wb") as file:
            file.write(earlier)
    with pytest.raises(OSError, match="No space left") as caught:
        write_picture(tmp_path / "a.png", GREY)
    assert caught.value.filename == str(tmp_path / "a.png")
    assert contents(tmp_path) == ({"a.png": earlier} if earlier else {})


def test_texts_and_options_of_an_evaluation_are_there_whole_or_not_at_all(tmp_path, full_disk):
    with pytest.raises(OSError, match=r"options\.yaml"):
        EvaluationResults(tmp_path, Evaluation()).__enter__()
    with pytest.raises(OSError, match=r"table\.md"):
        EvaluationResults(tmp_path, Evaluation()).save_text("table.md", "figures")
    assert contents(tmp_path) == {}


def test_arrays_that_a_full_disk_cuts_are_not_there(tmp_path, monkeypatch):
    def half(file, **_):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", half)
    with Results(tmp_path) as results, pytest.raises(OSError, match=r"maps\.npz"):
        results.save_arrays(frame("a.png"), ("maps",), {"heatmap": GREY})
    assert list(contents(tmp_path)) == ["explanations.csv"]


def test_a_page_that_cannot_be_made_leaves_the_earlier_one(tmp_path):
    def pieces(parts, beside):
        yield "half"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "report.html").write_text("earlier", encoding="utf-8")
    with Page(tmp_path) as page, pytest.raises(OSError, match=r"report\.html"):
        page.write(pieces)
    assert contents(tmp_path) == {"report.html": b"earlier"}


def test_whatever_interrupts_the_writing_leaves_nothing(tmp_path):
    def interrupted():
        with written_whole(tmp_path / "a.txt") as part:
            part.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == {}


class FullFile:
    """A file that takes so many bytes more, a few at a time as a system may, and then none."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(self.room, len(data), 3)
        self.room -= taken
        return self.file.write(data[:taken])

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 7, 12])
def test_rows_for_which_there_is_no_room_are_left_out_whole(tmp_path, room):
    table = GrowingTable(tmp_path / "t.csv", ("a", "b"))
    table.append([{"a": 1, "b": 2}])
    opened, table._file = table._file, FullFile(table._file, room)
    with pytest.raises(OSError, match=r"No space left.*t\.csv"):
        table.append([{"a": 3, "b": 4}, {"a": 5, "b": 6}, {"a": 7, "b": 8}])
    table._file = FullFile(opened, 100)
    table.append([{"a": 9, "b": "x,y"}])
    table.close()
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\r\n1,2\r\n9,"x,y"\r\n'


def move_away(folder):
    folder.rename(folder.with_name("elsewhere"))


def make_anew(folder):
    move_away(folder)
    folder.mkdir()
    (folder / "explanations.csv").touch()


def put_a_file_there(folder):
    move_away(folder)
    folder.write_bytes(b"")


@pytest.mark.parametrize(
    "lose", [move_away, make_anew, put_a_file_there, lambda folder: (folder / "explanations.csv").unlink()]
)
def test_a_folder_that_is_lost_while_it_is_written_to_is_an_error_and_is_not_made_again(tmp_path, lose):
    results = Results(tmp_path / "exp").__enter__()
    lose(tmp_path / "exp")
    for write in (
        lambda: results.add_rows(frame("a.png"), [{}]),
        lambda: results.save(frame("a.png"), GREY),
        lambda: results.save_beside(frame("a.png"), ("cat",), GREY),
        lambda: results.save_arrays(frame("a.png"), ("maps",), {}),
        lambda: results.save_overview("suspects", GREY),
        lambda: results.__exit__(None, None, None),
    ):
        with pytest.raises(FileNotFoundError, match="was deleted or moved"):
            write()
    assert not [name for name in contents(tmp_path) if not name.endswith((".csv", "exp"))]


def test_what_ends_a_run_is_not_hidden_by_the_loss_of_its_folder(tmp_path):
    def interrupted():
        with Results(tmp_path / "exp"):
            move_away(tmp_path / "exp")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_table_of_an_evaluation_that_is_lost_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="was deleted or moved"), EvaluationResults(tmp_path, Evaluation()):
        (tmp_path / "detections.csv").unlink()


def test_a_video_takes_its_place_when_it_is_whole(tmp_path):
    with Results(tmp_path) as results:
        path = results.save(frame("clip.avi", 1), GREY)
        # A camera may send another size after it was cut off.
        assert results.save(frame("clip.avi", 2), GREY[:8]) == path
        assert not path.exists()
    assert sorted(contents(tmp_path)) == ["clip.mp4", "explanations.csv"]


def test_a_video_of_which_frames_are_lost_is_an_error_and_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("explainer.files.results.frames_in", lambda path: 1)
    results = Results(tmp_path).__enter__()
    for number in (1, 2):
        results.save(frame("clip.avi", number), GREY)
    with pytest.raises(OSError, match="could not be written whole"):
        results.__exit__(None, None, None)
    assert list(contents(tmp_path)) == ["explanations.csv"]


def test_a_video_on_a_full_disk_is_told_by_its_frames(tmp_path):
    video = Video(tmp_path / "a.mp4", 5, (16, 16, 3))
    video.append(GREY)
    video._writer.release()
    data = video._part.read_bytes()
    video._part.write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match=r"a\.mp4"):
        video.close()
    assert contents(tmp_path) == {}


NO_TEXT = os.fsdecode(b"caf\xe9")


def test_names_of_pictures_are_ones_that_every_file_system_takes(tmp_path):
    with Results(tmp_path) as results:
        paths = [results.save(frame(f"{stem}.heic"), GREY) for stem in (NO_TEXT, "caf\0", "\ud800" + "ü" * 200)]
        results.save_beside(frame(f"{NO_TEXT}.png"), ("n" * 300, "n" * 300), GREY)
        results.save_beside(frame(f"{NO_TEXT}.png"), ("n" * 300, "n" * 299), GREY)
    assert [path.name for path in paths] == ["caf_.png", "caf__2.png", "_" + "ü" * 125 + ".png"]
    assert sorted(name.split("/")[-1] for name in contents(tmp_path) if name.startswith("caf_/")) == [
        "n" * 249 + "_2.jpg",
        "n" * 251 + ".jpg",
    ]


def test_names_that_are_cut_stay_different():
    taken = set()
    names = [free_name("x" * 300, ".jpg", taken) for _ in range(12)]
    assert len(set(names)) == 12
    assert {len(name) for name in names} == {255}


def test_the_name_of_a_file_that_is_no_text_is_spelled_out_in_tables(tmp_path):
    with Results(tmp_path) as results:
        results.add_rows(frame(f"{NO_TEXT}.png"), [{"name": "cat"}])
    (row,) = csv.DictReader((tmp_path / "explanations.csv").open(encoding="utf-8"))
    assert row["image"] == "caf\\udce9.png"


def test_an_evaluation_goes_on_with_an_image_whose_name_is_no_text(tmp_path):
    row = {"row": 0, "class": 0, "name": "cat", "confidence": 0.5, "method": "GradCAM", "layer": "-2"}
    image = Path(f"{NO_TEXT}.png")
    with EvaluationResults(tmp_path, Evaluation()) as results:
        results.add(image, [row])
    with EvaluationResults(tmp_path, Evaluation(), resumes=True) as results:
        assert results.finished_of(image) == {("GradCAM", "-2")}
        assert results.table()["image"][0] == str(image)


def test_pictures_of_an_evaluation_whose_names_are_too_long_are_cut_and_stay_different(tmp_path):
    with EvaluationResults(tmp_path, Evaluation()) as results:
        for end in "ab":
            results.save_picture(f"examples/{'n' * 300}{end}.jpg", GREY)
    assert sorted(path.name for path in (tmp_path / "examples").iterdir()) == [
        "n" * 249 + "_2.jpg",
        "n" * 251 + ".jpg",
    ]


def table_of(folder, files):
    """Write a table and return where the rows of each of the files end, in bytes; a file is its frames, each its rows."""
    ends = []
    with Results(folder) as results:
        for name, frames in files:
            for number, rows in frames:
                results.add_rows(Frame(Path(name), np.empty((1, 1, 3), np.uint8), "", number), rows)
            ends.append((folder / "explanations.csv").stat().st_size)
    return ends


def test_wherever_the_table_of_a_run_is_cut_all_files_but_the_last_are_finished_and_none_without_all_its_rows(tmp_path):
    box = {"class": 1, "name": 'a "cat",\r\n=1', "energy_in_box": 0.25, "outcome": "hit", "note": "größer\nthan"}
    nothing = {"note": "no detection above confidence 0.25"}
    names = ["/one, 犬.jpg", "=two.jpg", "/one, 犬.jpg", "/clip.mp4", "/last.jpg"]
    frames = [
        [(0, [box, box])],
        [(0, [nothing])],
        [(0, [box])],
        [(1, [box]), (2, [nothing]), (3, [box, box])],
        [(0, [box])],
    ]
    ends = table_of(tmp_path, zip(names, frames, strict=True))
    path = tmp_path / "explanations.csv"
    data = path.read_bytes()
    for cut in range(len(data), -1, -1):
        path.write_bytes(data[:cut])
        found = finished_files(path, 0)
        assert [done.end for done in found] == ends[: len(found)]
        # Once the next row is whole.
        begun = sum(end < cut for end in ends)
        assert begun - 1 <= len(found) <= begun
        assert [str(done.path) for done in found] == names[: len(found)]
        # Zeros at the end, as a power cut leaves them.
        path.write_bytes(data[:cut] + bytes(30))
        assert len(finished_files(path, 0)) == len(found)
    path.write_bytes(data)
    found = finished_files(path, 0)
    assert [done.frames for done in found] == [0, 0, 0, 3]
    assert [done.has_boxes for done in found] == [True, False, True, True]
    assert [sum(done.outcomes[""].values()) for done in found] == [2, 0, 1, 3]
    assert found[0].energies == [("hit", 0.25)] * 2
    assert [str(done.path) for done in finished_files(path, ends[1])] == names[2:4]
    assert finished_files(tmp_path / "nowhere.csv", 0) == []
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert [str(done.path) for done in finished_files(path, 0)] == [str(done.path) for done in found]


def test_options_are_kept_as_plain_values():
    given = (Path("a.pt"), np.float32(0.5), np.int64(3), True, None, "x", [1, (2,)])
    assert plain(given) == ["a.pt", 0.5, 3, True, None, "x", [1, [2]]]
    assert [type(value) for value in plain(given)[:4]] == [str, float, int, bool]
