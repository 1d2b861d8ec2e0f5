"""The names that code written for YOLOv5 imports from here; each lives in the file that is named after what it does."""

from utils.base.boxes import clip_boxes, scale_boxes, xywh2xyxy, xywhn2xyxy, xyxy2xywh, xyxy2xywhn
from utils.base.checks import (
    check_file,
    check_img_size,
    check_imshow,
    check_requirements,
    check_suffix,
    check_yaml,
    print_args,
)
from utils.base.devices import Profile, init_seeds
from utils.base.logger import LOGGER, colorstr
from utils.base.nms import non_max_suppression
from utils.base.paths import ROOT, increment_path
from utils.data.dataset_yaml import check_dataset
from utils.training.checkpoints import intersect_dicts, strip_optimizer

__all__ = [
    "LOGGER",
    "ROOT",
    "Profile",
    "check_dataset",
    "check_file",
    "check_img_size",
    "check_imshow",
    "check_requirements",
    "check_suffix",
    "check_yaml",
    "clip_boxes",
    "colorstr",
    "increment_path",
    "init_seeds",
    "intersect_dicts",
    "non_max_suppression",
    "print_args",
    "scale_boxes",
    "strip_optimizer",
    "xywh2xyxy",
    "xywhn2xyxy",
    "xyxy2xywh",
    "xyxy2xywhn",
]
