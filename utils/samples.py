"""A training sample and the changes that need no other one: letterbox, flips, colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.augmentations import letterbox
from utils.boxes import xywhn2xyxy


@dataclass(frozen=True)
class Sample:
    """An image with its objects.

    Attributes:
        im: (H, W, 3) uint8 BGR.
        labels: (n, 5) float32 class, x1, y1, x2, y2 in pixels.
        segments: n outlines (k, 2) in pixels, or nothing where there are boxes alone.
    """

    im: np.ndarray
    labels: np.ndarray
    segments: tuple[np.ndarray, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.im.shape[1], self.im.shape[0]


def place_labels(
    rows: np.ndarray, segments: tuple[np.ndarray, ...], size: tuple[float, float], corner: tuple[float, float]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Bring relative labels (n, 5) and outlines to pixels of an image of `size` (w, h) that begins at `corner` (x, y)."""
    placed = rows.astype(np.float32)
    if len(rows):
        placed[:, 1:] = xywhn2xyxy(rows[:, 1:], *size, *corner)
    return placed, tuple((outline * size + corner).astype(np.float32) for outline in segments)


def letterboxed(
    sample: Sample, shape: int | tuple[int, int], *, scaleup: bool
) -> tuple[Sample, tuple[float, float], tuple[float, float]]:
    """Return the sample in a grey frame of `shape` (h, w), the scale (w, h) that it got and its padding (x, y)."""
    im, ratio, pad = letterbox(sample.im, shape, auto=False, scaleup=scaleup)
    labels = sample.labels.copy()
    labels[:, 1:] = labels[:, 1:] * (ratio * 2) + pad * 2
    segments = tuple((outline * ratio + pad).astype(np.float32) for outline in sample.segments)
    return Sample(im, labels, segments), ratio, pad


def flipped_left_right(sample: Sample) -> Sample:
    """Return the mirror image."""
    width = sample.size[0]
    labels = sample.labels.copy()
    labels[:, [1, 3]] = width - labels[:, [3, 1]]
    segments = tuple(np.stack((width - outline[:, 0], outline[:, 1]), axis=1) for outline in sample.segments)
    return Sample(np.ascontiguousarray(sample.im[:, ::-1]), labels, segments)


def flipped_up_down(sample: Sample) -> Sample:
    """Return the image upside down, mirrored at the horizontal."""
    height = sample.size[1]
    labels = sample.labels.copy()
    labels[:, [2, 4]] = height - labels[:, [4, 2]]
    segments = tuple(np.stack((outline[:, 0], height - outline[:, 1]), axis=1) for outline in sample.segments)
    return Sample(np.ascontiguousarray(sample.im[::-1]), labels, segments)


def with_changed_colors(sample: Sample, gains: tuple[float, float, float], rng: np.random.Generator) -> Sample:
    """Multiply hue, saturation and value by random factors, each in 1 - gain .. 1 + gain."""
    if not any(gains):
        return sample
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * gains
    levels = np.arange(256)
    tables = (levels * hue % 180, np.clip(levels * saturation, 0, 255), np.clip(levels * value, 0, 255))
    channels = cv2.split(cv2.cvtColor(sample.im, cv2.COLOR_BGR2HSV))
    changed = [cv2.LUT(c, table.astype(np.uint8)) for c, table in zip(channels, tables, strict=True)]
    return replace(sample, im=cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2BGR))
