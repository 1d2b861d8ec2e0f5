"""No file that a user can give ends a command in a traceback: one line says what is wrong, and the exit code is 1 or 2."""

import os
import zipfile
from collections import OrderedDict

import pytest
import torch
import yaml
from forged import Call
from scenes import confident_detector, save_checkpoint
from tiny_detectors import tiny_detector
from tiny_media import claiming_jpeg, claiming_png, two_colours

import detect
import train
import val
from explainer import evaluate, explainer

COMMANDS = {
    "detect": detect,
    "val": val,
    "train": train,
    "explainer": explainer,
    "evaluate": evaluate,
}
# What a command logs before it comes to the input: its options, the model, the images.
MOST_LINES = 12


def whole_picture(path):
    two_colours(96, 64).save(path)
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The paths of a good checkpoint and of a picture."""
    folder = tmp_path_factory.mktemp("given")
    return {
        "weights": save_checkpoint(folder / "tiny.pt", confident_detector()),
        "picture": str(whole_picture(folder / "a.png")),
    }


def dataset(folder, *, images="images", labels="0 0.5 0.5 0.2 0.3\n", **changes):
    """Write a data set of one picture, or of what is there already, and return its YAML."""
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    if not any((folder / "images").iterdir()):
        whole_picture(folder / "images/a.png")
    if not any((folder / "labels").iterdir()):
        (folder / "labels/a.txt").write_text(labels, encoding="utf-8")
    content = {"path": str(folder), "train": images, "val": images, "names": ["ant", "bee", "cat"]} | changes
    (folder / "set.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(folder / "set.yaml")


def words_for(command, folder, given, **changes):
    """Return the options of a quick run; `None` leaves one out."""
    usual = {"weights": given["weights"], "imgsz": 64, "device": "cpu", "project": folder / "runs"}
    if command in ("detect", "explainer"):
        usual |= {"source": given["picture"]}
    elif "data" not in changes:
        usual |= {"data": dataset(folder)}
    usual |= {
        "train": {"epochs": 1, "workers": 0, "batch-size": 1, "noplots": True},
        "val": {"workers": 0},
        "evaluate": {"steps": 2, "nosave": True, "method": "EigenCAM"},
    }.get(command, {})
    pairs = {name: value for name, value in (usual | changes).items() if value is not None}
    return [word for name, value in pairs.items() for word in (f"--{name}", *([] if value is True else [str(value)]))]


def hold(command, words, capsys):
    """Run a command, whose exit code must be 1 or 2, and which must say why in few lines."""
    try:
        code = COMMANDS[command].main(COMMANDS[command].parse_opt(words))
    except SystemExit as refused:
        code = refused.code
    error = capsys.readouterr().err
    assert code in (1, 2), error
    assert "Traceback" not in error
    lines = error.splitlines()
    assert 1 <= len(lines) <= MOST_LINES, error
    if code == 2:
        assert lines[-1].startswith((f"{command}.py: ", f"{command}: error: ")), lines[-1]


def content_of(data):
    return lambda path: path.write_bytes(data)


def saved(content):
    return lambda path: torch.save(content, path)


def half_of_a_checkpoint(path):
    save_checkpoint(path, tiny_detector())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")


def headless(path):
    model = tiny_detector()
    vars(model.model[-1]).update(nc=10**9)
    save_checkpoint(path, model)


CHECKPOINTS = {
    "not there": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": content_of(b""),
    "a page": content_of(b"<!DOCTYPE html><title>404</title>"),
    "noise": content_of(bytes(range(256)) * 40),
    "half": half_of_a_checkpoint,
    "another archive": another_archive,
    "a program": saved({"model": Call(os.system, "exit 0")}),
    "weights alone": saved(tiny_detector().state_dict()),
    "a number": saved(5),
    "no model": saved({"model": None, "ema": None}),
    "another network": saved({"model": torch.nn.Linear(2, 2)}),
    "a head of a thousand million classes": headless,
    "metadata alone": saved(OrderedDict(epoch=3)),
}
IMAGES = {
    "empty": content_of(b""),
    "text": content_of(b"hello"),
    "half": lambda path: (whole_picture(path), path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "the claim of 900 megapixels": lambda path: claiming_png(path, 30_000, 30_000),
    "a JPEG that claims 4,000": lambda path: claiming_jpeg(path, 65_500, 65_500),
    "a page": content_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
}
LABELS = {
    "text": b"a cat",
    "four numbers": b"0 0.5 0.5 0.2",
    "no number": b"0 nan 0.5 0.2 0.2",
    "pixels": b"0 320 240 50 50",
    "another class": b"7 0.5 0.5 0.2 0.2",
    "a huge class": b"99999999999999999999 0.5 0.5 0.2 0.2",
    "not UTF-8": "0 0.5 0.5 0.2 0.2 é".encode("latin-1"),
    "NUL": b"0 0.5 0.5 0.2 0.2\n\0\0\0",
}
LISTS = {
    "empty": b"",
    "nothing that is there": b"gone.jpg\naway.jpg\n",
    "not UTF-8": "images/狗.jpg".encode("gbk"),
    "NUL": b"images/a.png\0",
    "noise": bytes(range(128, 256)),
    "a name too long": b"a" * 5000 + b".jpg\n",
}
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvwx", "bcdefghijklmnopqrstuvwxy", strict=True)
)
YAMLS = {
    "empty": b"",
    "a list": b"- a\n- b\n",
    "no YAML": b"names: [a, b",
    "not UTF-8": "path: .\nval: images\ntrain: images\nnames: ['猫']".encode("gbk"),
    "noise": bytes(range(128, 256)),
    "an alias bomb": (BOMB + "names: *y\nval: *y\ntrain: *y\n").encode(),
    "a loop": b"names: &a [*a]\ntrain: images\nval: images\n",
    "too deep": b"names: " + b"[" * 1200,
    "a program": b"names: !!python/object/apply:os.system ['exit 0']\ntrain: a\nval: a\n",
    "names that are a number": b"path: .\ntrain: images\nval: images\nnames: 5\n",
    "names that are lists": b"path: .\ntrain: images\nval: images\nnames: [[a], [b], [c]]\n",
}
DATA_YAMLS = YAMLS | {
    "no images": b"names: [ant, bee, cat]\n",
    "images that are a number": b"train: 5\nval: 5\nnames: [ant, bee, cat]\n",
    "images that are not there": b"path: /nowhere\ntrain: images\nval: images\nnames: [ant, bee, cat]\n",
    "a path of another kind": b"path: [a]\ntrain: images\nval: images\nnames: [ant, bee, cat]\n",
}
HYPS = {name: data for name, data in YAMLS.items() if "names" not in name} | {
    "an unknown name": b"mosiac: 1",
    "text": b"lr0: fast",
    "a list in it": b"lr0: [1]",
    "no number": b"lr0: .nan",
    "odd anchors": b"anchors: x",
    "odd smoothing": b"label_smoothing: x",
}
OPTIONS = YAMLS | {"another kind": b"epochs: [1]\nsteps: many\nsource: [5]\nweights: {a: b}\ntable_begins_at: x\n"}
PROGRAMS = {
    "model.onnx": b"noise" * 99,
    "none.onnx": b"",
    "model.torchscript": b"noise" * 99,
    "none.torchscript": b"",
    "model.engine": b"noise",
    "model.tflite": b"",
    "model.zip": b"PK\x03\x04",
}


def every(*commands, cases):
    """Run a test for each command with each case."""
    return pytest.mark.parametrize(
        ("command", "case"), [(command, case) for command in commands for case in cases], ids=lambda value: str(value)
    )


@every(*COMMANDS, cases=CHECKPOINTS)
def test_a_bad_checkpoint_is_one_line(command, case, tmp_path, given, capsys):
    CHECKPOINTS[case](tmp_path / "bad.pt")
    hold(command, words_for(command, tmp_path, given, weights=tmp_path / "bad.pt"), capsys)


@every(*COMMANDS, cases=IMAGES)
def test_a_bad_image_is_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / "images").mkdir()
    IMAGES[case](tmp_path / ("images/a.jpg" if "JPEG" in case else "images/a.png"))
    words = words_for(command, tmp_path, given, **at(command, tmp_path / "images", dataset(tmp_path)))
    hold(command, words, capsys)


def at(command, source, data):
    """Return the option that says where a command finds its pictures."""
    return {"source": source} if command in ("detect", "explainer") else {"data": data}


@every("val", "train", "evaluate", "explainer", cases=LABELS)
def test_a_bad_label_is_one_line(command, case, tmp_path, given, capsys):
    data = dataset(tmp_path)
    (tmp_path / "labels/a.txt").write_bytes(LABELS[case])
    where = {"labels": tmp_path / "labels"} if command == "explainer" else {"data": data}
    hold(command, words_for(command, tmp_path, given, **where), capsys)


@every(*COMMANDS, cases=LISTS)
def test_a_bad_list_is_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / "list.txt").write_bytes(LISTS[case])
    data = dataset(tmp_path, images="list.txt")
    hold(command, words_for(command, tmp_path, given, **at(command, tmp_path / "list.txt", data)), capsys)


@every("val", "train", "evaluate", cases=DATA_YAMLS)
def test_a_bad_description_of_data_is_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / "bad.yaml").write_bytes(DATA_YAMLS[case])
    hold(command, words_for(command, tmp_path, given, data=tmp_path / "bad.yaml"), capsys)


@every("explainer", cases=YAMLS)
def test_a_bad_file_of_names_is_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / "bad.yaml").write_bytes(YAMLS[case])
    hold(command, words_for(command, tmp_path, given, data=tmp_path / "bad.yaml"), capsys)


@every("train", cases=HYPS)
def test_bad_hyperparameters_are_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / "hyp.yaml").write_bytes(HYPS[case])
    hold(command, words_for(command, tmp_path, given, hyp=tmp_path / "hyp.yaml"), capsys)


@every("explainer", "evaluate", "train", cases=OPTIONS)
def test_a_bad_file_of_options_is_one_line(command, case, tmp_path, given, capsys):
    folder = tmp_path / "run"
    (folder / "weights").mkdir(parents=True)
    (folder / ("opt.yaml" if command == "train" else "options.yaml")).write_bytes(OPTIONS[case])
    save_checkpoint(folder / "weights/last.pt", confident_detector())
    hold(command, ["--resume", str(folder / "weights/last.pt" if command == "train" else folder)], capsys)


@every(*COMMANDS, cases=PROGRAMS)
def test_a_bad_exported_program_is_one_line(command, case, tmp_path, given, capsys):
    (tmp_path / case).write_bytes(PROGRAMS[case])
    black_box = {"method": "DRISE", "masks": 2} if command in ("explainer", "evaluate") else {}
    trusted = {"trust": True} if "noise" in str(PROGRAMS[case]) else {}
    words = words_for(command, tmp_path, given, weights=tmp_path / case, **black_box, **trusted)
    hold(command, words, capsys)
