"""torch.hub finds the entry points in this checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
import small_torchvision
import torch
from scenes import confident_detector, picture, save_checkpoint
from small_torchvision import small_model

import hubconf

ROOT = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


def load(entry, **arguments):
    return torch.hub.load(ROOT, entry, source="local", **arguments)


def test_a_checkpoint_of_one_s_own_detects_in_pictures(weights):
    model = load("custom", path=weights, device="cpu", _verbose=False)
    model.conf = 0.05
    assert len(model(picture(), size=96).pandas().xyxy[0]) > 2


def test_the_explainer_takes_a_model_of_the_hub_and_is_one_itself(weights):
    settings = {"method": "LayerCAM", "imgsz": 96, "conf_thres": 0.05}
    one = load("explainer", path=weights, device="cpu", **settings)(picture())
    from explainer.explain import Explainer

    other = Explainer(load("custom", path=weights, device="cpu", _verbose=False), **settings)(picture())
    assert one.heatmap.any()
    assert (one.heatmap == other.heatmap).all()


def test_every_official_size_has_an_entry_point():
    assert {"custom", "explainer", *(f"yolov5{size}" for size in "nsmlx")} <= set(dir(hubconf))


def test_a_new_network_has_the_classes_that_were_asked_for():
    model = load("yolov5n", pretrained=False, classes=4, device="cpu")
    assert model.model[-1].nc == 4


def test_pretrained_weights_for_other_classes_are_refused():
    with pytest.raises(ValueError, match="pretrained=False"):
        load("yolov5n", classes=4)


def test_a_path_without_its_suffix_is_that_of_a_checkpoint(weights):
    model = load("custom", path=weights.removesuffix(".pt"), device="cpu", _verbose=False)
    assert model.names == {0: "ant", 1: "bee", 2: "cat"}
    assert load("explainer", path=Path(weights).with_suffix(""), device="cpu").detector.names == model.names


@pytest.mark.parametrize("path", ["gone", "folder/gone.v2"])
def test_a_name_that_is_nowhere_is_named_with_the_suffix(path):
    with pytest.raises(FileNotFoundError, match=rf"{path}\.pt does not exist"):
        hubconf.custom(path, device="cpu")


def test_the_network_inside_can_be_traced(weights):
    model = load("custom", path=weights, device="cpu", _verbose=False)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        traced = torch.jit.trace(model.model.model, image)
        torch.testing.assert_close(traced(image)[0], model.model.model(image)[0])


def test_what_was_found_prints_a_line_for_each_picture_and_the_speed(weights):
    model = load("custom", path=weights, device="cpu", _verbose=False)
    first, second, speed = str(model([picture(), picture(48, 64)], size=96)).splitlines()
    assert first.startswith("image 1/2: 64x96 ")
    assert second.startswith("image 2/2: 48x64 ")
    assert speed.startswith("Speed: ")


def test_the_command_tries_a_model_on_the_pictures_of_the_repository(weights, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("models.detections.Detections.save", lambda self, save_dir: seen.append(self.n))
    assert hubconf._main(["--model", weights, "--device", "cpu"]) == 0
    assert seen == [6]
    assert "image 6/6: " in capsys.readouterr().err


def test_a_mistake_in_the_command_is_one_line(capsys):
    assert hubconf._main(["--model", "gone", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("hubconf.py: gone.pt does not exist")


@pytest.mark.parametrize("script", ["hubconf.py", "models/yolo.py"])
def test_scripts_run_from_any_folder(script, tmp_path):
    command = [sys.executable, f"{ROOT}/{script}", "--help"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_the_explainer_takes_models_of_torchvision(tmp_path):
    model = small_model("Faster R-CNN")
    assert load("explainer", path=model, device="cpu").detector.names == {0: "class0", 1: "class1", 2: "class2"}
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    arch = f"{Path(small_torchvision.__file__)}:faster_rcnn"
    explainer = load("explainer", path=tmp_path / "mine.pth", device="cpu", arch=arch, conf_thres=0.2)
    assert explainer(picture()).detections
