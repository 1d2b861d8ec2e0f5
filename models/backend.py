"""One interface to a trained model in any of the formats that it was saved or exported to."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from explainer.checkpoints.repair import indexed_names
from models.loading import attempt_load
from utils.base.downloads import attempt_download
from utils.base.logger import LOGGER

SMALLEST_STRIDE, LARGEST_STRIDE = 32, 1024
# Python's parser can end the process over brackets or signs inside each other.
NESTED = re.compile(r"(?:[-+~(\[{]\s*){50}")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Request:
    """What is to be loaded, and how."""

    paths: list[str]
    device: torch.device
    fp16: bool
    fuse: bool
    trust: bool

    @property
    def path(self) -> str:
        """The one file, fetched where it is missing, of a format that has no ensembles."""
        if len(self.paths) > 1:
            raise ValueError(f"several weights make an ensemble only as .pt files; give one of {', '.join(self.paths)}")
        return attempt_download(self.paths[0])

    @property
    def half_on_gpu(self) -> bool:
        """Whether half precision was asked for on a device that has it."""
        return self.fp16 and self.device.type != "cpu"


@dataclass(frozen=True)
class Loaded:
    """A model that is ready: called with images (B, 3, h, w) it returns one output or several, tensors or arrays."""

    model: Callable[..., Any]
    fp16: bool = False
    stride: int = SMALLEST_STRIDE
    names: dict[int, str] | None = None


class DetectMultiBackend(nn.Module):
    """A model loaded from `.pt`, `.torchscript` or `.onnx`, called alike whatever it was saved as.

    Attributes:
        model: what is called; for `.pt` the DetectionModel or Ensemble.
        names: class names by index; stride: the largest, in pixels, at least 32.
        pt, jit, onnx, dnn: which format it is.
        fp16: whether images go in as half precision; device: where they go.
    """

    # Looked at by scripts that know formats which are not read here.
    engine = triton = False

    def __init__(
        self,
        weights: str | Path | list[str | Path] = "yolov5s.pt",
        device: torch.device | str = CPU,
        dnn: bool = False,
        data: str | Path | None = None,
        fp16: bool = False,
        fuse: bool = True,
        *,
        trust: bool = False,
    ):
        """Load the model.

        Args:
            weights: a path or the name of official weights, which are downloaded; several `.pt` make an ensemble.
            device: where to run.
            dnn: run ONNX with OpenCV instead of ONNX Runtime.
            data: a dataset YAML; its names are taken where the model brings none.
            fp16: run in half precision where the device can; ONNX always runs as it was exported.
            fuse: merge convolutions with their normalisation (`.pt`).
            trust: unpickle whatever a `.pt` says, or run TorchScript, which can run any program or write files: for files you
                made yourself.

        Raises:
            ValueError: for an unknown format, or a file that is not what its suffix says.
            FileNotFoundError, OSError: for weights that do not exist or cannot be downloaded.
            ModuleNotFoundError: when ONNX Runtime is needed and not installed.
        """
        super().__init__()
        paths = [str(path) for path in (weights if isinstance(weights, (list, tuple)) else [weights])]
        suffix = find_format(paths[0])
        self.pt, self.jit, self.onnx = (suffix == each for each in (".pt", ".torchscript", ".onnx"))
        self.dnn = dnn and self.onnx
        self.device = torch.device(device)
        load = load_opencv if self.dnn else FORMATS[suffix]
        loaded = load(Request(paths, self.device, fp16, fuse, trust))
        if fp16 and not loaded.fp16:
            LOGGER.warning(f"WARNING: {paths[0]} does not run in half precision on {self.device}; using full precision")
        self.model, self.fp16, self.stride = loaded.model, loaded.fp16, loaded.stride
        self.names = loaded.names or (read_names(data) if data else {i: f"class{i}" for i in range(999)})

    def forward(self, im: Tensor, augment: bool = False, visualize: bool | str | Path = False) -> Any:
        """Return the model's output for images (B, 3, h, w), 0..1, RGB: a tensor, or a list where it has several parts.

        A `.pt` detector gives [predictions (B, N, 5 + classes), raw maps]. `augment` (test-time augmentation) and
        `visualize` (a folder for feature maps) are for `.pt`.
        """
        if self.fp16:
            im = im.half()
        options = {"augment": augment, "visualize": visualize} if self.pt and (augment or visualize) else {}
        output = self.model(im, **options)
        if not isinstance(output, (list, tuple)):
            return self.from_numpy(output)
        return self.from_numpy(output[0]) if len(output) == 1 else [self.from_numpy(part) for part in output]

    def from_numpy(self, x: Any) -> Any:
        """Return an array as a tensor on this model's device, anything else as it is."""
        return torch.from_numpy(x).to(self.device) if isinstance(x, np.ndarray) else x

    def warmup(self, imgsz: tuple[int, ...] = (1, 3, 640, 640)) -> None:
        """Run once on an empty image (B, 3, h, w) so that the first real one is not slow; nothing to do on the CPU."""
        if self.device.type == "cpu":
            return
        image = torch.zeros(*imgsz, dtype=torch.half if self.fp16 else torch.float, device=self.device)
        # TorchScript optimises in its first two passes.
        for _ in range(2 if self.jit else 1):
            self.forward(image)


def find_format(weights: str) -> str:
    """Return the suffix that tells the format of a file or address; raise ValueError for one that is not known."""
    suffix = Path(urlsplit(weights).path if "://" in weights else weights).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{weights}: unknown format '{suffix}' of weights; known: {', '.join(FORMATS)}")
    return suffix


def read_names(data: str | Path) -> dict[int, str]:
    """Return the class names by index of a dataset YAML."""
    from utils.data.dataset_yaml import read_dataset_yaml, read_names_in

    return read_names_in(*read_dataset_yaml(data))


def load_checkpoint(request: Request) -> Loaded:
    """Load `.pt` files."""
    model = attempt_load(request.paths, request.device, fuse=request.fuse, trust=request.trust)
    if request.half_on_gpu:
        model.half()
    stride = max(int(model.stride.max()), SMALLEST_STRIDE)
    return Loaded(model, request.half_on_gpu, stride, model.names)


def load_torchscript(request: Request) -> Loaded:
    """Load a `.torchscript` file; `config.txt` inside it holds stride and names as JSON."""
    extra = {"config.txt": ""}
    path = request.path
    if not request.trust:
        raise ValueError(
            f"{path} is TorchScript, a program that can write files when it runs; "
            "give --trust (trust=True) for a file you made yourself, or the .pt or .onnx file of the same model"
        )
    try:
        model = torch.jit.load(path, _extra_files=extra, map_location=request.device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is no TorchScript model ({_first_line(error)}); export it again") from error
    model = model.half() if request.half_on_gpu else model.float()
    try:
        config = json.loads(extra["config.txt"] or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} has a config.txt inside that is no JSON ({_first_line(error)}); export again"
        ) from error
    return Loaded(model, request.half_on_gpu, *_stride_and_names(path, config))


def load_onnx(request: Request) -> Loaded:
    """Load an `.onnx` file with ONNX Runtime."""
    model = OnnxModel(request.path, request.device)
    return Loaded(model, model.fp16, *_stride_and_names(request.path, model.metadata))


def load_opencv(request: Request) -> Loaded:
    """Load an `.onnx` file with OpenCV's DNN module, which gives no access to its metadata."""
    return Loaded(OpenCVModel(request.path))


FORMATS: dict[str, Callable[[Request], Loaded]] = {
    ".pt": load_checkpoint,
    ".torchscript": load_torchscript,
    ".onnx": load_onnx,
}


class OnnxModel:
    """An ONNX model in ONNX Runtime. `fp16` tells its precision, `metadata` holds what the export wrote about it."""

    def __init__(self, path: str, device: torch.device):
        """Open a session on the CPU, or on a CUDA device where ONNX Runtime has it."""
        runtime = _import_onnxruntime(path)
        errors = runtime.capi.onnxruntime_pybind11_state
        providers = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        available = [name for name in providers if name in runtime.get_available_providers()]
        if providers != available:
            LOGGER.warning("WARNING: this ONNX Runtime cannot use CUDA; `pip install onnxruntime-gpu` for one that can")
        try:
            self.session = runtime.InferenceSession(path, providers=[*available, "CPUExecutionProvider"])
        except _exceptions_of(errors) as error:
            raise ValueError(f"{path} is no ONNX model that runs here ({_first_line(error)}); export again") from error
        self.path, self.input = path, self.session.get_inputs()[0]
        if len(self.input.shape) != 4:
            raise ValueError(
                f"{path} takes inputs of shape {self.input.shape}, and images have 4 sides; export it again"
            )
        self.fp16 = "float16" in self.input.type
        self.metadata = self.session.get_modelmeta().custom_metadata_map

    def __call__(self, im: Tensor) -> list[np.ndarray]:
        """Return the outputs for images (B, 3, h, w)."""
        expected = self.input.shape
        # A side of any length has a name instead of a number.
        if any(isinstance(side, int) and side != given for side, given in zip(expected, im.shape, strict=True)):
            raise ValueError(
                f"{self.path} takes images of shape {expected} and got {list(im.shape)}; "
                f"give --imgsz {' '.join(map(str, expected[2:]))}, or export with --dynamic"
            )
        return self.session.run(None, {self.input.name: im.cpu().numpy()})


def _exceptions_of(module: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no base of their own, and what it raises beside them."""
    own = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)]
    return (*own, RuntimeError, ValueError)


def _import_onnxruntime(path: str) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs ONNX Runtime: pip install onnxruntime") from error
    return onnxruntime


class OpenCVModel:
    """An ONNX model in OpenCV's DNN module."""

    def __init__(self, path: str):
        import cv2

        # A net holds its input, and can be run by one thread at a time.
        self._running = Lock()
        try:
            self.net = cv2.dnn.readNetFromONNX(path)
        except cv2.error as error:
            raise ValueError(
                f"{path} is no ONNX model that OpenCV reads ({_first_line(error)}); leave --dnn"
            ) from error

    def __call__(self, im: Tensor) -> np.ndarray:
        """Return the output for images (B, 3, h, w)."""
        with self._running:
            self.net.setInput(im.float().cpu().numpy())
            return self.net.forward()


def _stride_and_names(path: str, metadata: Any) -> tuple[int, dict[int, str] | None]:
    """Return stride and names from what an export wrote about its model; names can be the text of a dictionary."""
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} says nothing about its model that can be read; export it again")
    try:
        names = metadata.get("names")
        if isinstance(names, str):
            names = _read_literal(names)
        known = indexed_names(names, len(names)) if names else None
        if known == {}:
            raise ValueError("no name has a number")
        stride = int(metadata.get("stride", SMALLEST_STRIDE))
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"{path} has names or a stride that cannot be read ({_first_line(error)}); export again"
        ) from error
    if not 1 <= stride <= LARGEST_STRIDE:
        raise ValueError(f"{path} has a stride of {stride} pixels; export it again")
    return stride, known


def _read_literal(text: str) -> Any:
    """Return what the text of a dictionary or list says; ValueError for one that is nested as no list of names is."""
    if NESTED.search(text):
        raise ValueError("names nested without end")
    return ast.literal_eval(text)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
