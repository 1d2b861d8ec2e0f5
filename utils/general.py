"""The names that code written for YOLOv5 imports from here; each lives in the file that is named after what it does."""

from utils.boxes import clip_boxes, scale_boxes, xywh2xyxy, xywhn2xyxy, xyxy2xywh, xyxy2xywhn
from utils.checkpoints import intersect_dicts, strip_optimizer
from utils.checks import (
    check_file,
    check_img_size,
    check_imshow,
    check_requirements,
    check_suffix,
    check_yaml,
    print_args,
)
from utils.dataset_yaml import check_dataset
from utils.logger import LOGGER, colorstr
from utils.nms import non_max_suppression
from utils.paths import ROOT, increment_path
from utils.profiling import Profile
from utils.seeding import init_seeds

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
