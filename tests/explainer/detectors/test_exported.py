"""Exported models, TorchScript and ONNX: the black-box methods explain them as they explain the checkpoint."""

import json

import numpy as np
import pytest
import torch
from fresh_interpreter import IN_STOCK
from scenes import confident_detector, picture, save_checkpoint
from torch import nn

from explainer.comparing import Comparer
from explainer.detectors.exported import Grid, check_size, class_count, grids_of, runs
from explainer.detectors.weights import open_model
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods import black_box
from models.common import AutoShape, DetectMultiBackend

PICTURE = picture(64, 96)
IMAGE = torch.zeros(1, 3, 64, 96)
SETTINGS = {"method": "DRISE", "conf_thres": 0.05, "imgsz": (64, 96), "max_det": 5, "masks": 12}

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)


class PredictionsAlone(nn.Module):
    """A detector that gives its predictions alone, as exports do.

    drop: rows to leave out, so that it cannot be told where the others come from.
    """

    def __init__(self, drop: int = 0):
        super().__init__()
        self.detector, self.drop = confident_detector(), drop
        # Stock YOLOv5 keeps the grids of the size that it is exported with unless it is told not to.
        self.detector.model[-1].dynamic = True

    def forward(self, im):
        return self.detector(im)[0][:, self.drop :]


class OneSize(PredictionsAlone):
    """A detector that only takes images of one size, as a traced one of stock YOLOv5 does."""

    def forward(self, im):
        return super().forward(im + torch.zeros(1, 3, 64, 96))


def torchscript(folder, model=None):
    """Return a TorchScript model that is already open: as a path it needs the word that it is trusted."""
    return open_model(torchscript_file(folder, model), trust=True)


def torchscript_file(folder, model=None):
    path = str(folder / "best.torchscript")
    extra = {"config.txt": json.dumps({"stride": 8, "names": confident_detector().names})}
    torch.jit.save(torch.jit.trace(model or PredictionsAlone(), IMAGE), path, _extra_files=extra)
    return path


def onnx(folder, model=None, dynamic=False):
    library = pytest.importorskip("onnx", reason="needs onnx to export a model: pip install onnx")
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    path = str(folder / "best.onnx")
    axes = {"images": {0: "batch", 2: "height", 3: "width"}} if dynamic else None
    torch.onnx.export(model or PredictionsAlone(), IMAGE, path, dynamo=False, input_names=["images"], dynamic_axes=axes)
    exported = library.load(path)
    library.helper.set_model_props(exported, {"stride": "8", "names": str(confident_detector().names)})
    library.save(exported, path)
    return path


def compare(explanation, expected):
    assert len(explanation.detections) == len(expected.detections) == 5
    for found, wanted in zip(explanation.detections, expected.detections, strict=True):
        np.testing.assert_allclose(found.detection.xyxy, wanted.detection.xyxy, atol=1e-2)
        assert (found.detection.name, found.detection.stride) == (wanted.detection.name, wanted.detection.stride)
        np.testing.assert_allclose(found.cams[0], wanted.cams[0], atol=1e-4)
        assert found.row()["layer"] == "predictions"


@pytest.mark.parametrize("export", [torchscript, onnx])
@pytest.mark.parametrize("batch", [1, 5])
def test_an_exported_model_has_the_maps_of_its_checkpoint(export, batch, tmp_path, monkeypatch):
    monkeypatch.setattr(black_box, "BATCH_ON_CPU", batch)
    compare(Explainer(export(tmp_path), **SETTINGS)(PICTURE), Explainer(confident_detector(), **SETTINGS)(PICTURE))


def test_opencv_runs_onnx_to_the_same_maps(tmp_path):
    backend = DetectMultiBackend(onnx(tmp_path), dnn=True)
    backend.names, backend.stride = confident_detector().names, 8
    compare(Explainer(backend, **SETTINGS)(PICTURE), Explainer(confident_detector(), **SETTINGS)(PICTURE))


@pytest.mark.parametrize(
    "names",
    [
        ["ant"],
        pytest.param(
            {"1": "ant", "2": "bee", "3": "cat"},
            marks=pytest.mark.skipif(IN_STOCK, reason="stock YOLOv5 opens no export whose names begin at 1"),
        ),
    ],
)
def test_an_export_with_odd_names_has_one_for_each_class(names, tmp_path):
    extra = {"config.txt": json.dumps({"stride": 8, "names": names})}
    path = str(tmp_path / "odd.torchscript")
    torch.jit.save(torch.jit.trace(PredictionsAlone(), IMAGE), path, _extra_files=extra)
    expected = {0: "ant", 1: "class1", 2: "class2"} if len(names) == 1 else {0: "ant", 1: "bee", 2: "cat"}
    assert Explainer(open_model(path, trust=True), **SETTINGS).detector.names == expected


def test_a_dynamic_export_takes_rectangles_and_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(black_box, "BATCH_ON_CPU", 4)
    settings = SETTINGS | {"imgsz": 96}
    explainer = Explainer(onnx(tmp_path, dynamic=True), **settings)
    assert (explainer.detector.rectangular, explainer.detector.batched) == (True, True)
    compare(explainer(PICTURE), Explainer(confident_detector(), **settings)(PICTURE))


def test_an_exported_model_has_the_near_miss_of_its_checkpoint(tmp_path):
    settings = SETTINGS | {"conf_thres": 0.99}
    explainers = [Explainer(model, **settings) for model in (torchscript(tmp_path), confident_detector())]
    (exported,), (own,) = (explainer(PICTURE).detections for explainer in explainers)
    assert (exported.detection.row, exported.detection.remark) == (own.detection.row, "best below 0.99: cat 0.44")
    assert exported.heatmap.any()


def test_an_export_of_one_size_fills_it(tmp_path):
    explainer = Explainer(torchscript(tmp_path), **SETTINGS)
    seen = explainer.detector.see(picture(60, 40), explainer.sight)
    assert seen.recording.image.shape == (1, 3, 64, 96)
    assert seen.letterbox.input_size == (64, 96)


@pytest.mark.parametrize("wrap", [lambda backend: backend, AutoShape])
def test_a_loaded_backend_is_explained_and_left_as_it_was(wrap, tmp_path):
    model = wrap(torchscript(tmp_path))
    modes = [module.training for module in model.modules()]
    assert Explainer(model, **SETTINGS)(PICTURE).detections
    assert [module.training for module in model.modules()] == modes


def test_a_backend_of_a_checkpoint_is_explained_by_its_layers(tmp_path):
    backend = DetectMultiBackend(save_checkpoint(tmp_path / "best.pt", confident_detector()))
    assert Explainer(backend, method="GradCAM", conf_thres=0.05, imgsz=96)(PICTURE).detections


def test_where_predictions_come_from_is_unknown_without_all_of_them(tmp_path):
    explanation = Explainer(torchscript(tmp_path, PredictionsAlone(drop=1)), **SETTINGS)(PICTURE)
    assert [entry.detection.stride for entry in explanation.detections] == [None] * 5
    assert explanation.detections[0].title.endswith("stride unknown")
    with pytest.raises(UsageError, match="--scales: this exported model does not tell which scale"):
        Explainer(torchscript(tmp_path, PredictionsAlone(drop=1)), scales=True, **SETTINGS)


def test_strides_are_told_from_the_centres_of_the_predictions():
    raw = confident_detector()(IMAGE)[0][0].detach()
    assert grids_of(raw, (64, 96)) == [Grid(4, 2), Grid(8, 2)]
    assert grids_of(raw.flip(0), (64, 96)) == [Grid(None, 0)]


def test_a_grid_knows_how_many_predictions_come_from_it():
    assert Grid(4, 2).count((64, 96)) == 2 * 16 * 24


def test_strides_that_follow_each_other_are_tried_from_the_most_of_them():
    assert runs((4, 8, 16)) == [(4, 8, 16), (4, 8), (8, 16), (4,), (8,), (16,)]


def test_a_pass_of_another_size_is_split_by_the_grids(tmp_path):
    detector = Explainer(torchscript(tmp_path), **SETTINGS).detector
    recording = detector.record(torch.zeros(1, 3, 32, 64), (), with_graph=False)
    assert recording.ends == (2 * 8 * 16, 2 * 8 * 16 + 2 * 4 * 8)
    assert recording.activations == {}


def test_it_has_no_layers_to_read(tmp_path):
    detector = Explainer(torchscript(tmp_path), **SETTINGS).detector
    assert not detector.reads_layers
    with pytest.raises(NotImplementedError, match="no layers to read"):
        detector.layers_called((4,))


# What cannot be


@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "EigenCAM", "AblationCAM", "FullGrad"])
def test_a_method_that_reads_layers_refuses_and_names_those_that_do_not(method, tmp_path):
    with pytest.raises(UsageError, match=rf"gives predictions alone, and {method} reads layers; .*--method DRISE"):
        Explainer(torchscript(tmp_path), method=method)


@pytest.mark.parametrize("export", [torchscript, onnx])
def test_another_size_than_it_was_exported_with_is_refused(export, tmp_path):
    with pytest.raises(UsageError, match="give --imgsz") as caught:
        Explainer(export(tmp_path, OneSize()), **SETTINGS | {"imgsz": 128})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ([(1, 84, 8400)], 80),
        ([(1, 100, 6)], 80),
        ([(1, 100)], 80),
        ([(1, 100, 117)], 80),
    ],
)
def test_what_is_no_yolov5_detector_is_refused(shapes, names):
    with pytest.raises(UsageError, match=r"the exported model gives \(1, .*\) for 80 class names"):
        class_count([torch.empty(shape) for shape in shapes], dict.fromkeys(range(names)))


def test_columns_of_masks_are_no_classes():
    assert class_count([torch.empty(1, 100, 117), torch.empty(1, 32, 20, 20)], dict.fromkeys(range(80))) == 80
    assert class_count([torch.empty(1, 100, 85)], dict.fromkeys(range(999))) == 80


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["a.onnx", "b.onnx"], "only those make an ensemble; give one file"),
        ("missing.onnx", "weights 'missing.onnx' cannot be run"),
        ("best.safetensors", "is no .pt checkpoint and no exported model; give"),
    ],
)
def test_files_that_cannot_be_run_are_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        Explainer(weights, method="DRISE")


@pytest.mark.parametrize("name", ["broken.torchscript", "broken.onnx"])
def test_a_file_that_holds_no_model_is_refused_by_its_name(name, tmp_path):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(UsageError, match=f"weights '.*{name}' cannot be run: "):
        open_model(str(tmp_path / name), trust=True)


def test_a_checkpoint_and_its_export_can_be_compared(tmp_path):
    pt = save_checkpoint(tmp_path / "best.pt", confident_detector())
    comparison = Comparer([pt, torchscript(tmp_path)], **SETTINGS)(PICTURE)
    assert isinstance(comparison.overlay(), np.ndarray)


def test_a_torchscript_file_is_a_program_and_needs_trust(tmp_path):
    with pytest.raises(
        UsageError, match=r"best\.torchscript' are TorchScript, a program that can write files.*--trust"
    ):
        Explainer(torchscript_file(tmp_path), **SETTINGS)


def test_a_model_of_something_else_than_images_is_refused():
    with pytest.raises(UsageError, match=r"takes inputs of shape \[1, 3, 64, 64, 1\], and images have 4 sides"):
        check_size([1, 3, 64, 64, 1], (64, 64))
    check_size([1, 3, 64, 96], (64, 96))
