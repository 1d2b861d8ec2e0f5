"""One interface to `.pt`, TorchScript and ONNX: the same predictions whatever the format."""

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import save, tiny_detector
from torch import nn

from models.backend import DetectMultiBackend, OpenCVModel, _stride_and_names
from utils.base.logger import LOGGER

NAMES = {0: "cat", 1: "dog", 2: "bus"}
IMAGE = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
)


class Predictions(nn.Module):
    """A detector that gives its predictions alone, as exports do."""

    def __init__(self):
        super().__init__()
        self.detector = tiny_detector()

    def forward(self, im):
        return self.detector(im)[0]


@pytest.fixture(scope="module")
def expected():
    with torch.no_grad():
        return Predictions()(IMAGE)


@pytest.fixture
def export_torchscript(tmp_path):
    def export(config: dict | None = None, model: nn.Module | None = None) -> str:
        path = str(tmp_path / "best.torchscript")
        extra = {"config.txt": json.dumps(config)} if config else {}
        torch.jit.save(torch.jit.trace(model or nn.Identity(), IMAGE), path, _extra_files=extra)
        return path

    return export


@pytest.fixture
def export_onnx(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs onnx to export a model: pip install onnx")

    def export(metadata: dict | None = None, *, dynamic: bool = False, model: nn.Module | None = None) -> str:
        path = str(tmp_path / "best.onnx")
        axes = {"images": {0: "batch", 2: "height", 3: "width"}} if dynamic else None
        model = model or Predictions()
        image = IMAGE.to(next(model.parameters()).dtype)
        torch.onnx.export(model, image, path, dynamo=False, input_names=["images"], dynamic_axes=axes)
        if metadata:
            exported = onnx.load(path)
            onnx.helper.set_model_props(exported, metadata)
            onnx.save(exported, path)
        return path

    return export


@pytest.fixture
def warnings_logged(caplog):
    LOGGER.addHandler(caplog.handler)
    yield lambda: [record.message for record in caplog.records if record.levelno == logging.WARNING]
    LOGGER.removeHandler(caplog.handler)


def test_a_checkpoint_gives_what_the_model_gives(tmp_path, expected):
    model = tiny_detector()
    model.names = NAMES
    backend = DetectMultiBackend(save({"model": model}, tmp_path / "best.pt"), fuse=False)
    predictions, maps = backend(IMAGE)
    assert torch.equal(predictions, expected)
    assert [tuple(each.shape) for each in maps] == [(1, 2, 8, 16, 8), (1, 2, 4, 8, 8)]
    assert (backend.pt, backend.jit, backend.onnx) == (True, False, False)
    assert backend.names == NAMES
    assert backend.stride == 32
    assert backend.device == torch.device("cpu")


def test_several_checkpoints_are_an_ensemble(tmp_path, expected):
    paths = [save({"model": tiny_detector()}, tmp_path / f"{i}.pt") for i in range(2)]
    predictions, _ = DetectMultiBackend(paths, fuse=False)(IMAGE)
    assert torch.equal(predictions, torch.cat([expected, expected], 1))


def test_options_reach_a_checkpoint_model(tmp_path):
    backend = DetectMultiBackend(save({"model": tiny_detector()}, tmp_path / "best.pt"))
    assert backend(IMAGE, augment=True)[0].shape != backend(IMAGE)[0].shape
    backend(IMAGE, visualize=tmp_path / "maps")
    assert any((tmp_path / "maps").iterdir())


def test_torchscript_predicts_the_same_and_brings_stride_and_names(export_torchscript, expected):
    backend = DetectMultiBackend(export_torchscript({"stride": 64, "names": NAMES}, Predictions()), trust=True)
    torch.testing.assert_close(backend(IMAGE), expected)
    assert backend.jit
    assert backend.stride == 64
    assert backend.names == NAMES


def test_onnx_predicts_the_same_and_brings_stride_and_names(export_onnx, expected):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    backend = DetectMultiBackend(export_onnx({"stride": "64", "names": str(NAMES)}))
    torch.testing.assert_close(backend(IMAGE), expected, atol=1e-4, rtol=1e-4)
    assert backend.onnx
    assert backend.stride == 64
    assert backend.names == NAMES


def test_a_dynamic_onnx_model_takes_other_sizes(export_onnx):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    backend = DetectMultiBackend(export_onnx(dynamic=True))
    assert backend(torch.rand(2, 3, 32, 64)).shape == (2, 320, 8)


def test_a_static_onnx_model_says_which_size_it_takes(export_onnx):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    backend = DetectMultiBackend(export_onnx(model=nn.Conv2d(3, 8, 1)))
    with pytest.raises(ValueError, match=r"shape \[1, 3, 32, 64\] and got \[1, 3, 64, 64\]; give --imgsz 32 64"):
        backend(torch.rand(1, 3, 64, 64))


def test_an_onnx_model_of_something_else_than_images_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs onnx to write a model: pip install onnx")
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 8, 8, 1)) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["a"], ["b"])], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "best.onnx"))
    with pytest.raises(
        ValueError, match=r"best\.onnx takes inputs of shape \[1, 3, 8, 8, 1\], and images have 4 sides"
    ):
        DetectMultiBackend(tmp_path / "best.onnx")


def test_a_half_precision_onnx_model_gets_half_precision(export_onnx):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    model = nn.Conv2d(3, 8, 1)
    expected = model(IMAGE)
    backend = DetectMultiBackend(export_onnx(model=model.half()))
    assert backend.fp16
    torch.testing.assert_close(backend(IMAGE).float(), expected, atol=1e-2, rtol=1e-2)


def test_onnx_without_onnx_runtime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "best.onnx").touch()
    with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime"):
        DetectMultiBackend(tmp_path / "best.onnx")


def test_opencv_runs_onnx(export_onnx, expected):
    backend = DetectMultiBackend(export_onnx(), dnn=True)
    assert backend.dnn
    torch.testing.assert_close(backend(IMAGE), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("text", ["names: [cat, dog, bus]", "names: {0: cat, 1: dog, 2: bus}"])
def test_a_dataset_gives_the_names_that_the_model_lacks(text, export_torchscript, tmp_path):
    data = tmp_path / "data.yaml"
    data.write_text(text, encoding="utf-8")
    assert DetectMultiBackend(export_torchscript(), data=data, trust=True).names == NAMES


def test_without_any_names_classes_are_numbered(export_torchscript):
    assert DetectMultiBackend(export_torchscript(), trust=True).names[2] == "class2"


def test_a_dataset_without_names_is_an_error(export_torchscript, tmp_path):
    data = tmp_path / "data.yaml"
    data.write_text("path: somewhere", encoding="utf-8")
    with pytest.raises(ValueError, match="names is None; give a list of class names"):
        DetectMultiBackend(export_torchscript(), data=data, trust=True)


def test_the_names_of_the_model_come_before_those_of_the_dataset(export_torchscript):
    backend = DetectMultiBackend(
        export_torchscript({"stride": 32, "names": NAMES}), data="does not exist.yaml", trust=True
    )
    assert backend.names == NAMES


@pytest.mark.parametrize("weights", ["best.engine", "best", "https://example.com/best.tflite?x=.pt"])
def test_an_unknown_format_lists_the_known_ones(weights):
    with pytest.raises(ValueError, match=r"unknown format '.*' of weights; known: \.pt, \.torchscript, \.onnx"):
        DetectMultiBackend(weights)


@pytest.mark.parametrize("name", ["best.pt", "best.torchscript", "best.onnx"])
def test_missing_weights_are_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        DetectMultiBackend(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "dnn"), [("x.pt", False), ("x.torchscript", False), ("x.onnx", False), ("x.onnx", True)]
)
def test_a_text_file_is_no_model(name, dnn, tmp_path):
    if name == "x.onnx" and not dnn:
        pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    path = tmp_path / name
    path.write_text("this is no model", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} is no ") as caught:
        DetectMultiBackend(path, dnn=dnn, trust=True)
    assert "\n" not in str(caught.value)


def test_only_checkpoints_make_an_ensemble():
    with pytest.raises(ValueError, match=r"ensemble only as \.pt files; give one of a\.onnx, b\.onnx"):
        DetectMultiBackend(["a.onnx", "b.onnx"])


def test_half_precision_on_the_cpu_is_declined_with_a_line(tmp_path, warnings_logged):
    backend = DetectMultiBackend(save({"model": tiny_detector()}, tmp_path / "best.pt"), fp16=True)
    assert not backend.fp16
    assert backend(IMAGE)[0].dtype == torch.float32
    assert ["half precision" in line for line in warnings_logged()] == [True]


def test_warming_up_on_the_cpu_does_nothing(tmp_path, monkeypatch):
    backend = DetectMultiBackend(save({"model": tiny_detector()}, tmp_path / "best.pt"))
    monkeypatch.setattr(backend.model, "forward", lambda *_: pytest.fail("the model was run"))
    backend.warmup((1, 3, 32, 32))


class SlowNet:
    """Gives its input back a while after it was set, as a net of OpenCV does."""

    def setInput(self, images):  # noqa: N802
        self.images = images

    def forward(self):
        time.sleep(0.005)
        return self.images


def test_threads_that_share_a_net_of_opencv_get_what_belongs_to_their_images(monkeypatch):
    import cv2

    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda path: SlowNet())
    model, images = OpenCVModel("x.onnx"), [torch.full((1, 3, 2, 2), float(index)) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model, images))
    assert [answer.max() for answer in answers] == list(range(8))


def test_torchscript_is_a_program_and_needs_trust(export_torchscript):
    with pytest.raises(ValueError, match=r"best\.torchscript is TorchScript, a program that can write files.*--trust"):
        DetectMultiBackend(export_torchscript())


ODD = {
    "code": "__import__('os').system('touch here')",
    "open brackets": "(" * 100_000,
    "signs": "-" * 200_000 + "1",
    "lists": "[" * 150 + "]" * 150,
    "a number": "5",
    "keys of text": "{'a': 'b'}",
}


@pytest.mark.parametrize("names", ODD)
def test_names_in_an_export_that_are_none_are_refused_by_the_name_of_the_file(names):
    with pytest.raises(ValueError, match=r"^best\.onnx has names or a stride that cannot be read") as caught:
        _stride_and_names("best.onnx", {"names": ODD[names], "stride": "32"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stride", ["x", "0", "-1", "9" * 30, None, []])
def test_a_stride_in_an_export_that_is_none_is_refused(stride):
    with pytest.raises(ValueError, match=r"^best\.onnx has .*stride"):
        _stride_and_names("best.onnx", {"stride": stride})


@pytest.mark.parametrize("metadata", [[1], 5, None, "x"])
def test_what_an_export_says_of_itself_is_a_dictionary(metadata):
    with pytest.raises(ValueError, match="nothing about its model"):
        _stride_and_names("best.torchscript", metadata)


def test_a_config_that_is_no_json_is_refused(tmp_path):
    path = str(tmp_path / "best.torchscript")
    torch.jit.save(torch.jit.trace(nn.Identity(), IMAGE), path, _extra_files={"config.txt": "{"})
    with pytest.raises(ValueError, match=r"config\.txt inside that is no JSON"):
        DetectMultiBackend(path, trust=True)
