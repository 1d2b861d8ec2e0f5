"""Single detections of different images side by side: tiles of one size, whatever the images' shapes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from explainer.drawing import Style, draw_boxes, paint
from explainer.explanation import Detection
from explainer.sheets import Tile, colour_scale, resized, sheet

TILE_SIDE, PAPER = 330, 255


def detection_tile(image_rgb: np.ndarray, heatmap: np.ndarray, detection: Detection, title: str) -> Tile:
    """Return one detection, the image under its heatmap with its box, as large as fits into a square."""
    scale = TILE_SIDE / max(image_rgb.shape[:2])
    size = tuple(max(round(side * scale), 1) for side in image_rgb.shape[:2])
    style = Style(line_thickness=2, hide_labels=True)
    painted = paint(resized(image_rgb, size), np.clip(resized(heatmap, size), 0, 1), style)
    boxed = draw_boxes(painted, [replace(detection, xyxy=detection.xyxy * np.float32(scale))], style)
    return Tile(title, in_a_square(boxed))


def in_a_square(picture_rgb: np.ndarray) -> np.ndarray:
    """Return a picture in the upper left corner of a white tile."""
    height, width = picture_rgb.shape[:2]
    tile = np.full((TILE_SIDE, TILE_SIDE, 3), PAPER, np.uint8)
    tile[:height, :width] = picture_rgb
    return tile


def tile_sheet(tiles: Sequence[Tile], columns: int | None = None) -> np.ndarray:
    """Return tiles in rows on white, beside the scale of their colours, RGB uint8 (H, W, 3)."""
    return sheet(tiles, scale=colour_scale(Style(), has_sign=False), columns=columns)
