"""Pictures of an explanation: arrays in, arrays out. All images are RGB, uint8 (H, W, 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an overlay is drawn: box line width in pixels, what labels say, whether the evidence is blanked out.

    `strength` is the opacity of the colours where the heatmap is hottest, 0..1.
    """

    line_thickness: int = 3
    hide_labels: bool = False
    hide_conf: bool = False
    crop: bool = False
    strength: float = 0.75


def paint(image_rgb: np.ndarray, heatmap: np.ndarray, style: Style) -> np.ndarray:
    """Return the image under the colours of its heatmap, or with the evidence blanked out if the style says so."""
    return blank_out(image_rgb, heatmap) if style.crop else colour(image_rgb, heatmap, style.strength)


def colour(image_rgb: np.ndarray, heatmap: np.ndarray, strength: float) -> np.ndarray:
    """Return the image under the colours of the heatmap: transparent near 0, through blue and yellow to red at 1."""
    import cv2

    colours_bgr = cv2.applyColorMap(np.uint8(heatmap * 255 + 0.5), cv2.COLORMAP_TURBO)
    # Rises slowly from 0 and ends at 1 slowly, so that the photograph stays visible where little speaks.
    opacity = (heatmap * heatmap * (3 - 2 * heatmap) * np.float32(strength))[..., None]
    blended = image_rgb + (colours_bgr[..., ::-1] - image_rgb.astype(np.float32)) * opacity
    return np.uint8(blended + 0.5)


def blank_out(image_rgb: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return the image with every pixel that the heatmap keeps replaced by the image's mean colour."""
    blanked = image_rgb.copy()
    blanked[heatmap > 0] = np.uint8(image_rgb.mean(axis=(0, 1)) + 0.5)
    return blanked


def draw_boxes(image_rgb: np.ndarray, detections: Sequence, style: Style) -> np.ndarray:
    """Return a copy of the image with the box, class and confidence of each detection, most confident on top.

    Each detection has `xyxy` in image pixels, `name`, `class_index` and `confidence`; the most confident comes first.
    """
    from utils.plots import Annotator, colors

    names = " ".join(found.name for found in detections)
    annotator = Annotator(image_rgb.copy(), line_width=style.line_thickness, example=names or "abc")
    for found in reversed(detections):
        text = found.name if style.hide_conf else f"{found.name} {found.confidence:.2f}"
        annotator.box_label(found.xyxy.tolist(), "" if style.hide_labels else text, color=colors(found.class_index))
    return np.asarray(annotator.result())
