"""Devices: chosen, refused, timed."""

import os
import time

import pytest
import torch

from utils.base import devices
from utils.base.devices import Profile


def test_the_cpu_is_chosen_by_name_and_logged(capsys):
    assert devices.select_device("cpu") == torch.device("cpu")
    line = capsys.readouterr().err
    assert line.startswith("YOLOv5 🚀 Python-")
    assert f"torch-{torch.__version__} CPU" in line


@pytest.mark.parametrize("word", ["99", "cuda:99", "0,99", "-1", "gpu", "cpu,0"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(word):
    with pytest.raises(ValueError, match=f"device '{word}' .*cpu"):
        devices.select_device(word)


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretend that two GPUs are there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_gpu_label", lambda index: f"CUDA:{index}")


@pytest.mark.parametrize(
    ("word", "index"), [("", 0), (None, 0), (1, 1), ("0", 0), ("1", 1), ("cuda", 0), ("cuda:1", 1), ("1,0", 1)]
)
@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_chosen_by_number(word, index):
    assert devices.select_device(word, batch_size=2) == torch.device("cuda", index)


@pytest.mark.usefixtures("two_gpus")
def test_a_batch_must_divide_by_the_gpus():
    with pytest.raises(ValueError, match="3 does not divide by 2"):
        devices.select_device("0,1", batch_size=3)


def test_choosing_a_device_leaves_the_environment_alone():
    before = dict(os.environ)
    devices.select_device("cpu")
    assert dict(os.environ) == before


def test_inference_mode_decorates_a_function():
    @devices.smart_inference_mode()
    def double(x):
        return x * 2

    assert double(torch.ones(1, requires_grad=True)).is_inference()


def test_profile_adds_up_seconds():
    profile = Profile(t=1.0)
    for _ in range(2):
        with profile:
            time.sleep(0.01)
    assert 0.01 <= profile.dt < 0.5
    assert 1.02 <= profile.t < 2

    @profile
    def work():
        return 5

    assert work() == 5
