"""Labels: what is read from their files, which detections they make hits, and what was missed."""

import csv

import cv2
import numpy as np
import pytest
from scenes import confident_detector, picture, save_checkpoint

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.explainer import main, parse_opt
from explainer.explanation import Detection
from explainer.files.labels import Box, Labels, boxes_of, read_labels
from explainer.outcomes import judge

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


def detection(confidence, x1, y1, x2, y2, class_index=0):
    return Detection(np.float32([x1, y1, x2, y2]), confidence, class_index, "ant", 8, 0, 0)


def label(x1, y1, x2, y2, class_index=0):
    return Box(np.float32([x1, y1, x2, y2]), class_index)


@pytest.mark.parametrize(
    ("detections", "labels", "outcomes", "missed"),
    [
        ([detection(0.9, 0, 0, 10, 10)], [label(0, 0, 10, 10)], ["hit"], []),
        # Overlap 50 of 100 and 49 of 100.
        ([detection(0.9, 0, 0, 10, 5)], [label(0, 0, 10, 10)], ["hit"], []),
        ([detection(0.9, 0, 0, 10, 4.9)], [label(0, 0, 10, 10)], ["false alarm"], [0]),
        ([detection(0.9, 0, 0, 10, 10)], [label(0, 0, 10, 10, 1)], ["false alarm"], [0]),
        # Two detections of one object: the surer one hits, wherever it stands.
        (
            [detection(0.3, 0, 0, 10, 10), detection(0.9, 0, 0, 10, 9)],
            [label(0, 0, 10, 10)],
            ["false alarm", "hit"],
            [],
        ),
        # The surer one takes the label that it overlaps most, the other one what is left.
        (
            [detection(0.9, 0, 0, 10, 10), detection(0.8, 0, 0, 10, 10)],
            [label(0, 0, 10, 6), label(0, 0, 10, 10)],
            ["hit", "hit"],
            [],
        ),
        ([], [label(0, 0, 10, 10)], [], [0]),
        ([detection(0.9, 0, 0, 10, 10)], [], ["false alarm"], []),
        ([], [], [], []),
    ],
)
def test_a_detection_hits_the_free_label_of_its_class_that_it_overlaps_most(detections, labels, outcomes, missed):
    found, left = judge(detections, labels)
    assert found == outcomes
    assert [index for index, entry in enumerate(labels) if any(entry is other for other in left)] == missed


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
    with pytest.raises(UsageError, match=r"a\.txt cannot be read"):
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


@pytest.fixture(scope="module")
def sure():
    """Return a detection that lies well inside the picture and overlaps none of its class by half."""
    explainer = Explainer(confident_detector(), **SETTINGS, iou_thres=0.3)
    return next(e.detection for e in explainer(PICTURE).detections if (e.detection.xyxy > 2).all())


def test_detections_are_judged_and_misses_explained_at_their_labels_like_given_boxes(sure):
    explainer = Explainer(confident_detector(), **SETTINGS, iou_thres=0.3)
    labels = [(*sure.xyxy.tolist(), sure.name), (10, 5, 60, 50, "bee")]
    plain, judged = explainer(PICTURE), explainer(PICTURE, labels=labels)
    (given,) = explainer(PICTURE, boxes=labels[1:]).detections
    outcomes = [entry.detection.outcome for entry in judged.detections]
    assert outcomes.count("hit") == 1
    assert outcomes[-1] == "miss"
    assert set(outcomes[:-1]) == {"hit", "false alarm"}
    assert [entry.score for entry in judged.detections[:-1]] == [entry.score for entry in plain.detections]
    assert {entry.detection.outcome for entry in plain.detections} == {""}
    miss = judged.detections[-1]
    assert (miss.score, miss.detection.confidence) == (given.score, given.detection.confidence)
    assert (miss.heatmap == given.heatmap).all()


def test_without_labels_everything_is_a_false_alarm():
    explanation = Explainer(confident_detector(), **SETTINGS)(PICTURE, labels=[])
    assert {entry.detection.outcome for entry in explanation.detections} == {"false alarm"}


def test_labels_of_classes_that_are_not_explained_do_not_count():
    explainer = Explainer(confident_detector(), class_names="ant", conf_thres=0.99, imgsz=96)
    labels = [(10, 5, 60, 50, "bee"), (10, 5, 60, 50, "ant")]
    assert [entry.detection.name for entry in explainer(PICTURE, labels=labels).detections] == ["ant"]


def test_a_miss_says_so_on_its_box_and_in_its_title():
    explainer = Explainer(confident_detector(), conf_thres=0.99, imgsz=96)
    (miss,) = explainer(PICTURE, labels=[(10, 5, 60, 50, "bee")]).detections
    assert miss.detection.caption == "miss: bee"
    assert miss.title.startswith("miss: bee 0.")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


@pytest.fixture
def command(weights, tmp_path):
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


def test_the_table_and_the_log_say_what_became_of_detections_and_labels(command, capsys):
    code, rows = command("--labels", "{}/labels")
    log = capsys.readouterr().err
    assert code == 0
    assert [(row["name"], row["outcome"]) for row in rows] == [("bee", "miss"), ("cat", "miss"), ("", "")]
    assert "64x96 (no detections) (0 hits, 0 false alarms, 2 misses), " in log
    assert "Labels: 0 hits, 0 false alarms, 2 misses" in log


def test_hits_and_false_alarms_are_counted(command, capsys):
    code, rows = command("--labels", "{}/labels", "--nosave", confidence="0.05")
    outcomes = [row["outcome"] for row in rows]
    hits, false_alarms, misses = (outcomes.count(outcome) for outcome in ("hit", "false alarm", "miss"))
    assert code == 0
    assert hits + misses == 2
    assert false_alarms > 100
    assert (
        f"Labels: {hits} hit{'s' * (hits != 1)}, {false_alarms} false alarms, {misses} miss" in capsys.readouterr().err
    )


def test_labels_that_belong_to_none_of_the_images_are_reported(command, tmp_path, capsys):
    write(tmp_path / "others/c.txt", "")
    code, _ = command("--labels", "{}/others")
    assert code == 0
    assert (
        "others holds no file of any image, such as a.txt: all that is detected counts as a false alarm"
        in capsys.readouterr().err
    )


def test_without_labels_the_table_and_the_log_judge_nothing(command, capsys):
    _, rows = command(confidence="0.05")
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
def test_a_mistake_is_one_line_before_the_model_is_loaded(command, tmp_path, capsys, arguments, message):
    write(tmp_path / "bad/a.txt", "0 0.5 0.5 0.1 0.1\n1 2")
    code, rows = command(*arguments, "--weights", "nowhere.pt")
    error = capsys.readouterr().err.splitlines()
    assert (code, rows) == (2, None)
    assert message in error[-1]


def test_a_class_that_the_model_lacks_is_named_with_file_and_line_before_anything_is_written(command, tmp_path, capsys):
    write(tmp_path / "labels/b.txt", "7 0.5 0.5 0.1 0.1")
    code, rows = command("--labels", "{}/labels")
    assert (code, rows) == (2, None)
    assert "labels/b.txt:1: class 7, and the model knows 0..2" in capsys.readouterr().err


def test_labels_are_refused_for_a_stream(command, monkeypatch, capsys):
    from explainer.files import sources

    monkeypatch.setattr(sources, "open_loader", lambda *_: object())
    code, rows = command("--labels", "{}/labels", "--source", "0")
    assert (code, rows) == (2, None)
    assert "--labels belongs to files, and the source is a stream" in capsys.readouterr().err
