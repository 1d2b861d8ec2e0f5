"""The maps of an explanation as arrays to keep: in cells of their layers, at half precision, with boxes and names."""

from collections.abc import Sequence

import numpy as np


def raw_arrays(heatmap: np.ndarray, entries: Sequence) -> dict[str, np.ndarray]:
    """Return the arrays by name, given the whole heatmap (H, W) and the explanations of the detections.

    heatmap     (H, W) float16, at the original size
    xyxy        (D, 4) float32 in image pixels; confidence (D,) float32; names (D,)
    <d>:<layer> (h, w) float16, the map of detection d at a layer over the letterboxed input, divided by its largest
                magnitude, which is <d>:<layer>:scale
    """
    found = [entry.detection for entry in entries]
    arrays = {
        "heatmap": heatmap.astype(np.float16),
        "xyxy": np.float32([box.xyxy for box in found]).reshape(-1, 4),
        "confidence": np.float32([box.confidence for box in found]),
        "names": np.array([box.name for box in found], dtype=str),
    }
    for index, entry in enumerate(entries):
        for layer, cam in zip(entry.layers, entry.cams, strict=True):
            # Gradients are small numbers that half precision alone would round to zero.
            scale = np.abs(cam).max() or np.float32(1)
            arrays |= {
                f"{index}:{layer}": (cam / scale).astype(np.float16),
                f"{index}:{layer}:scale": np.float32(scale),
            }
    return arrays
