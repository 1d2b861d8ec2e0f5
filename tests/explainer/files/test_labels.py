"""Labels: what is read from their files, and how an image finds its own."""

import pytest

from explainer.errors import UsageError
from explainer.files.labels import Labels, boxes_of, read_labels


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 0.5 0.5 0.2 0.4", [(1, 0.4, 0.3, 0.6, 0.7)]),
        ("1.0 .5 5e-1 0.2 0.4\r\n\r\n  0 0.5 0.5 1 1  \n", [(1, 0.4, 0.3, 0.6, 0.7), (0, 0, 0, 1, 1)]),
        # An outline, a box that rounding pushes over the edge, a line that is there twice, a mark of the encoding.
        ("2 0.1 0.2 0.5 0.1 0.3 0.9", [(2, 0.1, 0.1, 0.5, 0.9)]),
        ("0 0.9 0.5 0.2004 1.0006", [(0, 0.7998, 0, 1, 1)]),
        ("0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4", [(0, 0.4, 0.3, 0.6, 0.7)]),
        ("\ufeff0 0.5 0.5 0.2 0.4", [(0, 0.4, 0.3, 0.6, 0.7)]),
        ("", []),
    ],
)
def test_lines_are_read_as_boxes_in_shares_of_the_image(tmp_path, text, expected):
    found = [(entry.class_index, *entry.xyxy) for entry in read_labels(write(tmp_path / "a.txt", text))]
    assert found == [pytest.approx(entry) for entry in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.2 0.4\n\n0 0.5 0.5 0.2", "a.txt:3: 4 numbers; a line holds class x y width height"),
        ("0 0.5 0.5 0.2 0.4 0.9", "a.txt:1: 6 numbers"),
        ("dog 0.5 0.5 0.2 0.4", "a.txt:1: 'dog 0.5 0.5 0.2 0.4' is not all numbers"),
        ("0 50 0.5 0.2 0.4", "a.txt:1: 50 is no share of the image, 0..1; divide pixels by"),
        ("0 nan 0.5 0.2 0.4", "a.txt:1: nan is no share of the image"),
        ("0.5 0.5 0.5 0.2 0.4", "a.txt:1: class 0.5 is no whole number"),
        ("-1 0.5 0.5 0.2 0.4", "a.txt:1: class -1 is no whole number"),
        ("0 0.5 0.5 0 0.4", "a.txt:1: a box without an area"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        read_labels(write(tmp_path / "a.txt", text))
    assert message in str(caught.value)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"a\.txt is not UTF-8"):
        read_labels(tmp_path / "a.txt")


def test_the_labels_of_an_image_are_in_its_pixels(tmp_path):
    labels = read_labels(write(tmp_path / "a.txt", "2 0.5 0.5 0.5 0.25"))
    assert boxes_of(labels, (40, 100)) == [(25, 15, 75, 25, 2)]


@pytest.mark.parametrize(
    ("labels", "file"),
    [
        ("labels/train", "labels/train/a.txt"),
        ("labels", "labels/train/a.txt"),
        ("flat", "flat/a.txt"),
        ("labels/train/a.txt", "labels/train/a.txt"),
        ("elsewhere", None),
    ],
)
def test_an_image_finds_its_labels_by_the_end_of_its_path(tmp_path, labels, file):
    for name in ("labels/train/a.txt", "labels/val/a.txt", "flat/a.txt", "elsewhere/b.txt"):
        write(tmp_path / name, "")
    found = Labels(tmp_path / labels).file_of(tmp_path / "images/train/a.jpg")
    assert found == (file and tmp_path / file)


def test_the_labels_of_a_frame_carry_its_number(tmp_path):
    write(tmp_path / "clip_12.txt", "0 0.5 0.5 0.2 0.4")
    labels = Labels(tmp_path)
    assert len(labels.of(tmp_path / "clip.mp4", 12)) == 1
    assert labels.of(tmp_path / "clip.mp4", 13) == []
