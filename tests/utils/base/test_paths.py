"""Paths of results: numbered, unique, writable."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from utils.base.paths import UniqueNames, check_writable, increment_path, naming_failed_writes


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
