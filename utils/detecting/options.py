"""What detect.py can be asked for: names, defaults, help texts and checks, written once."""

from __future__ import annotations

from dataclasses import dataclass

from utils.base.command_line import flag, option
from utils.base.paths import ROOT


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """The options of one run of detect.py. ValueError for values that make no sense."""

    weights: str | tuple = option(ROOT / "yolov5s.pt", "checkpoint; several make an ensemble", nargs="+")
    source: str = option(
        ROOT / "data/images", "file, folder, glob, list.txt, URL, list.streams, webcam number, or 'screen 0 L T W H'"
    )
    data: str = option(ROOT / "data/coco128.yaml", "dataset YAML with class names, for models without them")
    imgsz: int | tuple = option((640,), "inference size in pixels: one side, or height and width", nargs="+", type=int)
    conf_thres: float = option(0.25, "the least confidence", type=float)
    iou_thres: float = option(0.45, "the overlap above which the weaker of two boxes is dropped", type=float)
    max_det: int = option(1000, "the most detections per image", type=int)
    device: str = option("", "0 or 0,1 for GPUs, or cpu")
    view_img: bool = option(False, "show the results in a window")
    save_txt: bool = option(False, "save the boxes in labels/*.txt")
    save_format: int = option(
        0, "of save-txt, relative to the image: 0 = x y w h (YOLO), 1 = x1 y1 x2 y2 (Pascal VOC)", type=int
    )
    save_csv: bool = option(False, "save the detections in predictions.csv")
    save_conf: bool = option(False, "add the confidence to save-txt")
    save_crop: bool = option(False, "save what is in the boxes in crops/")
    nosave: bool = option(False, "save no images or videos")
    classes: int | tuple | None = option(None, "keep these classes only, by number: 0, or 0 2 3", nargs="+", type=int)
    agnostic_nms: bool = option(False, "boxes of different classes suppress each other too")
    augment: bool = option(False, "also detect on scaled and mirrored copies")
    visualize: bool = option(False, "save pictures of the feature maps")
    update: bool = option(False, "accepted for old commands; there is nothing to update")
    project: str = option(ROOT / "runs/detect", "folder of all runs")
    name: str = option("exp", "folder of this run in the project; a number is added where it exists")
    exist_ok: bool = option(False, "write into an existing folder instead")
    line_thickness: int = option(3, "width of the boxes' lines in pixels", type=int)
    hide_labels: bool = option(False, "draw no labels")
    hide_conf: bool = option(False, "draw no confidences")
    half: bool = option(False, "compute in half precision (GPU)")
    dnn: bool = option(False, "run ONNX files with OpenCV's DNN")
    vid_stride: int = option(1, "take every n-th frame of a video", type=int)
    trust: bool = option(False, "unpickle the weights fully, which can run any program: for files you made yourself")

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "source", str(self.source))
        put(self, "classes", (self.classes,) if isinstance(self.classes, int) else self.classes)
        sides = (self.imgsz,) if isinstance(self.imgsz, int) else tuple(self.imgsz)
        put(self, "imgsz", sides * 2 if len(sides) == 1 else sides)
        self._check()

    def _check(self) -> None:
        if len(self.imgsz) != 2 or min(self.imgsz) < 1:
            raise ValueError(f"--imgsz {self.imgsz} is no size; give one side, or height and width, such as 640")
        for name in ("conf_thres", "iou_thres"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{flag(name)} {getattr(self, name)} is no fraction; give a number from 0 to 1")
        for name in ("max_det", "line_thickness", "vid_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag(name)} {getattr(self, name)} is too small; give 1 or more")
        if self.save_format not in (0, 1):
            raise ValueError(f"--save-format {self.save_format} is unknown; give 0 (YOLO) or 1 (Pascal VOC)")
