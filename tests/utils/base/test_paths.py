"""Paths of results: numbered, unique, writable."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from utils.base.command_line import exit_code
from utils.base.paths import (
    ROOT,
    FailedWriteError,
    ResultFolder,
    UniqueNames,
    append_whole,
    check_writable,
    increment_path,
    naming_failed_writes,
    writing_whole,
)


@pytest.mark.parametrize("name", ["exp", "exp.v1"])
def test_a_taken_folder_gets_the_next_free_number(tmp_path, name):
    path = tmp_path / name
    assert increment_path(path) == path
    assert increment_path(path, mkdir=True).is_dir()
    assert increment_path(path, mkdir=True).name == f"{name}2"
    assert increment_path(path).name == f"{name}3"
    assert increment_path(path, sep="-").name == f"{name}-2"
    assert increment_path(path, exist_ok=True) == path


@pytest.mark.parametrize("name", ["exp", "exp.v1"])
def test_two_that_make_a_folder_at_once_get_one_each(tmp_path, name):
    together = Barrier(8)

    def take(_):
        together.wait(10)
        return [increment_path(tmp_path / name, mkdir=True) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        made = [folder.name for folders in pool.map(take, range(8)) for folder in folders]
    assert sorted(made) == sorted([name, *(f"{name}{number}" for number in range(2, 161))])


def test_a_link_that_leads_nowhere_is_no_free_name(tmp_path):
    (tmp_path / "exp").symlink_to(tmp_path / "nowhere")
    assert increment_path(tmp_path / "exp", mkdir=True).name == "exp2"


def test_a_taken_file_gets_its_number_before_the_suffix(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert increment_path(tmp_path / "a.jpg").name == "a2.jpg"


def test_results_of_one_name_are_numbered():
    names = UniqueNames()
    assert [names(n) for n in ("a.jpg", "a.jpg", "A.jpg", "a.png", "a_2.jpg")] == [
        "a.jpg",
        "a_2.jpg",
        "A_3.jpg",
        "a.png",
        "a_2_2.jpg",
    ]
    by_stem = UniqueNames(by_stem=True)
    assert [by_stem(n) for n in ("a.jpg", "a.png")] == ["a.jpg", "a_2.png"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "folder")
    with pytest.raises(OSError, match="is a file"):
        check_writable(tmp_path / "file" / "exp")


def test_a_failed_write_names_its_file():
    with pytest.raises(OSError, match=r"No space left on device.*a\.txt"), naming_failed_writes("a.txt"):
        raise OSError(28, "No space left on device")


def test_what_is_written_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("earlier", encoding="utf-8")

    def fill_up():
        with writing_whole(path) as part:
            part.write_text("half", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(FailedWriteError, match=r"No space left on device.*a\.txt"):
        fill_up()
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == {"a.txt": "earlier"}
    with writing_whole(path) as part:
        part.write_text("later", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "earlier"
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == {"a.txt": "later"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize("room", [0, 3, 11, 15])
def test_what_is_appended_is_there_whole_or_not_at_all(tmp_path, room):
    path = tmp_path / "t.csv"
    append_whole(path, "1,2\n", header="a,b\n")
    # A file may grow by so many bytes more, as on a full disk.
    script = (
        "import resource, sys; from utils.base.paths import append_whole\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({8 + room}, resource.RLIM_INFINITY))\n"
        f"append_whole({str(path)!r}, '3333,4444\\n5555,6666\\n', header='a,b\\n')"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "FailedWriteError: [Errno 27] cannot be written: File too large" in answer.stderr
    append_whole(path, "7,8\n", header="a,b\n")
    assert path.read_text(encoding="utf-8") == "a,b\n1,2\n7,8\n"


def test_text_that_is_no_utf_8_is_spelled_out(tmp_path):
    append_whole(tmp_path / "t.csv", "caf\udce9\n")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "caf\\udce9\n"


def test_a_folder_that_is_deleted_or_made_anew_is_told(tmp_path):
    folder = ResultFolder(tmp_path / "runs" / "exp")
    folder.check()
    folder.path.rmdir()
    with pytest.raises(FailedWriteError, match=r"was deleted or moved.*exp"):
        folder.check()
    folder.path.touch()
    with pytest.raises(FailedWriteError, match=r"was deleted or moved.*exp"):
        folder.check()
    folder.path.unlink()
    folder.path.mkdir()
    with pytest.raises(FailedWriteError, match=r"was deleted or moved.*exp"):
        folder.check()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("a.b.jpg", "a.b.jpg"),
        ("caf\udce9.jpg", "caf_.jpg"),
        ("a\0\ud800b.jpg", "a_b.jpg"),
        ("n" * 300 + ".jpg", "n" * 251 + ".jpg"),
        ("ü" * 200 + ".jpg", "ü" * 125 + ".jpg"),
    ],
)
def test_names_are_ones_that_every_file_system_takes(name, allowed):
    names = UniqueNames()
    assert names(name) == allowed
    second = names(name)
    assert second.endswith("_2.jpg")
    assert len(second.encode("utf-8")) <= 255


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FailedWriteError(13, "cannot be written: Permission denied", "a.jpg"), 1),
        (OSError(28, "No space left on device", "a.jpg"), 1),
        (FileNotFoundError(2, "No such file", "a.jpg"), 2),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_a_failed_write_is_a_loss_and_a_missing_file_a_mistake(capsys, error, code, early):
    def fail(*_):
        raise error

    assert exit_code("x.py", fail if early else lambda: None, fail) == code
    assert re.fullmatch(r"x\.py: a\.jpg: .*\n", capsys.readouterr().err)
