"""Open the detectors that were trained on the Evidence set, so that all are used alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.scripts.evidence.rendering import CLASSES

# Below it nothing is detected. A body without its emblem has no class to be sure of, and is to be found nevertheless.
LEAST_CONFIDENCE = 0.05
# Takes an image uint8 RGB (H, W, 3), returns detections (n, 6): x1, y1, x2, y2 in pixels, score, class from 0 on.
Detect = Callable[[np.ndarray], np.ndarray]


def open_yolov5(weights: Path, imgsz: int) -> Detect:
    """Return a detector of this repository, in which a box suppresses those of other classes too."""
    from models.common import AutoShape
    from models.experimental import attempt_load

    model = AutoShape(attempt_load(weights), verbose=False)
    model.conf, model.agnostic = LEAST_CONFIDENCE, True
    return lambda image_rgb: model(image_rgb, size=imgsz).xyxy[0].cpu().numpy()


def open_fasterrcnn(weights: Path, imgsz: int) -> Detect:
    """Return the small Faster R-CNN of a state dict."""
    from data.scripts.small_detectors import fasterrcnn_small

    return open_torchvision(fasterrcnn_small(len(CLASSES) + 1), weights, imgsz)


def open_retinanet(weights: Path, imgsz: int) -> Detect:
    """Return the small RetinaNet of a state dict."""
    from data.scripts.small_detectors import retinanet_small

    return open_torchvision(retinanet_small(len(CLASSES) + 1), weights, imgsz)


def open_torchvision(model, weights: Path, imgsz: int) -> Detect:
    """Return a detector of torchvision with weights from a state dict; its label 1 is class 0."""
    import torch

    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval().transform.min_size = (imgsz,)

    @torch.inference_mode()
    def detect(image_rgb: np.ndarray) -> np.ndarray:
        (found,) = model([torch.from_numpy(image_rgb.copy()).movedim(-1, 0) / 255])
        boxes, scores, labels = (found[name].numpy() for name in ("boxes", "scores", "labels"))
        return np.column_stack((boxes, scores, labels - 1))

    return detect


def open_yolov8(weights: Path, imgsz: int) -> Detect:
    """Return the narrow YOLOv8 of a checkpoint that ultralytics reads."""
    from data.scripts.learning.yolov8_detector import offline_yolo

    yolo = offline_yolo(weights)

    def detect(image_rgb: np.ndarray) -> np.ndarray:
        image_bgr = image_rgb[..., ::-1]
        (found,) = yolo.predict(image_bgr, imgsz=imgsz, conf=LEAST_CONFIDENCE, device="cpu", verbose=False)
        return found.boxes.data.numpy()

    return detect


OPENERS = {"yolov5": open_yolov5, "fasterrcnn": open_fasterrcnn, "retinanet": open_retinanet, "yolov8": open_yolov8}
