"""Save what a layer of the network sees as one picture and one array."""

from pathlib import Path

import numpy as np
from torch import Tensor

from utils.logger import LOGGER

COLUMNS = 8


def feature_visualization(
    x: Tensor, module_type: str, stage: int, n: int = 32, save_dir: str | Path = "runs/detect/exp"
) -> Path | None:
    """Save the first `n` channels of a feature map (B, C, H, W) as a grey picture, and the whole first item as .npy.

    Heads and maps of one pixel's height or width have nothing to show. Each channel is stretched to its own range.
    Returns the path `save_dir/stage{stage}_{type}_features.png`, or None where nothing was saved.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or min(x.shape[2:]) < 2:
        return None
    import cv2

    channels = x[0].detach().float().cpu().numpy()
    path = Path(save_dir) / f"stage{stage}_{module_type.rpartition('.')[2]}_features.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    LOGGER.info("Saving %s... (%d/%d)", path, min(n, len(channels)), len(channels))
    # encode and write apart: a failed write then raises instead of returning False
    path.write_bytes(cv2.imencode(".png", tile(channels[:n]))[1].tobytes())
    np.save(path.with_suffix(".npy"), channels)
    return path


def tile(channels: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Lay maps (n, H, W), each stretched to 0..255, side by side in rows of `columns`: (rows*H, columns*W) uint8."""
    low = channels.min((1, 2), keepdims=True)
    span = np.maximum(channels.max((1, 2), keepdims=True) - low, 1e-12)
    grey = ((channels - low) / span * 255).astype(np.uint8)
    blank = -len(grey) % columns
    grey = np.concatenate((grey, np.zeros((blank, *grey.shape[1:]), np.uint8)))
    rows = grey.reshape(-1, columns, *grey.shape[1:])
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * grey.shape[2])
