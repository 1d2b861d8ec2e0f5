"""Models small enough to build in every test."""

from pathlib import Path

import torch
from tiny_detectors import ANCHORS, tiny, tiny_detector, tiny_spec

from models.yolo import SegmentationModel

__all__ = ["ANCHORS", "save", "tiny_detector", "tiny_segmenter", "tiny_spec"]


def tiny_segmenter(seed: int = 0) -> SegmentationModel:
    """Return a tiny detector with masks, as `tiny_detector`."""
    return tiny(SegmentationModel, seed, tiny_spec("Segment"))


def save(content: dict, path: Path) -> Path:
    """Write a checkpoint and return its path."""
    torch.save(content, path)
    return path
