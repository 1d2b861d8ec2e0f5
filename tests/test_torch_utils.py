"""Devices, fused convolutions, image scaling and summaries."""

import os
import subprocess
import sys

import pytest
import torch
from tiny_models import tiny_detector
from torch import nn

from utils import torch_utils


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_fused_convolution_equals_convolution_and_norm(bias, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, 2, padding=1, groups=groups, bias=bias)
    bn = nn.BatchNorm2d(8, eps=1e-3).eval()
    nn.init.uniform_(bn.weight, 0.5, 2)
    nn.init.uniform_(bn.bias, -1, 1)
    bn.running_mean.uniform_(-1, 1)
    bn.running_var.uniform_(0.5, 2)
    image = torch.rand(2, 4, 9, 9)
    before = conv.weight.clone()
    torch.testing.assert_close(torch_utils.fuse_conv_and_bn(conv, bn)(image), bn(conv(image)), rtol=1e-5, atol=1e-5)
    assert torch.equal(conv.weight, before)


def test_a_fused_convolution_is_frozen_where_the_first_one_was():
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    assert torch_utils.fuse_conv_and_bn(conv, bn).weight.requires_grad
    assert not torch_utils.fuse_conv_and_bn(conv.requires_grad_(False), bn).bias.requires_grad


def test_the_cpu_is_chosen_by_name_and_logged(capsys):
    assert torch_utils.select_device("cpu") == torch.device("cpu")
    line = capsys.readouterr().err
    assert line.startswith("YOLOv5 🚀 Python-")
    assert f"torch-{torch.__version__} CPU" in line


@pytest.mark.parametrize("word", ["99", "cuda:99", "0,99", "-1", "gpu", "cpu,0"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(word):
    with pytest.raises(ValueError, match=f"device '{word}' .*cpu"):
        torch_utils.select_device(word)


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretend that two GPUs are there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch_utils, "_gpu_label", lambda index: f"CUDA:{index}")


@pytest.mark.parametrize(
    ("word", "index"), [("", 0), (None, 0), (1, 1), ("0", 0), ("1", 1), ("cuda", 0), ("cuda:1", 1), ("1,0", 1)]
)
@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_chosen_by_number(word, index):
    assert torch_utils.select_device(word, batch_size=2) == torch.device("cuda", index)


@pytest.mark.usefixtures("two_gpus")
def test_a_batch_must_divide_by_the_gpus():
    with pytest.raises(ValueError, match="3 does not divide by 2"):
        torch_utils.select_device("0,1", batch_size=3)


def test_choosing_a_device_leaves_the_environment_alone():
    before = dict(os.environ)
    torch_utils.select_device("cpu")
    assert dict(os.environ) == before


def test_inference_mode_decorates_a_function():
    @torch_utils.smart_inference_mode()
    def double(x):
        return x * 2

    assert double(torch.ones(1, requires_grad=True)).is_inference()


@pytest.mark.parametrize(
    ("ratio", "same_shape", "size"),
    [(1.0, False, (40, 64)), (0.5, False, (32, 32)), (0.5, True, (40, 64)), (0.83, False, (64, 64))],
)
def test_scaled_images_are_padded_to_the_stride(ratio, same_shape, size):
    assert torch_utils.scale_img(torch.rand(1, 3, 40, 64), ratio, same_shape).shape[2:] == size


def test_the_border_of_a_scaled_image_is_grey():
    scaled = torch_utils.scale_img(torch.ones(1, 3, 40, 64), 0.5)
    assert (scaled[..., :20, :32] == 1).all()
    torch.testing.assert_close(scaled[..., 20:, :].unique(), torch.tensor([torch_utils.BORDER_VALUE]))


def test_operations_are_counted_per_output_cell():
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    # two per multiply-add, 27 multiply-adds for each of 8 channels
    assert torch_utils.count_gflops(conv, 64) == pytest.approx(2 * 64 * 64 * 8 * 27 / 1e9)
    # each input cell is spread over 2x2 output cells of 8 channels
    assert torch_utils.count_gflops(nn.ConvTranspose2d(3, 8, 2, 2), 64) == pytest.approx(2 * 64 * 64 * 3 * 8 * 4 / 1e9)


def test_a_summary_leaves_the_model_as_it_was(capsys):
    model = tiny_detector().train()
    model.model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_utils.model_info(model, verbose=True)
    assert not model.model[0].training
    assert model.model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters} parameters, {parameters} gradients" in capsys.readouterr().err


def test_public_attributes_are_copied_as_asked():
    class Bag:
        pass

    source = Bag()
    source.a, source.b, source._c = 1, 2, 3
    everything, some, rest = Bag(), Bag(), Bag()
    torch_utils.copy_attr(everything, source)
    torch_utils.copy_attr(some, source, include=("a",))
    torch_utils.copy_attr(rest, source, exclude=("a",))
    assert (vars(everything), vars(some), vars(rest)) == ({"a": 1, "b": 2}, {"a": 1}, {"b": 2})


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
