"""The images that a data set names, and the labels beside them."""

import cv2
import pytest
from scenes import picture

from explainer.errors import UnreadableImageError, UsageError
from explainer.files.sources import labelled_images, read_image


@pytest.fixture
def images(tmp_path):
    """Return the folder of a data set with ten images, the first of which has labels."""
    folder = tmp_path / "set/images/val"
    folder.mkdir(parents=True)
    for number in range(10):
        cv2.imwrite(str(folder / f"{number}.png"), picture(8, 8))
    labels = tmp_path / "set/labels/val"
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("1 0.5 0.5 0.2 0.4\n2 0 0 1 0 1 1\n", encoding="utf-8")
    return folder


def numbers(found):
    return [int(image.path.stem) for image in found]


def test_the_labels_of_an_image_are_in_the_folder_beside(images):
    first, *others = labelled_images(images, 1.0, 0)
    assert [label.class_index for label in first.labels] == [1, 2]
    assert first.labels[1].outline == (0, 0, 1, 0, 1, 1)
    assert not any(image.labels for image in others)


def test_a_share_of_the_images_is_drawn_by_seed(images):
    chosen = numbers(labelled_images(images, 0.3, 0))
    assert len(chosen) == 3
    assert chosen == sorted(chosen) == numbers(labelled_images(images, 0.3, 0))
    assert chosen != numbers(labelled_images(images, 0.3, 1))


def test_a_folder_a_list_a_yaml_and_one_image_name_images(images, tmp_path):
    listed, relative = tmp_path / "list.txt", tmp_path / "set/relative.txt"
    listed.write_text(f"{images}/3.png\n{images}/1.png\n", encoding="utf-8")
    relative.write_text("./images/val/7.png\n", encoding="utf-8")
    for content in ("path: set\nval: images/val", f"path: {tmp_path}/set\ntrain: [images/val]"):
        (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
        assert len(labelled_images(tmp_path / "data.yaml", 1.0, 0)) == 10
    assert numbers(labelled_images(tmp_path / "set", 1.0, 0)) == list(range(10))
    assert numbers(labelled_images(listed, 1.0, 0)) == [1, 3]
    assert numbers(labelled_images(relative, 1.0, 0)) == [7]
    assert numbers(labelled_images(images / "5.png", 1.0, 0)) == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path: set\nnames: [a]", "has a line val: or train:"),
        ("path: set\nval: images/test", "which does not exist; correct path, train and val in it"),
        ("path: set\nval: images/test\ndownload: https://x/a.zip", "which does not exist; val.py downloads it"),
        ("just a word", "holds no 'key: value' lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_yaml_without_images_is_told(images, tmp_path, content, message):
    (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        labelled_images(tmp_path / "data.yaml", 1.0, 0)


def test_a_list_with_a_missing_image_and_a_folder_without_any_are_told(tmp_path):
    (tmp_path / "list.txt").write_text("nowhere.png\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"lists .*nowhere\.png, which does not exist"):
        labelled_images(tmp_path / "list.txt", 1.0, 0)
    with pytest.raises(UsageError, match="holds no image"):
        labelled_images(tmp_path, 1.0, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_with_a_line_that_names_nothing_keeps_it_to_be_reported(images, tmp_path, encoding):
    listed = tmp_path / "list.txt"
    lines = ["# the best", f'"{images}/3.png"', "nowhere.png", "", "set\\images\\val\\1.png"]
    listed.write_bytes("\r\n".join(lines).encode(encoding))
    found = labelled_images(listed, 1.0, 0)
    assert sorted(image.path.name for image in found if image.path.exists()) == ["1.png", "3.png"]
    (missing,) = [image for image in found if not image.path.exists()]
    with pytest.raises(UnreadableImageError, match=r"does not exist.*; it is named in line 3 of .*list\.txt"):
        read_image(missing.path, place=missing.place)


def test_a_list_or_yaml_that_is_not_utf8_is_named(tmp_path):
    for name in ("list.txt", "data.yaml"):
        (tmp_path / name).write_bytes("val: images\nnames: [狗]".encode("gbk"))
        with pytest.raises(UsageError, match=rf"{name} is not UTF-8 \(byte 0x.. in line 2\)|{name}' is not UTF-8"):
            labelled_images(tmp_path / name, 1.0, 0)


@pytest.mark.parametrize(
    "content", ["val: 5", "val: {a: b}", "val: [null]", "path: [a]\nval: b", 'path: "a\\0b"\nval: b']
)
def test_an_odd_split_or_path_of_a_yaml_is_told(tmp_path, content):
    (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"data\.yaml"):
        labelled_images(tmp_path / "data.yaml", 1.0, 0)
