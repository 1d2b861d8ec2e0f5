"""What the command can be asked: given boxes, labels, scales, an exported model; what it writes, and what it refuses."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from scenes import confident_detector, picture, save_checkpoint
from torch import nn

from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explainer import main, parse_opt, run
from explainer.pictures.lettering import contrasting
from utils.plots import colors

PICTURE = picture(64, 96)
ASKED = [(10, 5, 60, 50, 1), (70, 40, 96, 64, 2)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


# Given boxes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": ASKED, "use_old_target_method": True}, "leave it or --boxes out"),
        ({"labels": "labels", "use_old_target_method": True}, "leave it or --labels out"),
        ({"boxes": ASKED, "labels": "labels"}, "leave one of them out"),
        ({"boxes": ASKED, "class_names": "bee"}, "--boxes says the class of each box itself; leave --class-names out"),
        ({"boxes": ASKED, "classes": 1}, "--boxes says the class of each box itself; leave --classes out"),
        ({"boxes": [(50, 5, 20, 30, "bee")]}, "encloses nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_options_that_contradict_given_boxes_are_refused_before_a_model_is_loaded(given, message):
    with pytest.raises(UsageError, match=message):
        Options(**given)


@pytest.fixture
def command(weights, tmp_path):
    """Run the command on the picture and return its exit code and the rows of its table."""
    cv2.imwrite(str(tmp_path / "one.png"), PICTURE[..., ::-1])

    def call(*arguments):
        common = ["--weights", weights, "--source", str(tmp_path / "one.png"), "--imgsz", "96"]
        code = main(parse_opt([*common, "--project", str(tmp_path / "out"), *arguments]))
        table = tmp_path / "out/exp/explanations.csv"
        return code, list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else None

    return call


def test_the_command_takes_boxes_and_writes_a_row_for_each(command, capsys):
    code, rows = command("--boxes", "10", "5", "60", "50", "bee", "--boxes", "70", "40", "96", "64", "0")
    assert code == 0
    assert [(row["name"], row["outcome"], row["x1"]) for row in rows] == [
        ("bee", "given", "10.00"),
        ("ant", "given", "70.00"),
    ]
    assert "64x96 2 given boxes, " in capsys.readouterr().err


def test_a_box_of_a_class_that_the_model_lacks_leaves_nothing_behind(command, capsys):
    code, rows = command("--boxes", "10", "5", "60", "50", "dragon")
    assert (code, rows) == (2, None)
    assert "unknown class of --boxes 'dragon'; known: 0 ant, 1 bee, 2 cat" in capsys.readouterr().err


def test_run_takes_the_same_boxes_and_draws_them_dashed(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 90, np.uint8))
    options = {"weights": weights, "source": str(tmp_path / "grey.png"), "imgsz": 96, "hide_labels": True, "crop": True}
    drawn = run(boxes=[(10, 5, 60, 50, "bee")], line_thickness=1, project=str(tmp_path / "out"), **options)
    along_the_top = {tuple(pixel) for pixel in drawn[4, 11:60].tolist()}
    assert along_the_top == {tuple(colors(1)), contrasting(tuple(colors(1)))}


def test_a_given_box_holds_for_every_frame_of_a_video(command, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for seed in range(3):
        writer.write(picture(seed=seed))
    writer.release()
    code, rows = command("--source", str(tmp_path / "clip.mp4"), "--boxes", "10", "5", "60", "50", "bee")
    assert code == 0
    assert [(row["frame"], row["x2"]) for row in rows] == [("1", "60.00"), ("2", "60.00"), ("3", "60.00")]


# Labels


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def judging(weights, tmp_path):
    """Run the command on two images with labels for one; return its exit code and the rows, None if there is no table."""
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), PICTURE[..., ::-1])
    write(tmp_path / "labels/a.txt", "1 0.4 0.4 0.5 0.7\n2 0.9 0.9 0.1 0.1")

    def call(*arguments, confidence="0.99"):
        common = ["--weights", weights, "--source", str(tmp_path / "images"), "--imgsz", "96"]
        more = ["--conf-thres", confidence, "--project", str(tmp_path / "out")]
        code = main(parse_opt([*common, *more, *(argument.format(tmp_path) for argument in arguments)]))
        table = tmp_path / "out/exp/explanations.csv"
        return code, list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else None

    return call


def test_the_table_and_the_log_say_what_became_of_detections_and_labels(judging, capsys):
    code, rows = judging("--labels", "{}/labels", "--no-near-miss")
    log = capsys.readouterr().err
    assert code == 0
    assert [(row["name"], row["outcome"]) for row in rows] == [("bee", "miss"), ("cat", "miss"), ("", "")]
    assert "64x96 (no detections) (0 hits, 0 false alarms, 2 misses), " in log
    assert "Labels: 0 hits, 0 false alarms, 2 misses" in log


def test_a_near_miss_is_explained_where_no_label_was_missed_and_is_no_false_alarm(judging, capsys):
    _, rows = judging("--labels", "{}/labels")
    log = capsys.readouterr().err
    assert [row["outcome"] for row in rows] == ["miss", "miss", "below threshold"]
    assert "64x96 (no detections), best below 0.99: cat 0.44, " in log
    assert "Labels: 0 hits, 0 false alarms, 2 misses" in log


def test_hits_and_false_alarms_are_counted(judging, capsys):
    code, rows = judging("--labels", "{}/labels", "--nosave", confidence="0.05")
    outcomes = [row["outcome"] for row in rows]
    hits, false_alarms, misses = (outcomes.count(outcome) for outcome in ("hit", "false alarm", "miss"))
    assert code == 0
    assert hits + misses == 2
    assert false_alarms > 100
    assert (
        f"Labels: {hits} hit{'s' * (hits != 1)}, {false_alarms} false alarms, {misses} miss" in capsys.readouterr().err
    )


def test_labels_that_belong_to_none_of_the_images_are_reported(judging, tmp_path, capsys):
    write(tmp_path / "others/c.txt", "")
    code, _ = judging("--labels", "{}/others")
    assert code == 0
    assert (
        "others holds no file of any image, such as a.txt: all that is detected counts as a false alarm"
        in capsys.readouterr().err
    )


def test_without_labels_the_table_and_the_log_judge_nothing(judging, capsys):
    _, rows = judging(confidence="0.05")
    assert {row["outcome"] for row in rows} == {""}
    assert "false alarm" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "{}/nowhere"], "/nowhere' does not exist; give a folder of YOLO .txt files"),
        (["--labels", "{}/images"], "/images' holds no .txt file"),
        (["--labels", "{}/images/a.png"], "a.png' is no .txt file"),
        (["--labels", "{}/labels/a.txt"], "is one image's file, and the source has 2; give the folder"),
        (["--labels", "{}/bad"], "bad/a.txt:2: 2 numbers"),
    ],
)
def test_a_mistake_is_one_line_before_the_model_is_loaded(judging, tmp_path, capsys, arguments, message):
    write(tmp_path / "bad/a.txt", "0 0.5 0.5 0.1 0.1\n1 2")
    code, rows = judging(*arguments, "--weights", "nowhere.pt")
    error = capsys.readouterr().err.splitlines()
    assert (code, rows) == (2, None)
    assert message in error[-1]


def test_a_class_that_the_model_lacks_is_named_with_file_and_line_before_anything_is_written(judging, tmp_path, capsys):
    write(tmp_path / "labels/b.txt", "7 0.5 0.5 0.1 0.1")
    code, rows = judging("--labels", "{}/labels")
    assert (code, rows) == (2, None)
    assert "labels/b.txt:1: class 7, and the model knows 0..2" in capsys.readouterr().err


def test_labels_are_refused_for_a_stream(judging, monkeypatch, capsys):
    from explainer.files import sources

    monkeypatch.setattr(sources, "open_loader", lambda *_: object())
    code, rows = judging("--labels", "{}/labels", "--source", "0")
    assert (code, rows) == (2, None)
    assert "--labels belongs to files, and the source is a stream" in capsys.readouterr().err


# Signs and scales


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eigen_smooth": True}, "--eigen-smooth .* sign is arbitrary; leave it or --signed out"),
        ({"aug_smooth": True}, "--aug-smooth .*; leave it or --signed out"),
        ({"crop": True}, "--crop .*; leave it or --signed out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_have_no_sign_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Options(signed=True, **given)


def test_the_command_writes_a_sheet_with_the_photograph_and_a_tile_for_each_scale(weights, tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), PICTURE[..., ::-1])
    common = ["--weights", weights, "--source", str(tmp_path / "one.png"), "--imgsz", "96", "--conf-thres", "0.05"]
    for arguments in (["--scales"], []):
        assert main(parse_opt([*common, "--project", str(tmp_path / "out"), *arguments])) == 0
    sheet = cv2.imread(str(tmp_path / "out/exp/one/scales.jpg"))
    assert sheet.shape[1] > 2 * sheet.shape[0]
    assert not (tmp_path / "out/exp2/one").exists()


# An exported model


class PredictionsAlone(nn.Module):
    """A detector that gives its predictions alone, as exports do."""

    def __init__(self):
        super().__init__()
        self.detector = confident_detector()
        # Stock YOLOv5 keeps the grids of the size that it is exported with unless it is told not to.
        self.detector.model[-1].dynamic = True

    def forward(self, im):
        return self.detector(im)[0]


def test_the_command_refuses_before_anything_is_loaded(capsys):
    assert main(parse_opt(["--weights", "missing.onnx", "--method", "DRISE", "LayerCAM"])) == 2
    line = capsys.readouterr().err
    assert (
        "weights 'missing.onnx' is no .pt checkpoint: an exported model gives predictions alone, and LayerCAM" in line
    )
    assert line.count("\n") == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_the_command_explains_an_exported_model(tmp_path):
    path, extra = str(tmp_path / "best.torchscript"), json.dumps({"stride": 8, "names": confident_detector().names})
    traced = torch.jit.trace(PredictionsAlone(), torch.zeros(1, 3, 64, 96))
    torch.jit.save(traced, path, _extra_files={"config.txt": extra})
    cv2.imwrite(str(tmp_path / "picture.png"), PICTURE[..., ::-1])
    settings = {"method": "DRISE", "conf_thres": 0.05, "imgsz": (64, 96), "max_det": 5, "masks": 12, "trust": True}
    image = run(weights=path, source=str(tmp_path / "picture.png"), project=str(tmp_path / "runs"), **settings)
    assert image.shape == PICTURE.shape
    with (tmp_path / "runs/exp/explanations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert {row["layer"] for row in rows} == {"predictions"}
    assert {row["stride"] for row in rows} <= {"4", "8"}
    assert {row["method"] for row in rows} == {"DRISE"}
