"""What val.py can be asked for: names, defaults, help texts and checks, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from utils.base.command_line import flag, option
from utils.base.paths import ROOT

TASKS = ("train", "val", "test", "speed", "study")


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """The options of one run of val.py. ValueError for values that make no sense."""

    data: str | Mapping = option(ROOT / "data/coco128.yaml", "dataset YAML")
    weights: str | tuple = option(ROOT / "yolov5s.pt", "checkpoint; several make an ensemble", nargs="+")
    batch_size: int = option(32, "images per batch", type=int)
    imgsz: int = option(640, "pixels of the longer side", type=int)
    conf_thres: float = option(0.001, "the least confidence", type=float)
    iou_thres: float = option(0.6, "the overlap above which the weaker of two boxes is dropped", type=float)
    max_det: int = option(300, "the most detections per image", type=int)
    task: str = option("val", "split to validate on, or speed or study", choices=TASKS)
    device: str = option("", "0 or 0,1 for GPUs, or cpu")
    workers: int = option(8, "the most processes that load images", type=int)
    single_cls: bool = option(False, "treat all classes as one")
    augment: bool = option(False, "also detect on scaled and mirrored copies")
    verbose: bool = option(False, "report the figures of each class")
    save_txt: bool = option(False, "save the detections in labels/*.txt")
    save_hybrid: bool = option(False, "save the labels together with the detections in labels/*.txt")
    save_conf: bool = option(False, "add the confidence to save-txt")
    save_json: bool = option(False, "save the detections as COCO's JSON")
    project: str = option(ROOT / "runs/val", "folder of all runs")
    name: str = option("exp", "folder of this run in the project; a number is added where it exists")
    exist_ok: bool = option(False, "write into an existing folder instead")
    half: bool = option(False, "compute in half precision (GPU)")
    dnn: bool = option(False, "run ONNX files with OpenCV's DNN")
    trust: bool = option(False, "unpickle the weights fully, which can run any program: for files you made yourself")

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _as_tuple(self.weights))
        object.__setattr__(self, "save_txt", self.save_txt or self.save_hybrid)
        for name in ("conf_thres", "iou_thres"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{flag(name)} {getattr(self, name)} is no fraction; give a number from 0 to 1")
        for name in ("batch_size", "imgsz", "max_det"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag(name)} {getattr(self, name)} is too small; give 1 or more")
        if self.workers < 0:
            raise ValueError(f"--workers {self.workers} is too small; give 0 or more")
        if self.task not in TASKS:
            raise ValueError(f"--task {self.task} is unknown; give one of {', '.join(TASKS)}")


def _as_tuple(weights: object) -> tuple[str, ...]:
    return tuple(map(str, weights)) if isinstance(weights, (list, tuple)) else (str(weights),)
