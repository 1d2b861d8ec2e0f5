"""Model files: what their words mean, and what is said about a mistake."""

import sys

import pytest
import yaml
from tiny_models import tiny_spec
from torch import nn

from models.building import BLOCKS
from models.parsing import find_yaml, load_spec, make_divisible, parse_activation, resolve
from models.yolo import DetectionModel, parse_model

CODE = "__import__('os').system('echo harm')"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nn.SiLU()", nn.SiLU()),
        ("torch.nn.LeakyReLU(0.1)", nn.LeakyReLU(0.1)),
        ("nn.Hardtanh(min_val=-2, max_val=2.5)", nn.Hardtanh(-2, 2.5)),
        ("nn.Identity()", nn.Identity()),
    ],
)
def test_an_activation_is_built_from_its_text(text, expected):
    assert repr(parse_activation(text)) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"nn.LeakyReLU({CODE})",
        "nn.Conv2d(1, 1, 1)",
        "nn.SiLU",
        "nn.SiLU().__class__()",
        "nn.modules.SiLU()",
        "1 +",
        "",
    ],
)
def test_text_that_is_no_activation_is_refused_with_the_known_ones(text, capfd):
    with pytest.raises(ValueError, match=r"is no activation: .*nn\.SiLU"):
        parse_activation(text)
    assert "harm" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("None", None),
        ("False", False),
        ("2", 2),
        ("[5, 9]", [5, 9]),
        ("nearest", "nearest"),
        ("nc", 3),
        ("anchors", [[1, 2]]),
        (CODE, CODE),
        (2, 2),
        ([0, 1], [0, 1]),
    ],
)
def test_words_in_arguments_get_their_meaning_and_code_stays_text(argument, expected):
    assert resolve(argument, {"nc": 3, "anchors": [[1, 2]]}) == expected


def test_an_activation_may_be_an_argument():
    assert isinstance(resolve("nn.ReLU()", {}), nn.ReLU)


def test_parsing_needs_no_eval(monkeypatch):
    def refuse(*_args):
        raise AssertionError("text of a model file was run")

    monkeypatch.setattr(sys.modules["builtins"], "eval", refuse)
    monkeypatch.setattr(sys.modules["builtins"], "exec", refuse)
    DetectionModel(tiny_spec(activation="nn.LeakyReLU(0.1)"))


def test_an_unknown_module_is_named_with_the_known_ones():
    spec = tiny_spec(backbone=[[-1, 1, "Convv", [8]]])
    with pytest.raises(ValueError, match=r"layer 0 .*'Convv'.*Conv.*C3.*Detect"):
        parse_model(spec, [3])


@pytest.mark.parametrize("name", [CODE, "os.system", "nn.functional", "nn.modules.conv.Conv2d", "torch.load"])
def test_only_names_in_the_table_are_modules(name):
    with pytest.raises(ValueError, match="unknown module"):
        parse_model(tiny_spec(backbone=[[-1, 1, name, ["echo harm"]]]), [3])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([-1, 1, "Conv"], "layer 1 .*write"),
        ([-1, 1, "Conv", 8], "layer 1 .*write"),
        ([7, 1, "Conv", [8]], "layer 1 .*reads from layer 7"),
        ([-3, 1, "Conv", [8]], "layer 1 .*reads from layer -3"),
        (["x", 1, "Conv", [8]], "layer 1 .*reads from x"),
        ([-1, "1", "Conv", [8]], "layer 1 .*write"),
        ([-1, 10**7, "Conv", [8]], "layer 1 .*repeated 10000000 times; give 1 to 1000"),
        ([-1, -1, "Conv", [8]], "layer 1 .*repeated -1 times"),
        ([-1, 1, ["Conv"], [8]], "layer 1 .*unknown module"),
        ([[], 1, "Concat", [1]], "layer 1 .*reads from no layer"),
        ([-1, 1, "Conv", [10**9]], "layer 1 .*1000000000 channels; give 1 to 100000"),
        ([-1, 1, "Conv", [8, -3]], "layer 1 .*Conv does not take"),
        ([-1, 1, "Detect", ["nc", "anchors"]], "layer 1 .*Detect does not take .*1 inputs and anchors for 2"),
        ([-1, 1, "Conv", []], "layer 1 .*Conv does not take"),
        ([-1, 1, "Conv", [8, 3, 1, 0, 1, 1, True, "more"]], "layer 1 .*Conv does not take"),
    ],
)
def test_a_bad_entry_is_named_by_its_index(entry, message):
    spec = tiny_spec(backbone=[[-1, 1, "Conv", [8]], entry])
    with pytest.raises(ValueError, match=message):
        parse_model(spec, [3])


def test_a_missing_key_is_named():
    spec = tiny_spec()
    del spec["anchors"]
    with pytest.raises(ValueError, match="lacks anchors"):
        load_spec(spec)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("nc", value) for value in ("x", -1, 0, 1.5, None, True, 10**9)),
        *(("anchors", value) for value in ("x", 0, None, {"a": 1}, [[]], [[0, 0], [0, 0]], [["a", "b"]])),
        *(("depth_multiple", value) for value in ("x", -1, None, 1e9, float("nan"))),
        *(("width_multiple", value) for value in (0, float("inf"))),
        *(("channel_multiple", 0), ("ch", -3), ("backbone", None), ("head", "x")),
    ],
)
def test_a_value_that_makes_no_model_is_named_with_its_file(tmp_path, key, value):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny_spec() | {key: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"mine\.yaml: {key} is .*; give "):
        DetectionModel(tmp_path / "mine.yaml")


def test_layers_that_do_not_fit_each_other_are_told():
    spec = tiny_spec(backbone=[[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.Linear", [5, 5]]])
    spec["head"] = [[[0, 1], 1, "Detect", ["nc", "anchors"]]]
    with pytest.raises(ValueError, match="the layers of the model file do not fit each other"):
        DetectionModel(spec)


def test_an_argument_that_python_might_choke_on_is_plain_text():
    assert resolve("-" * 300_000 + "1", {}) == "-" * 300_000 + "1"
    with pytest.raises(ValueError, match="is no activation"):
        parse_activation("nn.ReLU" + "(" * 300_000)


@pytest.mark.parametrize(("text", "message"), [("- 1\n- 2\n", "key: value"), ("a: [1", "not valid YAML"), ("", "key")])
def test_a_file_that_is_no_description_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"mine.yaml.*{message}"):
        load_spec(path)


def test_a_file_is_found_by_its_name_alone():
    assert find_yaml("yolov5s-seg.yaml").parts[-3:] == ("models", "segment", "yolov5s-seg.yaml")
    with pytest.raises(FileNotFoundError, match=r"no model file 'yolov5q\.yaml'.*yolov5s\.yaml"):
        find_yaml("yolov5q.yaml")


def test_channels_are_rounded_up():
    assert [make_divisible(x, 8) for x in (1, 8, 8.1, 16)] == [8, 8, 16, 16]


def test_every_block_says_what_it_is():
    own = {block for name, (block, _) in BLOCKS.items() if not name.startswith("nn.")}
    assert all(block.__doc__ for block in own)
