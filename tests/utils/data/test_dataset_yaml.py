"""Dataset YAMLs: absolute paths, names by index, and what is said about a mistake."""

import pytest
import yaml

from utils.base.paths import ROOT
from utils.data.dataset_yaml import check_dataset


def test_a_dataset_yaml_gets_absolute_paths(squares):
    data = check_dataset(squares / "squares.yaml")
    assert data["train"] == str(squares / "images")
    assert data["names"] == {0: "blue", 1: "green", 2: "red"}
    assert data["nc"] == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: a\nval: b\n", "lacks names"),
        ("train: a\nval: b\nnc: 3\nnames: [x]\n", "nc is 3, but there are 1 names"),
        ("train: a\nval: b\nnames: {0: x, 2: y}\n", "number the 2 classes from 0 on"),
        ("train: a\nval: 5\nnames: [x]\n", r"d\.yaml: val is 5; give"),
        ("train: a\nval: {a: b}\nnames: [x]\n", "val is {'a': 'b'}"),
        ("train: a\nval: [null]\nnames: [x]\n", r"val is \[None\]"),
        ("path: [a]\ntrain: a\nval: a\nnames: [x]\n", r"path is \['a'\]"),
        ("path: 5\ntrain: a\nval: a\nnames: [x]\n", "path is 5"),
        ('path: "a\\0b"\ntrain: a\nval: a\nnames: [x]\n', "path is 'a"),
        ("train: a\nval: b\nnames: abcd\n", "names is 'abcd'; give a list"),
        ("train: a\nval: b\nnames: [[a], b]\n", r"the name of class 0 is \['a'\]; give a word"),
        ("train: a\nval: b\nnc: -1\nnames: [x]\n", "nc is -1, but there are 1 names"),
        ("just text", "holds no 'key: value'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_dataset_yaml_is_explained(tmp_path, text, complaint):
    path = tmp_path / "d.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        check_dataset(path)


def test_a_dataset_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("path: /nowhere\ntrain: images\nval: images\nnames: [x]\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="/nowhere/images does not exist"):
        check_dataset(path)


@pytest.mark.parametrize("name", ["coco128", "coco"])
def test_dataset_descriptions_list_80_classes(name):
    data = yaml.safe_load((ROOT / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(data["names"]) == list(range(80))
    assert len(set(data["names"].values())) == 80
    assert data["train"]
    assert data["val"]


def test_a_dataset_yaml_that_is_not_utf8_is_refused_not_read_with_half_of_its_letters(squares):
    text = (squares / "squares.yaml").read_text(encoding="utf-8").replace("blue", "狗")
    (squares / "gbk.yaml").write_bytes(text.encode("gbk"))
    with pytest.raises(ValueError, match=r"gbk\.yaml is not UTF-8 .*; save it as UTF-8"):
        check_dataset(squares / "gbk.yaml")
    (squares / "bom.yaml").write_text(text, encoding="utf-8-sig")
    assert check_dataset(squares / "bom.yaml")["names"][0] == "狗"
