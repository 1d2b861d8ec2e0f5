"""The loaders, under the path that code written for YOLOv5 imports them from: for detection, and for training."""

from utils.augmentations import FrameTransform
from utils.base.image_io import exif_transpose, read_image
from utils.base.media import IMG_FORMATS, VID_FORMATS, find_media
from utils.data.labels import img2label_paths
from utils.data.loaders import create_dataloader
from utils.data.training_data import LoadImagesAndLabels
from utils.sources.files import Item, LoadImages
from utils.sources.screenshots import LoadScreenshots
from utils.sources.streams import LoadStreams

__all__ = [
    "IMG_FORMATS",
    "VID_FORMATS",
    "FrameTransform",
    "Item",
    "LoadImages",
    "LoadImagesAndLabels",
    "LoadScreenshots",
    "LoadStreams",
    "create_dataloader",
    "exif_transpose",
    "find_media",
    "img2label_paths",
    "read_image",
]
