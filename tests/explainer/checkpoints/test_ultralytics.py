"""Checkpoints of the ultralytics package are data, too: the modules of its detectors, and nothing else of it."""

import copy
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics_models import PICTURE, ultralytics_model

from explainer.checkpoints.checkpoint import CheckpointError, load_model, read_checkpoint
from explainer.detectors.ultralytics import Ultralytics
from explainer.detectors.weights import detector_of, open_model
from explainer.explain import Explainer

IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None] / np.float32(255))


@pytest.fixture
def pt(tmp_path):
    return tmp_path / "best.pt"


def save_trained(pt, model, **entries):
    """Save a model as a training of the package does before its end: in half precision, with its settings."""
    utils = pytest.importorskip("ultralytics.utils")
    saved = copy.deepcopy(model).half()
    saved.args = utils.IterableSimpleNamespace(imgsz=160, data="my.yaml")
    content = {"epoch": 3, "best_fitness": np.float64(0.5), "model": None, "ema": saved, "updates": 7}
    torch.save(
        content | {"train_args": {"imgsz": 160}, "train_results": {"epoch": [1, 2]}, "version": "8"} | entries, pt
    )
    return saved


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolov10n", "yolo12n", "yolo26n", "yolov8n-seg", "rtdetr-l"])
def test_a_checkpoint_predicts_as_the_model_that_was_saved(name, pt):
    saved = save_trained(pt, ultralytics_model(name, classes=3) if "-seg" not in name else plain_segmenter()).float()
    loaded = load_model(pt, ultralytics=True)
    assert type(loaded) is type(saved)
    assert loaded.names == saved.names
    assert not loaded.training
    if hasattr(saved.model[-1], "shapes"):
        # Its anchors went through half precision; they are made anew for another shape.
        saved.model[-1].shapes = []
    with torch.no_grad():
        theirs, ours = saved(IMAGE)[0], load_model(pt, ultralytics=True, fuse=True)(IMAGE)[0]
        exactly = loaded(IMAGE)[0]
    if isinstance(theirs, tuple):
        theirs, ours, exactly = theirs[0], ours[0], exactly[0]
    assert torch.equal(exactly, theirs)
    if name == "rtdetr-l":
        # Queries that are all but equally sure change places.
        theirs, ours = theirs[..., 4], ours[..., 4]
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=1e-3)


def plain_segmenter():
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    torch.manual_seed(0)
    return tasks.SegmentationModel("yolov8n-seg.yaml", nc=3, verbose=False).eval()


def test_a_checkpoint_that_the_package_itself_saves_is_explained(pt):
    package = pytest.importorskip("ultralytics")
    wrapped = package.YOLO("yolov8n.yaml")
    wrapped.model = ultralytics_model()
    wrapped.save(pt)
    detector = detector_of(open_model(pt, device="cpu"), (160, 160))
    assert type(detector) is Ultralytics
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.model.modules())
    explanation = Explainer(detector, imgsz=160, max_det=2)(PICTURE)
    assert {entry.detection.name for entry in explanation.detections} <= set(wrapped.model.names.values())
    assert explanation.heatmap.max() == pytest.approx(1)


def test_names_of_a_dataset_take_the_place_of_those_in_the_file(pt, tmp_path):
    save_trained(pt, ultralytics_model(classes=2))
    data = tmp_path / "my.yaml"
    data.write_text("names: [ant, bee]")
    assert detector_of(open_model(pt, device="cpu", data=data), (160, 160)).names == {0: "ant", 1: "bee"}


def test_those_who_want_a_yolov5_are_told_what_the_file_is(pt):
    save_trained(pt, ultralytics_model())
    with pytest.raises(CheckpointError, match=r"saved by the ultralytics package .* give a YOLOv5 checkpoint"):
        load_model(pt)


def test_without_the_package_a_line_says_what_to_install(pt, monkeypatch):
    save_trained(pt, ultralytics_model())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="saved by the ultralytics package; pip install ultralytics") as caught:
        load_model(pt, ultralytics=True)
    assert "\n" not in str(caught.value)


class Named:
    """Pickles as a call of something with a name in the ultralytics package."""

    def __init__(self, module, name, *arguments):
        self.function = type(name, (), {})
        self.function.__module__, self.function.__qualname__ = module, name
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


HOSTILE = [
    ("ultralytics.utils.downloads", "safe_download"),
    ("ultralytics.utils", "subprocess"),
    ("ultralytics.nn.tasks", "torch_safe_load"),
    ("ultralytics.nn.tasks", "YOLOEModel"),
    ("ultralytics.nn.tasks", "importlib"),
    ("ultralytics.nn.modules.block", "fuse_conv_and_bn"),
    ("ultralytics.nn.modules.block", "torch"),
    ("ultralytics.nn.modules.head", "NoSuchHead"),
    ("ultralytics.nn.modules.utils", "_get_clones"),
    ("ultralytics.nn.autobackend", "AutoBackend"),
    ("ultralytics.engine.model", "Model"),
    ("ultralytics.hub", "login"),
    ("ultralytics", "YOLO"),
]


@pytest.mark.parametrize(("module", "name"), HOSTILE)
def test_what_no_detector_is_made_of_is_refused_by_its_name(module, name, pt, monkeypatch):
    pytest.importorskip("ultralytics")
    call = Named(module, name)
    with monkeypatch.context() as patch:
        # The pickler looks whether the name is there.
        import sys
        import types

        place = types.ModuleType(module)
        setattr(place, name, call.function)
        patch.setitem(sys.modules, module, place)
        torch.save({"model": call}, pt)
    with pytest.raises(CheckpointError, match=rf"names {module}\.{name}: no detector .*--trust") as caught:
        load_model(pt, ultralytics=True)
    assert "\n" not in str(caught.value)


def test_a_block_cannot_be_constructed_by_a_file(pt):
    blocks = pytest.importorskip("ultralytics.nn.modules.block")

    class Constructed:
        def __reduce__(self):
            return blocks.TorchVision, ("alexnet",)

    torch.save({"model": Constructed()}, pt)
    with pytest.raises(CheckpointError, match="constructs a TorchVision"):
        read_checkpoint(pt, ultralytics=True)


def broken(change):
    model = ultralytics_model()
    change(model)
    return model


FAULTS = {
    "has a stride of inf": lambda model: setattr(model, "stride", torch.tensor([8.0, torch.inf])),
    "layer 3 that reads layers": lambda model: setattr(model.model[3], "f", 7),
    "layer 3 that does not know its place": lambda model: setattr(model.model[3], "i", 7),
    "does not work": lambda model: setattr(model.model[-1], "nc", 7),
    "replaces Conv": lambda model: vars(model.model[0]).update(forward=nn.Identity()),
    "classes": lambda model: setattr(model.model[-1], "nc", -1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_cannot_work_is_refused_while_its_file_is_known(fault, pt):
    torch.save({"model": broken(FAULTS[fault])}, pt)
    with pytest.raises(CheckpointError, match=rf"best\.pt.*{fault}") as caught:
        load_model(pt, ultralytics=True)
    assert "\n" not in str(caught.value)
