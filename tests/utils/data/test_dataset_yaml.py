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
