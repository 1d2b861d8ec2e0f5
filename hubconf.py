"""Entry points of torch.hub: detectors that take pictures in any form, and the explainer.

import torch
model = torch.hub.load(".", "custom", path="best.pt", source="local")
model("img.jpg").pandas().xyxy[0]
explainer = torch.hub.load(".", "explainer", path="best.pt", source="local", method="LayerCAM")
explainer(image_rgb)

As a command it loads a model and detects in data/images:
    python hubconf.py --model yolov5n
"""

dependencies = ["torch", "torchvision", "cv2", "numpy", "yaml"]

OFFICIAL = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
OFFICIAL_P6 = tuple(f"{name}6" for name in OFFICIAL)


def custom(path="path/to/model.pt", autoshape=True, _verbose=True, device=None):
    """Return the detector in a checkpoint, or in any other format that `models.backend` reads.

    path: of a file, also without its .pt, or the name of official weights, such as yolov5n.
    autoshape: wrap it so that it takes paths, PIL images, arrays and lists of them and returns `Detections`.
    device: "cpu", "0" or a torch.device; by default the first GPU, or the CPU.
    """
    from models.autoshape import AutoShape
    from models.backend import DetectMultiBackend
    from utils.base.devices import select_device

    model = DetectMultiBackend(_with_suffix(path), device=select_device(str(device or "")), fuse=autoshape)
    model.eval()
    if not autoshape:
        return model.model if model.pt else model
    return AutoShape(model, verbose=_verbose)


def explainer(path="yolov5s.pt", device=None, arch=None, data=None, **settings):
    """Return an explainer of the model in a checkpoint; it takes an image, uint8 RGB (H, W, 3).

    path: also a loaded model, or what torchvision calls one of its detectors, or a file of weights alone with its `arch`.
    data: a dataset YAML with the names of the classes.
    settings: those of `explainer.settings.Settings`, such as method, layer or class_names.
    """
    from explainer.detectors.torchvision_models import is_builder, is_state
    from explainer.detectors.weights import open_model
    from explainer.explain import Explainer

    weights = path if is_builder(path) or is_state(path) else _with_suffix(path)
    return Explainer(open_model(weights, device=str(device or ""), arch=arch, data=data), **settings)


def _with_suffix(path):
    """Return the path of weights with .pt where it ends in no format that is known; addresses and lists as they are."""
    from models.backend import FORMATS

    if not isinstance(path, (str, bytes)) and not hasattr(path, "__fspath__"):
        return path
    is_whole = "://" in str(path) or str(path).lower().endswith(tuple(FORMATS))
    return str(path) if is_whole else f"{path}.pt"


def _official(name):
    """Return the entry point of an official model."""

    def create(pretrained=True, channels=3, classes=80, autoshape=True, _verbose=True, device=None):
        if pretrained and (channels, classes) == (3, 80):
            return custom(f"{name}.pt", autoshape, _verbose, device)
        if pretrained:
            raise ValueError(f"{name}.pt has 3 channels and 80 classes; for others say pretrained=False, and train it")
        return _untrained(name, channels, classes, device)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Return {name}, downloaded once; with pretrained=False a new network that `train.py` can train."
    return create


def _untrained(name, channels, classes, device):
    from models.yolo import DetectionModel
    from utils.base.devices import select_device

    return DetectionModel(f"{name}.yaml", ch=channels, nc=classes).to(select_device(str(device or "")))


globals().update({name: _official(name) for name in OFFICIAL + OFFICIAL_P6})


# Public functions of this file are entry points of torch.hub, so what the command needs goes by other names.
def _main(arguments=None):
    """Load the model that is named, detect in the pictures of data/images, and return the exit code."""
    from utils.base.command_line import OneLineParser, exit_code

    parser = OneLineParser(prog="hubconf.py", description="Load a model as torch.hub does and try it on data/images.")
    parser.add_argument("--model", default="yolov5s", help="name of an official model, or a path (default: yolov5s)")
    parser.add_argument("--device", default="", help="0 for a GPU, or cpu")
    opt = parser.parse_args(arguments)
    create = globals()[opt.model] if opt.model in OFFICIAL + OFFICIAL_P6 else lambda **how: custom(opt.model, **how)
    return exit_code("hubconf.py", lambda: create(device=opt.device), _try_out)


def _try_out(model):
    """Detect in a picture given in every way that AutoShape takes, say what was found, and save it in runs/hub."""
    import numpy as np
    from PIL import Image

    from utils.base.paths import ROOT

    first, *others = sorted((ROOT / "data/images").glob("*.jpg"))
    pictures = [str(first), first, Image.open(first), np.asarray(Image.open(first)), *others]
    found = model(pictures, size=320)
    found.print()
    found.save(save_dir=ROOT / "runs/hub/exp")


if __name__ == "__main__":
    import sys

    sys.exit(_main())
