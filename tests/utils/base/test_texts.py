"""Texts, lists and YAMLs as people save them; both readers of YAMLs, of the tree and of the explainer, agree."""

import pytest
from tiny_media import two_colours

from explainer.files import labels, sources
from utils.base.media import find_media
from utils.base.texts import read_list, read_text, read_yaml
from utils.data.labels import read_labels
from utils.sources.files import LoadImages

READERS = pytest.mark.parametrize("read", [read_yaml, sources.read_yaml], ids=["tree", "explainer"])


def bomb(levels: int = 9) -> str:
    """Return a YAML of a few lines whose aliases stand for 10 ** levels entries."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels + 1)]
    return "\n".join((*lines, f"names: *a{levels}"))


@READERS
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (bomb(), "its aliases stand for more than 1000000 entries"),
        (
            bomb().replace("[*", "{<<: [*").replace("]", "]}").replace("[x]}", "{x: 1}"),
            "stand for more than|no YAML|not valid",
        ),
        ("names: &a [*a, b]", "an alias stands for something that holds it"),
        ("names: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: !!python/object/apply:os.system ['true']", "YAML"),
        ("a: !!int x", "YAML"),
        ("a: !!timestamp x", "YAML"),
        ("a: !!bool x", "YAML"),
        ("a: 2001-13-41", "YAML"),
        ("? [a]\n: b", "YAML"),
        ("<<: 5", "YAML"),
        ("a: " + "1" * 5000, "YAML"),
    ],
    ids=lambda value: value[:20].replace("\n", " "),
)
def test_a_yaml_that_hangs_or_breaks_the_reader_is_an_error_that_names_it(tmp_path, read, content, complaint):
    (tmp_path / "odd.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"odd\.yaml(?s:.)*({complaint})"):
        read(tmp_path / "odd.yaml")


@READERS
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_yaml_with_a_byte_order_mark_and_plain_aliases_is_read(tmp_path, read, encoding):
    (tmp_path / "a.yaml").write_bytes("train: &t 狗\r\nval: *t\r\n".encode(encoding))
    assert read(tmp_path / "a.yaml") == {"train": "狗", "val": "狗"}


@pytest.mark.parametrize("read", [read_text, labels.read_text], ids=["tree", "explainer"])
def test_a_text_in_another_encoding_is_refused_with_its_line(tmp_path, read):
    (tmp_path / "a.txt").write_bytes("a\n狗\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 \(byte 0x.. in line 2\); save it as UTF-8"):
        read(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes("狗".encode("utf-16-le") + "a".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"a\.txt (is no text|is not UTF-8)"):
        read(tmp_path / "a.txt")


def test_labels_with_a_byte_order_mark_are_read_in_training_as_in_the_explainer(tmp_path):
    (tmp_path / "a.txt").write_bytes("0 0.5 0.5 0.2 0.2\r\n".encode("utf-8-sig"))
    assert len(read_labels(tmp_path / "a.txt").rows) == len(labels.read_labels(tmp_path / "a.txt")) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_line_of_a_list_that_names_nothing_is_an_unreadable_image_and_the_others_are_read(tmp_path, encoding):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        two_colours().save(tmp_path / name)
    lines = ["# a comment", "'a.png'", "gone.png", "", ".\\sub\\b.png"]
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
    loader = LoadImages(tmp_path / "list.txt")
    assert [path.rpartition("/")[2] for path in loader.files] == ["a.png", "gone.png", "b.png"]
    assert next(loader)[2].shape == (40, 60, 3)
    with pytest.raises(FileNotFoundError, match=r"gone\.png does not exist; it is named in line 3 of .*list\.txt"):
        next(loader)
    assert next(loader)[0].endswith("b.png")


def test_a_list_of_nothing_that_is_there_is_a_mistake(tmp_path):
    (tmp_path / "list.txt").write_text("gone.png\naway.png\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"list\.txt names nothing that is there, the first is .*gone\.png"):
        read_list(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError):
        find_media(tmp_path / "list.txt")
