"""From what the user names as weights to a model that gradients can be taken of, or at least predictions."""

import re
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

from explainer.detectors.detector import Detector
from explainer.detectors.torchvision_models import is_builder, is_state, open_builder, open_state, pyramidal
from explainer.errors import UsageError
from explainer.files.sources import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DEMO_COMMAND = "python explainer/explainer.py"
# What the backends of this tree and of stock YOLOv5 read besides checkpoints.
EXPORTS = (".torchscript", ".onnx", ".engine", ".xml", ".pb", ".tflite", ".mlmodel")
# The names under which YOLOv5's own checkpoints are downloaded, which people write without their .pt, too.
OFFICIAL = re.compile(r"yolov5[nsmlx](6|-seg|-cls)?")
# Heads of the ultralytics package whose boxes are upright and whose classes are fixed: at cells, all that is read of them is
# what Detect has; or by queries.
CELL_HEADS = ("Detect", "v10Detect", "Segment", "Segment26", "Pose", "Pose26")
QUERY_HEAD = "RTDETRDecoder"
# glibc learns from blocks of up to 32 MiB, in bytes; a little of that is its own.
LEARNT_FROM = 2**25 - 2**16


def with_suffix(weights):
    """Return weights, one or several, as they are, but official names such as yolov5n with their .pt."""
    if isinstance(weights, (list, tuple)):
        return tuple(map(with_suffix, weights))
    is_official = isinstance(weights, (str, Path)) and OFFICIAL.fullmatch(Path(weights).name)
    return f"{weights}.pt" if is_official else weights


def check_weights(weights, arch: str | None = None) -> tuple:
    """Return the weights as a tuple, official names with their suffix; UsageError for files that cannot hold a model.

    arch: what is built for files of weights alone.
    """
    entries = with_suffix(tuple(weights) if isinstance(weights, (list, tuple)) else (weights,))
    files = [entry for entry in entries if isinstance(entry, (str, Path))]
    if arch and not any(is_checkpoint(entry) or is_state(entry) for entry in files):
        raise UsageError(f"--arch {arch} says what a file of weights belongs to, and none is given; leave it out")
    for entry in files:
        if is_checkpoint(entry) and not arch:
            continue
        other = f"weights '{entry}' is no .pt checkpoint"
        if not any(known(entry) for known in (is_exported, is_builder, is_state, is_checkpoint)):
            raise UsageError(
                f"{other} and no exported model; give the .pt file, or one of {', '.join(EXPORTS)}, "
                "or weights of a torchvision model in a .pth file with --arch"
            )
        if len(entries) > 1:
            raise UsageError(f"{other}, and only those make an ensemble; give one file")
    return entries


def is_checkpoint(entry: str | Path) -> bool:
    """Return whether weights name a file as train.py saves it."""
    return Path(entry).suffix.lower() == ".pt"


def is_exported(entry) -> bool:
    """Return whether weights name a file of a format that models are exported to."""
    return isinstance(entry, (str, Path)) and Path(entry).suffix.lower() in EXPORTS


def model_names(models: Sequence) -> list[str]:
    """Return the file name of each model, with as many folders before it as tell them apart; UsageError for one twice.

    A model that is no path, because it is already loaded, is called after its place.
    """
    parts = [
        Path(model).absolute().parts if isinstance(model, (str, Path)) else (f"model {number}",)
        for number, model in enumerate(models, start=1)
    ]
    for count in range(1, max(map(len, parts)) + 1):
        names = [Path(*entry[-count:]).as_posix() for entry in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(model for model, name in zip(models, names, strict=True) if names.count(name) > 1)
    raise UsageError(f"--compare names {twice} twice; give each model once")


def open_model(
    weights,
    *,
    device: str = "",
    half: bool = False,
    data: str | None = None,
    trust: bool = False,
    dnn: bool = False,
    arch: str | None = None,
):
    """Return a detection model in evaluation mode and on its device; a list of several for an ensemble.

    weights: the path or official name of a .pt checkpoint, or several, or a model that is already loaded, which comes
    back as it is, or the path of an exported model, which gives a DetectMultiBackend, or the name of a torchvision model, or
    a file of weights alone, whose architecture is `arch`. data: a dataset YAML whose class names replace those of the
    checkpoint. dnn: run ONNX files by OpenCV.
    Nothing but official weights that are not at hand are downloaded. UsageError says what is wrong with a file.
    """
    from torch import nn

    entries = check_weights(weights, arch)
    place = open_device(device) if any(isinstance(entry, (str, Path)) for entry in entries) else None
    if is_exported(entries[0]):
        check_program(entries[0], trust)
        return load_exported(entries[0], trust=trust, device=place, fp16=half, data=data, dnn=dnn)
    if is_builder(entries[0]) or is_state(entries[0]) or arch:
        models = [open_torchvision(entries[0], place, half, trust, arch)]
    else:
        models = [load(entry, place, half, trust) if isinstance(entry, (str, Path)) else entry for entry in entries]
    if data:
        for model in models:
            model.names = class_names_of(data, class_count_of(model))
    return models[0] if len(models) == 1 else nn.ModuleList(models)


def open_torchvision(entry: str | Path, device, half: bool, trust: bool, arch: str | None):
    """Return a model of torchvision, by its name or by the file of its weights, in full precision."""
    from utils.general import LOGGER

    if half:
        LOGGER.warning("WARNING ⚠️ models of torchvision run in full precision")
    model = open_builder(entry) if is_builder(entry) else open_state(existing(entry), arch, trust)
    if pyramidal(model) is None:
        raise UsageError(f"{entry} holds a {type(model).__name__}, and a .pth file is one of torchvision's detectors")
    return model.to(device).float().eval()


def class_count_of(model) -> int:
    """Return how many classes a loaded model tells apart."""
    from explainer.checkpoints.repair import count_classes

    kind = pyramidal(model)
    return count_classes(model) if kind is None else len(kind(model).names)


def detector_of(model, imgsz: tuple[int, int] | None) -> Detector:
    """Return what is explained of a model: the model itself, loaded, or what `open_model` takes; a Detector as it is.

    imgsz: the (height, width) that is asked for, None for the usual, which an exported model may not take.
    """
    if isinstance(model, Detector):
        return model
    from explainer.detectors.exported import Exported, exported_backend
    from explainer.detectors.yolov5 import YOLOv5

    opened = open_model(model)
    if (found := ultralytics_model(opened)) is not None:
        return ultralytics_detector(found)
    backend = exported_backend(opened)
    if backend is not None:
        return Exported(backend, imgsz)
    kind = pyramidal(opened) or YOLOv5
    return kind(opened)


def ultralytics_model(model):
    """Return the model of the ultralytics package inside what the caller holds; None where there is none."""
    from torch import nn

    from explainer.checkpoints.ultralytics import is_of_ultralytics

    inner = model
    while isinstance(inner, nn.Module):
        if is_of_ultralytics(inner):
            return inner
        inner = getattr(inner, "model", None)
    return None


def ultralytics_detector(model) -> Detector:
    """Return the detector of a model of the ultralytics package; UsageError for one that finds no upright boxes."""
    from torch import nn

    from explainer.detectors.rtdetr import RTDETR
    from explainer.detectors.ultralytics import Ultralytics

    head = model.model[-1] if isinstance(getattr(model, "model", None), nn.Sequential) else None
    kinds = {QUERY_HEAD: RTDETR} | dict.fromkeys(CELL_HEADS, Ultralytics)
    if type(head).__name__ not in kinds:
        raise UsageError(
            f"a {type(model).__name__} with a {type(head).__name__} head cannot be explained; "
            "of the ultralytics package that can be: YOLOv3u, v5u, v8 to v12, 26 and RT-DETR models that detect"
        )
    return kinds[type(head).__name__](model)


def load(path: str | Path, device, half: bool, trust: bool):
    """Return the model of one checkpoint, fused; UsageError for a file that is none or is not there."""
    from explainer.checkpoints.checkpoint import load_model
    from utils.general import LOGGER

    model = load_model(find_or_download(path), trust=trust, fuse=True, ultralytics=True).to(device)
    if half and device.type == "cpu":
        LOGGER.warning("WARNING ⚠️ half precision needs a GPU; going on in full precision")
    return model.half() if half and device.type != "cpu" else model


def check_program(path: str | Path, trust: bool) -> None:
    """Raise UsageError for a TorchScript file that nobody vouches for: it is a program, which can write files."""
    if Path(path).suffix.lower() == ".torchscript" and not trust:
        raise UsageError(
            f"weights '{path}' are TorchScript, a program that can write files when it runs; "
            "give --trust (trust=True) for a file you made yourself, or the .pt or .onnx file of the same model"
        )


def load_exported(path: str | Path, *, trust: bool = False, **how):
    """Return the backend of an exported model; UsageError for a file that is none, or that cannot be run here."""
    from models.common import DetectMultiBackend

    # Stock YOLOv5 runs whatever it is given.
    if "trust" in signature(DetectMultiBackend).parameters:
        how["trust"] = trust
    # What a stock checkout and this tree raise for formats, files and runtimes that are not there.
    try:
        return DetectMultiBackend(str(path), **how).eval()
    except (OSError, ValueError, RuntimeError, ImportError, *errors_of_onnx_runtime()) as error:
        raise UsageError(f"weights '{path}' cannot be run: {error}") from error


def errors_of_onnx_runtime() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no base of their own; none where it was not imported."""
    state = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(kind for kind in vars(state).values() if is_exception(kind)) if state else ()


def is_exception(kind: object) -> bool:
    """Return whether something is a class of exceptions."""
    return isinstance(kind, type) and issubclass(kind, Exception)


def find_or_download(path: str | Path) -> str | Path:
    """Return the path of a checkpoint that is there, after a download if it has an official name."""
    from utils.downloads import attempt_download

    if Path(path).exists():
        return path
    try:
        found = attempt_download(path)
    except OSError as error:
        raise UsageError(f"{error}{demo_hint()}") from error
    # Stock YOLOv5 says nothing of a file that is missing and has no official name.
    if not Path(found).exists():
        raise UsageError(f"weights '{path}' do not exist; check their path{demo_hint()}")
    return found


def existing(path: str | Path) -> str | Path:
    """Return the path of a file that is there; UsageError for one that is not."""
    if not Path(path).is_file():
        raise UsageError(f"weights '{path}' do not exist; check their path")
    return path


def bundled_demo(root: Path = ROOT) -> tuple[Path, Path] | None:
    """Return the demo's checkpoint and its folder of scenes; None in a tree that has none."""
    model, scenes = root / "data/demo/demo.pt", root / "data/demo/images"
    return (model, scenes) if model.is_file() and scenes.is_dir() else None


def demo_hint(root: Path = ROOT) -> str:
    """Return the end of a message about weights that are not there: how to go on without them, if that is possible."""
    return f"; the bundled demo needs no download: {DEMO_COMMAND}" if bundled_demo(root) else ""


def check_there(weights: tuple) -> None:
    """Raise UsageError for a checkpoint that is not there; one of an official name is downloaded."""
    for entry in weights:
        if isinstance(entry, (str, Path)) and not is_builder(entry):
            existing(entry) if is_state(entry) else find_or_download(entry)


def open_device(device: str):
    """Return the torch device for 'cpu', '0' or ''; UsageError for one that is not there."""
    from utils.torch_utils import select_device

    # A stock checkout asserts that the device is there; this tree raises ValueError.
    try:
        return select_device(device)
    except (ValueError, AssertionError) as error:
        raise UsageError(str(error)) from error


def class_names_of(data: str, count: int) -> dict[int, str]:
    """Return the class names that a dataset YAML gives; UsageError unless there are `count`."""
    from explainer.checkpoints.repair import indexed_names

    try:
        content = read_yaml(data)
    except UsageError as error:
        raise UsageError(f"--data {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if not isinstance(names, (dict, list)):
        raise UsageError(f"--data '{data}' is no dataset YAML with class names: 'names' is {str(names)[:60]}")
    texts = names.values() if isinstance(names, dict) else names
    odd = next((name for name in texts if isinstance(name, (dict, list, set))), None)
    if odd is not None:
        raise UsageError(f"--data '{data}': the name of a class is {str(odd)[:60]}; give a word")
    known = indexed_names(names, count)
    if set(known) != set(range(count)):
        raise UsageError(f"--data '{data}' names {len(known)} classes, and the checkpoint has {count}")
    return {index: known[index] for index in range(count)}


def keep_freed_memory() -> None:
    """Have the C library keep what a pass of the network frees for the next one, up to 64 MiB.

    glibc hands freed memory back to the system once it is more than twice the largest block ever freed (mallopt(3),
    M_TRIM_THRESHOLD). To get it again, page by page, takes up to as long as the pass of a small network. So a large block is
    taken, which costs nothing while nobody writes to it, and freed. Other C libraries go on as they are.
    """
    import torch

    torch.empty(LEARNT_FROM, dtype=torch.uint8)
