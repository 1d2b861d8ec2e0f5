"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest
import torch

# Tiny models are quicker on one thread than on several that wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the official weights, photographs, COCO128 and reference figures; skips where it is not at hand."""
    root = os.environ.get("YOLOV5_ASSETS")
    if not root:
        pytest.skip("needs the official weights and photographs: set YOLOV5_ASSETS to their folder")
    return Path(root)
