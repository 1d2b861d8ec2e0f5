"""From an image to detections that know which raw prediction they came from."""

from bisect import bisect

import numpy as np
import torch
from torch import Tensor

from explainer.cells import row_ranges
from explainer.errors import UnreadableImageError
from explainer.explanation import Detection
from explainer.maps.heatmaps import Letterbox
from explainer.network import Network, Recording
from explainer.settings import Settings
from utils.augmentations import letterbox
from utils.general import non_max_suppression, scale_boxes


def prepare(image_rgb: np.ndarray, input_size: tuple[int, int], network: Network) -> tuple[Tensor, Letterbox]:
    """Return the image as the network's input, (1, 3, h, w) in 0..1 on its device, and how it lies in there.

    image_rgb: uint8 (H, W, 3); input_size: (height, width) that the letterbox may fill, multiples of the largest stride.
    """
    height, width = image_rgb.shape[:2]
    if min(height / width, width / height) * max(input_size) < 0.5:
        raise UnreadableImageError(
            f"an image of {width}x{height} pixels is too narrow for an input of {max(input_size)}"
        )
    boxed, _, (pad_x, pad_y) = letterbox(image_rgb, input_size, stride=network.stride, auto=network.rectangular)
    content = boxed.shape[0] - round(2 * pad_y), boxed.shape[1] - round(2 * pad_x)
    place = Letterbox((height, width), boxed.shape[:2], content, round(pad_y - 0.1), round(pad_x - 0.1))
    pixels = torch.from_numpy(np.ascontiguousarray(boxed.transpose(2, 0, 1))[None])
    return pixels.to(network.weight.device).to(network.weight.dtype) / 255, place


def detect(
    network: Network, recording: Recording, place: Letterbox, settings: Settings
) -> tuple[list[Detection], Tensor]:
    """Return the detections of non-maximum suppression and their boxes (D, 4) in input pixels, unclipped.

    Two columns ride along with the raw predictions, their index and a one; suppression multiplies both by the objectness,
    so that their quotient is the index.
    """
    raw = recording.raw
    candidates = (raw[:, 4] > settings.conf_thres).nonzero()
    marked = torch.cat((raw[candidates[:, 0]], candidates, torch.ones_like(candidates)), dim=1)
    (kept,) = non_max_suppression(
        marked[None],
        settings.conf_thres,
        settings.iou_thres,
        classes=list(settings.classes) or None,
        max_det=settings.max_det,
        nm=2,
    )
    rows = (kept[:, 6] / kept[:, 7]).round().long()
    boxes = kept[:, :4].clone()
    in_image = scale_boxes(place.input_size, kept[:, :4], place.image_size).cpu().numpy()
    confidences, classes = kept[:, 4].tolist(), kept[:, 5].int().tolist()
    _, ends = row_ranges(network.levels, recording.head_inputs)
    levels = [bisect(ends, row) for row in rows.tolist()]
    names = network.names
    detections = [
        Detection(xyxy, confidence, index, names[index], network.levels[level].stride, level, row)
        for xyxy, confidence, index, level, row in zip(
            in_image, confidences, classes, levels, rows.tolist(), strict=True
        )
    ]
    return detections, boxes
