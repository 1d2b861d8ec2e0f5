"""The commands explain, compare and evaluate detectors of torchvision as they do a YOLOv5."""

import csv

import cv2
import numpy as np
import pytest
import small_torchvision
import torch
from scenes import confident_detector, picture, save_checkpoint
from small_torchvision import small_model

from explainer import evaluate, explainer
from explainer.command.opening import with_absolute_paths
from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explainer import run

PICTURE = picture(90, 120)
ARCH = f"{small_torchvision.__file__}:faster_rcnn"


@pytest.fixture
def files(tmp_path):
    """Return a folder with a picture and its labels, and the weights of a Faster R-CNN and of a YOLOv5."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), PICTURE[..., ::-1])
    (tmp_path / "labels/one.txt").write_text("1 0.5 0.5 0.4 0.4\n")
    torch.save(small_model("Faster R-CNN").state_dict(), tmp_path / "mine.pth")
    save_checkpoint(tmp_path / "yolo.pt", confident_detector())
    return tmp_path


def explain(files, *arguments):
    """Run the command on the pictures; return its exit code and the rows of its table."""
    given = ["--source", str(files / "images"), "--project", str(files / "out"), "--arch", ARCH, "--conf-thres", "0.2"]
    code = explainer.main(explainer.parse_opt([*given, "--max-det", "3", "--exist-ok", *arguments]))
    return code, table(files / "out/exp/explanations.csv")


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_everything_that_is_saved_of_a_yolov5_is_saved_of_a_faster_rcnn(files):
    mine = ["--weights", str(files / "mine.pth"), "--labels", str(files / "labels")]
    code, rows = explain(files, *mine, "--report", "--per-detection", "--save-npz", "--scales", "--signed")
    assert code == 0
    assert {row["name"] for row in rows} <= {"class0", "class1", "class2"}
    assert {"miss"} <= {row["outcome"] for row in rows} <= {"hit", "false alarm", "miss"}
    assert {row["layer"] for row in rows} <= {f"pyramid.{level}" for level in range(3)}
    saved = {path.suffix for path in (files / "out/exp").rglob("*") if path.is_file()}
    assert {".png", ".npz", ".html", ".csv"} <= saved


def test_a_run_that_was_stopped_goes_on_from_another_folder(files, monkeypatch):
    _, before = explain(files, "--weights", str(files / "mine.pth"))
    monkeypatch.chdir(files)
    code = explainer.main(explainer.parse_opt(["--resume", str(files / "out/exp")]))
    assert code == 0
    assert table(files / "out/exp/explanations.csv") == before
    kept = with_absolute_paths(Options(weights="mine.pth", arch="arch.py:build"))
    assert kept.arch == f"{files / 'arch.py'}:build"


def test_a_yolov5_and_a_faster_rcnn_are_compared_on_one_sheet(files):
    pair = ["--compare", str(files / "yolo.pt"), str(files / "mine.pth")]
    code, rows = explain(files, *pair, "--method", "LayerCAM")
    assert code == 0
    assert {row["model"] for row in rows} == {"yolo.pt", "mine.pth"}


def test_run_takes_a_model_of_torchvision(files):
    image = run(weights=small_model("RetinaNet"), source=str(files / "images/one.png"), project=files / "out", imgsz=64)
    assert (image.shape, image.dtype) == (PICTURE.shape, np.uint8)


@pytest.mark.parametrize("method", ["DRISE", "FocusedRISE"])
def test_black_box_methods_hide_parts_of_the_image_from_it(files, method):
    code, rows = explain(files, "--weights", str(files / "mine.pth"), "--method", method, "--masks", "16")
    assert code == 0
    assert rows[0]["layer"] == "predictions"


def test_methods_are_evaluated_on_it_and_an_evaluation_goes_on(files):
    given = ["--weights", str(files / "mine.pth"), "--arch", ARCH, "--data", str(files / "images"), "--steps", "4"]
    given += ["--method", "GradCAM", "LayerCAM", "--conf-thres", "0.2", "--max-det-per-image", "2", "--sanity"]
    options = evaluate.parse_opt([*given, "--project", str(files / "out"), "--nosave"])
    assert evaluate.main(options) == 0
    before = (files / "out/exp/detections.csv").read_text()
    assert "GradCAM" in before
    assert evaluate.main(evaluate.parse_opt(["--resume", str(files / "out/exp")])) == 0


def test_an_architecture_without_a_file_of_weights_is_refused(files):
    with pytest.raises(UsageError, match="leave it out"):
        run(weights="fasterrcnn_resnet50_fpn", arch=ARCH, source=str(files / "images/one.png"), project=files / "out")
