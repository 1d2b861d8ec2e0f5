"""Whole models: building, fusing, augmented prediction, feature maps, pickles."""

import copy
import io
import pickle
import pickletools
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import torch
import yaml
from tiny_models import ANCHORS, tiny_detector, tiny_segmenter, tiny_spec
from torch import nn

from models.common import Conv
from models.yolo import ClassificationModel, DetectionModel, Model, main


def test_a_model_knows_its_strides_names_and_anchors():
    model = tiny_detector()
    assert model.stride.tolist() == [4, 8]
    assert model.names == {0: "0", 1: "1", 2: "2"}
    anchors_in_pixels = model.model[-1].anchors * model.stride[:, None, None]
    torch.testing.assert_close(anchors_in_pixels.flatten(1), torch.tensor(ANCHORS, dtype=torch.float32))


def test_classes_channels_and_anchors_can_be_overridden():
    model = DetectionModel(tiny_spec(), ch=1, nc=7, anchors=3).eval()
    assert model.yaml["nc"] == 7
    assert model(torch.zeros(1, 1, 32, 32))[0].shape == (1, 3 * (64 + 16), 12)


def test_the_description_that_was_passed_in_is_left_alone():
    spec = tiny_spec()
    DetectionModel(spec, nc=7)
    assert spec == tiny_spec()


def test_anchors_from_large_to_small_are_turned_round():
    model = tiny_detector(anchors=ANCHORS[::-1])
    torch.testing.assert_close(model.model[-1].anchors, tiny_detector().model[-1].anchors)


def test_biases_start_at_eight_rare_objects_per_image():
    model = DetectionModel(tiny_spec())
    raw = model.model[-1].m[1].bias.view(2, 8)
    # what the convolution was born with lies within 1/sqrt(16 inputs)
    assert (raw[:, 4] - torch.tensor(8 / (640 / 8) ** 2).log()).abs().max() <= 0.25
    assert (raw[:, 5:] - torch.tensor(0.6 / 2.00001).log()).abs().max() <= 0.25


def test_building_a_model_leaves_the_statistics_of_its_norms_untouched():
    model = DetectionModel(tiny_spec())
    assert model.training
    assert all(m.training for m in model.modules())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.running_var == 1).all() and m.num_batches_tracked == 0 for m in norms)


def test_a_fused_model_predicts_the_same_without_norms():
    model = tiny_detector()
    fused = copy.deepcopy(model).fuse()
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(fused(image)[0], model(image)[0], rtol=1e-5, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_fusing_twice_is_fusing_once():
    model = tiny_detector().fuse()
    image = torch.rand(1, 3, 32, 32)
    expected = model(image)[0]
    assert torch.equal(model.fuse()(image)[0], expected)


@pytest.mark.parametrize("fused", [False, True])
def test_a_pickle_or_a_copy_predicts_the_same(fused):
    model = tiny_detector()
    model = model.fuse() if fused else model
    image = torch.rand(1, 3, 32, 32)
    expected = model(image)[0]
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(image)[0], expected)
        # a forward that still belonged to the first model would follow its weights
        twin.model[0].conv.weight.data.zero_()
        assert not torch.equal(twin(image)[0], expected)


@pytest.mark.parametrize("make", [tiny_detector, tiny_segmenter])
def test_a_checkpoint_names_only_classes_that_published_yolov5_has_at_the_same_place(make):
    buffer = io.BytesIO()
    torch.save({"model": make()}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        operations = list(pickletools.genops(archive.read(name)))
    own = {arg for op, arg, _ in operations if op.name == "GLOBAL" and not arg.startswith(("torch", "collections"))}
    common = {f"models.common {name}" for name in ("Bottleneck", "C3", "Concat", "Conv", "Proto", "SPPF")}
    heads = {"models.yolo Detect", "models.yolo DetectionModel", "models.yolo Segment", "models.yolo SegmentationModel"}
    # getattr: the head's `detect` is the function Detect.forward
    assert own <= common | heads | {"__builtin__ set", "__builtin__ getattr"}


def test_model_is_the_old_name_of_the_detector():
    assert Model is DetectionModel


def test_a_mirrored_prediction_is_brought_back_to_the_image():
    rows = torch.tensor([[[30.0, 20.0, 10.0, 6.0, 0.9]]])
    expected = torch.tensor([[[40.0, 40.0, 20.0, 12.0, 0.9]]])
    torch.testing.assert_close(DetectionModel._descale_pred(rows, 0.5, mirror_width=100), expected)


def test_augmented_prediction_drops_the_coarsest_and_the_finest_rows():
    model = tiny_detector()
    image = torch.rand(1, 3, 32, 32)
    rows, nothing = model(image, augment=True)
    # 128 fine and 32 coarse rows at 32 pixels; 0.83 is 26 pixels padded to 32, 0.67 is 21 padded to 24 (72 and 18)
    assert rows.shape[1] == 128 + (128 + 32) + 18
    assert nothing is None
    assert torch.equal(rows[:, :128], model(image)[0][:, :128])


def test_masks_cannot_be_augmented():
    with pytest.raises(ValueError, match="segmentation"):
        tiny_segmenter()(torch.rand(1, 3, 32, 32), augment=True)


def test_feature_maps_are_saved_for_every_layer_but_the_head(tmp_path):
    model = tiny_detector()
    model(torch.rand(1, 3, 32, 32), visualize=tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == len(model.model) - 1
    # eight channels of 16x16 pixels in one row
    assert cv2.imread(str(tmp_path / "stage0_Conv_features.png"), cv2.IMREAD_GRAYSCALE).shape == (16, 128)
    assert np.load(tmp_path / "stage0_Conv_features.npy").shape == (8, 16, 16)


def test_profiling_logs_a_line_per_layer_and_changes_nothing(capsys):
    model = tiny_detector()
    image = torch.rand(1, 3, 32, 32)
    expected = model(image)[0]
    capsys.readouterr()
    assert torch.equal(model(image, profile=True)[0], expected)
    assert capsys.readouterr().err.count(" ms ") == len(model.model)


def test_a_classifier_is_cut_from_a_detector_which_stays_whole():
    detector = tiny_detector()
    layers = list(detector.model)
    classifier = ClassificationModel(model=detector, nc=5, cutoff=5).eval()
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    assert [layer.type for layer in classifier.model][-1] == "models.common.Classify"
    assert list(detector.model) == layers


def test_a_classifier_needs_a_detector():
    with pytest.raises(ValueError, match="DetectionModel"):
        ClassificationModel("yolov5s.yaml")


def test_the_activation_of_a_description_replaces_every_conv_s_own():
    model = tiny_detector(activation="nn.LeakyReLU(0.1)")
    activations = [m.act for m in model.modules() if isinstance(m, Conv)]
    assert {type(act) for act in activations} == {nn.LeakyReLU}
    assert {act.negative_slope for act in activations} == {0.1}
    assert isinstance(Conv(1, 1).act, nn.SiLU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [tiny_detector, tiny_segmenter])
def test_an_exported_model_takes_any_image_size(make, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make()
    model.model[-1].export = model.model[-1].dynamic = True
    path = str(tmp_path / "tiny.onnx")
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(model, torch.rand(1, 3, 16, 24), path, dynamo=False, input_names=["images"], dynamic_axes=axes)
    images = torch.rand(2, 3, 32, 16)
    exported = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(exported[0], model(images)[0].detach().numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_predicts_the_same():
    model = tiny_detector()
    image = torch.rand(1, 3, 32, 32)
    traced = torch.jit.trace(model, image, strict=False)
    torch.testing.assert_close(traced(image)[0], model(image)[0])


def test_importing_the_models_changes_nothing():
    # the libraries come first: some of them set variables of their own
    script = """
import os, cv2, torch, torchvision
before = dict(os.environ), os.listdir(), torch.get_num_threads(), torch.is_grad_enabled()
import models.experimental, models.yolo
assert before == (dict(os.environ), os.listdir(), torch.get_num_threads(), torch.is_grad_enabled())
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_command_builds_a_network_and_says_how_large_it_is(capsys):
    assert main(["--cfg", "yolov5n.yaml", "--device", "cpu"]) == 0
    log = capsys.readouterr().err
    assert "1872157 parameters" in log
    assert "models.common.SPPF" in log


def test_the_command_times_passes(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_spec()), encoding="utf-8")
    assert main(["--cfg", str(path), "--device", "cpu", "--profile"]) == 0
    assert "backward" in capsys.readouterr().err


def test_a_model_yaml_that_is_nowhere_is_one_line(capsys):
    assert main(["--cfg", "gone.yaml", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("yolo.py: ")
    assert "gone.yaml" in line
