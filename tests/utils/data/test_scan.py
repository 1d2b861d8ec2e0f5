"""Files of a data set are looked at up front, and what is wrong with one is said."""

import numpy as np
import pytest
from tiny_media import claiming_jpeg, claiming_png

from utils.base.logger import LOGGER
from utils.data.scan import check_classes, find_images, lists_in, scan


@pytest.fixture
def log(monkeypatch):
    """The lines that are logged."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(LOGGER, level, lambda text, *_: lines.append(str(text)))
    return lines


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 0.5 0.5 0.2", "4 numbers"),
        ("0 0.5 0.5 0.2 x", "not all numbers"),
        ("0 0.5 1.5 0.2 0.2", "1.5 is not between 0 and 1"),
        ("0 0.5 nan 0.2 0.2", "nan is not between 0 and 1"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
    ],
)
def test_a_bad_label_is_left_out_and_named(squares, log, line, complaint):
    (squares / "labels/2.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n", encoding="utf-8")
    entries = scan(find_images(squares / "images"))
    assert len(entries) == 5
    (warning,) = [text for text in log if "left out" in text]
    assert "2.txt: line 2" in warning
    assert complaint in warning


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_corrupt_image_is_left_out_and_named(squares, log, content):
    path = squares / "images/3.jpg"
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    assert len(scan(find_images(squares / "images"))) == 5
    assert any("left out" in text and "3.jpg" in text for text in log)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: claiming_jpeg(path, 30000, 30000),
        lambda path: claiming_png(path, 30000, 30000),
        # Small enough to be read, with a right end, and hardly a byte of what it claims.
        lambda path: claiming_png(path, 3000, 3000),
    ],
)
def test_an_image_that_claims_what_it_does_not_hold_is_left_out_and_named(squares, log, make):
    make(squares / "images/3.jpg")
    assert len(scan(find_images(squares / "images"))) == 5
    assert any("left out" in text and "3.jpg" in text for text in log)


def test_duplicate_labels_are_removed_and_named(squares, log):
    (squares / "labels/1.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    entries = scan(find_images(squares / "images"))
    assert entries[1].labels.rows[:, 0].tolist() == [0, 1]
    assert any("1.txt: 1 duplicate" in text for text in log)


def test_a_missing_label_file_is_named_and_means_background(squares, log):
    (squares / "labels/4.txt").unlink()
    entries = scan(find_images(squares / "images"))
    assert len(entries[4].labels.rows) == 0
    assert any("no label file" in text and "4.txt" in text for text in log)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no images in"):
        find_images(tmp_path)


def test_images_that_are_all_unusable_are_an_error(tmp_path):
    (tmp_path / "a.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(ValueError, match=r"none of the 1 images can be used.*a\.jpg"):
        scan(find_images(tmp_path))


def test_a_class_beyond_the_names_is_an_error_that_names_the_file():
    with pytest.raises(ValueError, match=r"b\.txt has class 3.*0 to 2"):
        check_classes(["a.txt", "b.txt"], [np.zeros((0, 5)), np.array([[3, 0.5, 0.5, 0.1, 0.1]])], nc=3)


def test_a_list_of_images_is_relative_to_itself(squares):
    listing = squares / "list.txt"
    listing.write_text("./images/0.jpg\n./images/1.jpg\n", encoding="utf-8")
    assert [path[-5:] for path in find_images(listing)] == ["0.jpg", "1.jpg"]


def test_an_image_that_is_not_there_is_left_out_with_the_line_that_names_it(squares, log):
    listing = squares / "list.txt"
    listing.write_text("./images/0.jpg\n\n./images/gone.jpg\n", encoding="utf-8")
    assert len(scan(find_images([listing, squares / "images"]), lists=lists_in([listing, squares / "images"]))) == 7
    (line,) = [text for text in log if "gone.jpg" in text]
    assert line.endswith(f"images/gone.jpg: No such file or directory; it is named in line 3 of {listing}")
