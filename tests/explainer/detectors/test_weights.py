"""From what the user names to a model, and the memory that passes of the network find again."""

import platform
from pathlib import Path

import pytest
from fresh_interpreter import run_there
from scenes import confident_detector, save_checkpoint
from torch import nn

from explainer.command.options import Options
from explainer.detectors.detector import Detector
from explainer.detectors.exported import Exported
from explainer.detectors.weights import detector_of, model_names, open_model
from explainer.detectors.yolov5 import YOLOv5
from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation

PASSES = 20

EXPLANATIONS = f"""
from resource import RUSAGE_SELF, getrusage

import numpy as np
import torch

from explainer.explain import Explainer
from models.yolo import DetectionModel

torch.manual_seed(0)
explain = Explainer(DetectionModel("models/yolov5n.yaml").eval(), method="DRISE", masks={PASSES})
for _ in range(2):
    before = getrusage(RUSAGE_SELF).ru_minflt
    explain(np.full((640, 640, 3), 114, np.uint8), boxes=[(50, 50, 300, 300, 0)])
print("pages:", getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they like")
def test_passes_over_and_over_ask_the_system_for_little_memory():
    pages = int(run_there(EXPLANATIONS).split("pages:")[1])
    assert pages < 1000 * PASSES, "each pass took more than 4 MB of memory anew"


def test_a_detector_is_explained_as_it_is_and_a_model_by_the_class_that_fits(tmp_path):
    detector = detector_of(confident_detector(), (96, 96))
    assert type(detector) is YOLOv5
    assert isinstance(detector, Detector)
    assert not issubclass(Exported, YOLOv5)
    assert detector_of(detector, (96, 96)) is detector


def test_a_checkpoint_is_opened_fused_and_its_weights_can_be_copied(tmp_path):
    path = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    model = open_model(path, device="cpu")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(parameter.is_leaf for parameter in model.parameters())
    assert not model.training


def test_several_checkpoints_are_an_ensemble_and_a_loaded_model_comes_back(tmp_path):
    path, model = save_checkpoint(tmp_path / "tiny.pt", confident_detector()), confident_detector()
    assert len(open_model([path, path], device="cpu")) == 2
    assert open_model(model) is model


def test_an_official_name_stands_for_its_checkpoint_with_or_without_its_suffix(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "yolov5n.pt", confident_detector())
    monkeypatch.chdir(tmp_path)
    assert not open_model("yolov5n", device="cpu").training
    assert len(open_model(["yolov5n", Path("yolov5n.pt")], device="cpu")) == 2
    assert Options(weights=str(tmp_path / "yolov5n")).weights == str(tmp_path / "yolov5n.pt")
    assert Options(compare=("yolov5n", "yolov5s6.pt")).compare == ("yolov5n.pt", "yolov5s6.pt")
    assert Evaluation(weights=["yolov5n", "best.pt"]).weights == ("yolov5n.pt", "best.pt")
    with pytest.raises(UsageError, match=r"--compare names yolov5n\.pt twice"):
        Options(compare=("yolov5n", "yolov5n.pt"))


@pytest.mark.parametrize("name", ["best", "yolov5q", "yolov5n7", "yolov5"])
def test_a_name_that_is_not_official_needs_its_suffix(name):
    with pytest.raises(UsageError, match=f"weights '{name}' is no .pt checkpoint"):
        open_model(name, device="cpu")


def test_models_are_called_after_their_files_with_as_many_folders_as_tell_them_apart():
    assert model_names(["a/best.pt", "b/last.pt"]) == ["best.pt", "last.pt"]
    assert model_names(["a/best.pt", "b/best.pt"]) == ["a/best.pt", "b/best.pt"]
    assert model_names([nn.Identity(), "best.pt"]) == ["model 1", "best.pt"]
    with pytest.raises(UsageError, match=r"--compare names .*best\.pt twice; give each model once"):
        model_names(["best.pt", "best.pt"])
