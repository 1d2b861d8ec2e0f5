"""Pictures of an explanation: arrays in, arrays out. All images are RGB, uint8 (H, W, 3)."""

from dataclasses import dataclass

import numpy as np

from explainer.explanation import DetectionExplanation, Explanation


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an overlay is drawn: box line width in pixels, what labels say, whether the evidence is blanked out."""

    line_thickness: int = 3
    hide_labels: bool = False
    hide_conf: bool = False
    crop: bool = False
    strength: float = 0.65


def overlay(explanation: Explanation, style: Style, class_name: str | None = None) -> np.ndarray:
    """Return the photograph under its heatmap, with the explained boxes; of one class if its name is given."""
    heatmap, detections = explanation.heatmap, explanation.detections
    if class_name is not None:
        heatmap = explanation.per_class[class_name]
        detections = tuple(entry for entry in detections if entry.detection.name == class_name)
    if style.crop:
        painted = blank_out(explanation.image_rgb, heatmap)
    else:
        painted = colour(explanation.image_rgb, heatmap, style.strength)
    return draw_boxes(painted, detections, style)


def colour(image_rgb: np.ndarray, heatmap: np.ndarray, strength: float) -> np.ndarray:
    """Return the image under the colours of the heatmap, from transparent at 0 through blue and yellow to red at 1.

    `strength`: the opacity where the heatmap is hot, 0..1.
    """
    import cv2

    colours_bgr = cv2.applyColorMap(np.uint8(heatmap * 255 + 0.5), cv2.COLORMAP_TURBO)
    opacity = np.minimum(heatmap * 2, 1)[..., None] * np.float32(strength)
    blended = image_rgb + (colours_bgr[..., ::-1] - image_rgb.astype(np.float32)) * opacity
    return np.uint8(blended + 0.5)


def blank_out(image_rgb: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return the image with every pixel that the heatmap keeps replaced by the image's mean colour."""
    blanked = image_rgb.copy()
    blanked[heatmap > 0] = np.uint8(image_rgb.mean(axis=(0, 1)) + 0.5)
    return blanked


def draw_boxes(image_rgb: np.ndarray, detections: tuple[DetectionExplanation, ...], style: Style) -> np.ndarray:
    """Return the image with the box, class and confidence of each detection, most confident on top."""
    from utils.plots import Annotator, colors

    names = " ".join(entry.detection.name for entry in detections)
    annotator = Annotator(image_rgb.copy(), line_width=style.line_thickness, example=names or "abc")
    for entry in reversed(detections):
        found = entry.detection
        text = found.name if style.hide_conf else f"{found.name} {found.confidence:.2f}"
        annotator.box_label(found.xyxy.tolist(), "" if style.hide_labels else text, color=colors(found.class_index))
    return np.asarray(annotator.result())
