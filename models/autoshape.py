"""A model that takes pictures as people have them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from explainer.checkpoints.repair import is_head, names_by_index
from models.backend import DetectMultiBackend
from models.detections import Detections
from utils.augmentations import letterbox
from utils.base.boxes import scale_boxes
from utils.base.devices import Profile, smart_inference_mode
from utils.base.image_io import PILLOW_ERRORS, exif_transpose, open_picture
from utils.base.logger import LOGGER
from utils.base.nms import non_max_suppression

__all__ = ["AutoShape", "Detections"]

URL_TIMEOUT_SECONDS = 30


class AutoShape(nn.Module):
    """Wraps a detection model: reads pictures, resizes them, detects, and suppresses overlaps.

    Attributes (set them as you like): conf and iou, the thresholds of the suppression; agnostic, whether classes
    suppress each other; multi_label, whether a box can have several classes; classes, a list of those to keep or None;
    max_det per image; amp, whether to use automatic mixed precision on a GPU. stride, names, yaml, nc and hyp are the
    model's.
    """

    conf, iou = 0.25, 0.45
    classes: list[int] | None = None
    max_det = 1000
    agnostic = multi_label = amp = False

    def __init__(self, model: nn.Module, verbose: bool = True):
        """Wrap a DetectionModel or a DetectMultiBackend; its heads return predictions alone from then on."""
        super().__init__()
        if verbose:
            LOGGER.info("Adding AutoShape... ")
        self.dmb = isinstance(model, DetectMultiBackend)
        self.pt = not self.dmb or model.pt
        inner = model.model if self.dmb else model
        for name in ("yaml", "nc", "hyp", "names", "stride"):
            source = next((each for each in (model, inner) if hasattr(each, name)), None)
            if source is not None:
                setattr(self, name, getattr(source, name))
        self.model = model.eval()
        heads = [module for module in model.modules() if is_head(module)]
        for head in heads:
            head.inplace, head.export = False, True
        self._mask_columns = max((getattr(head, "nm", 0) for head in heads), default=0)
        if heads:
            self.names = names_by_index(getattr(self, "names", None), heads[-1].nc)

    @smart_inference_mode()
    def forward(
        self, ims: Any, size: int | tuple[int, int] = 640, augment: bool = False, profile: bool = False
    ) -> Detections | Any:
        """Detect in one picture or a list of pictures.

        Args:
            ims: a path, an address (http, https), a PIL image, an array (H, W, 3), (3, H, W) or (H, W), RGB uint8 or
                float 0..255 (turn OpenCV's BGR around with `im[..., ::-1]`), or a list of these. A tensor (B, 3, h, w),
                0..1, goes through the model as it is, and the model's output comes back.
            size: the longer side, or (height, width), in pixels that pictures are resized to.
            augment: test-time augmentation.
            profile: taken for compatibility; times are always measured.

        Raises:
            OSError: naming a picture that cannot be read.
            ValueError: for anything that is no picture.
        """
        like = next(self.model.parameters()) if self.pt else torch.empty(1, device=self.model.device)
        with torch.autocast(like.device.type, enabled=self.amp and like.device.type != "cpu"):
            if isinstance(ims, Tensor):
                return self.model(ims.to(like), augment=augment)
            return self._detect(list(ims) if isinstance(ims, (list, tuple)) else [ims], size, augment, like)

    def _detect(self, ims: list[Any], size: int | tuple[int, int], augment: bool, like: Tensor) -> Detections:
        """Read, resize, run, suppress and scale back."""
        if not ims:
            raise ValueError("there are no pictures to detect in: the list is empty")
        times = [Profile(device=like.device) for _ in range(3)]
        with times[0]:
            pictures, files = zip(*(read_picture(im, f"image{i}") for i, im in enumerate(ims)), strict=True)
            batch = self._make_batch(pictures, size).to(like) / 255
        with times[1]:
            output = self.model(batch, augment=augment)
        with times[2]:
            found = self._suppress(output)
            for boxes, picture in zip(found, pictures, strict=True):
                scale_boxes(batch.shape[2:], boxes[:, :4], picture.shape[:2])
        names = [Path(file).with_suffix(".jpg").name for file in files]
        return Detections(list(pictures), found, names, times, self._class_names(found), batch.shape)

    def _class_names(self, found: list[Tensor]) -> dict[int, str]:
        """Return the class names by index, also of classes that were found (m, 6) and have none."""
        highest = max((int(rows[:, 5].max()) for rows in found if len(rows)), default=-1)
        return names_by_index(self.names, max(highest + 1, len(self.names)))

    def _make_batch(self, pictures: Sequence[np.ndarray], size: int | tuple[int, int]) -> Tensor:
        """Return all pictures in one frame: (B, 3, h, w), 0..255."""
        frame = size if isinstance(size, (tuple, list)) else (size, size)
        if self.pt:
            frame = self._fit_frame([picture.shape[:2] for picture in pictures], max(frame))
        boxed = [letterbox(picture, tuple(frame), auto=False)[0] for picture in pictures]
        return torch.from_numpy(np.ascontiguousarray(np.stack(boxed).transpose(0, 3, 1, 2)))

    def _fit_frame(self, shapes: list[tuple[int, int]], longest: int) -> tuple[int, int]:
        """Return the smallest (height, width), multiples of the stride, that holds all pictures at that longer side."""
        stride = int(self.stride.max()) if isinstance(self.stride, Tensor) else self.stride
        scaled = [[int(side * longest / max(shape)) for side in shape] for shape in shapes]
        return tuple(max(math.ceil(side / stride), 1) * stride for side in map(max, *scaled, (0, 0)))

    def _suppress(self, output: Any) -> list[Tensor]:
        """Return rows x1, y1, x2, y2, confidence, class for each image."""
        predictions = output[0] if isinstance(output, (list, tuple)) else output
        found = non_max_suppression(
            predictions,
            self.conf,
            self.iou,
            self.classes,
            self.agnostic,
            self.multi_label,
            max_det=self.max_det,
            nm=self._mask_columns,
        )
        return [rows[:, :6] for rows in found]


def read_picture(source: Any, name: str) -> tuple[np.ndarray, str]:
    """Return a picture as (H, W, 3) uint8 or float RGB, upright, and its file name; `name` is for those without."""
    if isinstance(source, (str, Path)):
        return _from_pil(_open_picture(str(source))), str(source).partition("?")[0]
    if isinstance(source, Image.Image):
        return _from_pil(source), getattr(source, "filename", "") or name
    if isinstance(source, np.ndarray):
        return _from_array(source), name
    raise ValueError(f"{type(source).__name__} is no picture; give a path, an address, a PIL image or a numpy array")


def _open_picture(source: str) -> Image.Image:
    """Open and decode a file or what an address answers."""
    try:
        file = io.BytesIO(_fetch(source)) if source.startswith(("http://", "https://")) else source
        image = open_picture(file)
        image.load()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} does not exist; give a picture that does") from error
    except PILLOW_ERRORS as error:
        raise OSError(f"{source} cannot be read as a picture: {error}") from error
    return image


def _fetch(url: str) -> bytes:
    from urllib.request import Request, urlopen

    # Some servers refuse Python's own name.
    with urlopen(Request(url, headers={"User-Agent": "Mozilla/5.0"}), timeout=URL_TIMEOUT_SECONDS) as answer:
        return answer.read()


def _from_pil(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, turned as the camera was held; 16 bits are scaled to 8, transparency is dropped."""
    image = exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_array(im: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) of an array (H, W), (H, W, C) or (C, H, W)."""
    if im.ndim == 3 and im.shape[0] < 5 <= im.shape[2]:
        im = im.transpose(1, 2, 0)
    if im.ndim == 2:
        im = im[..., None]
    if im.ndim != 3 or im.shape[2] not in (1, 3, 4) or 0 in im.shape:
        raise ValueError(f"an array of shape {im.shape} is no picture; give (H, W, 3), (3, H, W) or (H, W)")
    if im.dtype == np.uint16:
        im = im >> 8
    elif im.dtype != np.uint8 and not np.issubdtype(im.dtype, np.floating):
        raise ValueError(f"an array of {im.dtype} is no picture; give uint8 from 0 to 255")
    im = im.clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(im, cv2.COLOR_GRAY2RGB) if im.shape[2] == 1 else np.ascontiguousarray(im[..., :3])
