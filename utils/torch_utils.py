"""Helpers around PyTorch, under the path that code written for YOLOv5 imports them from."""

from utils.base.devices import select_device, smart_inference_mode, time_sync
from utils.base.logger import LOGGER
from utils.base.networks import (
    BORDER_VALUE,
    copy_attr,
    count_gflops,
    fuse_conv_and_bn,
    initialize_weights,
    model_info,
    scale_img,
)
from utils.training.model_ema import ModelEMA, de_parallel
from utils.training.optimizers import EarlyStopping, smart_optimizer

__all__ = [
    "BORDER_VALUE",
    "LOGGER",
    "EarlyStopping",
    "ModelEMA",
    "copy_attr",
    "count_gflops",
    "de_parallel",
    "fuse_conv_and_bn",
    "initialize_weights",
    "model_info",
    "scale_img",
    "select_device",
    "smart_inference_mode",
    "smart_optimizer",
    "time_sync",
]
