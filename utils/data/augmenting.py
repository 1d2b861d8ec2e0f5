"""Training samples: an image with its objects, and the changes that augmentation makes to both.

First those that need one sample alone (letterbox, flips, colours), then the random warp, then samples made of several.
Each returns a new sample, with the boxes and outlines where their objects are now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from utils.augmentations import letterbox
from utils.base.boxes import xywhn2xyxy

# What shows where there is no image.
GREY = 114
# An outline is resampled so that its box stays right when straight edges bend in perspective.
OUTLINE_POINTS = 1000
# What is left of an object must be this wide and high (pixels), no more than this much longer than wide, and keep
# this share of its area: less where an outline says exactly how large it was.
SMALLEST_SIDE, LARGEST_RATIO = 2, 100
AREA_OF_BOX, AREA_OF_OUTLINE = 0.1, 0.01
# A copied object may hide at most this share of any other one.
MOST_HIDDEN = 0.3
# Blends are close to half and half: the shape of the beta distribution that their weights are drawn from.
BLEND_SHAPE = 32.0


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


def warped(
    sample: Sample, hyp: Mapping[str, float], rng: np.random.Generator, *, size: tuple[int, int] | None = None
) -> Sample:
    """Return the sample after a random projection about its centre, in a frame of `size` (w, h), by default its own.

    `hyp` has degrees (rotation to either side), translate (fraction of the frame), scale (fraction), shear (degrees) and
    perspective (fraction per pixel). Objects that are hardly left are dropped.
    """
    size = size or sample.size
    projection, scale = _draw_projection(sample.size, size, hyp, rng)
    im = _warp_image(sample.im, projection, size)
    if not len(sample.labels):
        return Sample(im, sample.labels)
    outlines = tuple(_resampled(outline) for outline in sample.segments) or _corners(sample.labels)
    moved = [_project(points, projection) for points in outlines]
    boxes = np.array([_bounding_box(points, size) for points in moved], np.float32)
    kept = _still_there(sample.labels[:, 1:] * scale, boxes, AREA_OF_OUTLINE if sample.segments else AREA_OF_BOX)
    labels = np.concatenate((sample.labels[:, :1], boxes), axis=1)[kept]
    segments = tuple(moved[i].astype(np.float32) for i in np.flatnonzero(kept)) if sample.segments else ()
    return Sample(im, labels, segments)


def _draw_projection(
    old: tuple[int, int], new: tuple[int, int], hyp: Mapping[str, float], rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Return a random matrix (3, 3) from pixels of the old frame to those of the new one, and its scale."""
    centre, tilt, shear, shift = (np.eye(3) for _ in range(4))
    centre[:2, 2] = -old[0] / 2, -old[1] / 2
    tilt[2, :2] = rng.uniform(-1, 1, 2) * hyp["perspective"]
    scale = 1 + rng.uniform(-1, 1) * hyp["scale"]
    angle = math.radians(rng.uniform(-1, 1) * hyp["degrees"])
    turn = np.diag([scale, scale, 1.0]) @ _rotation(angle)
    shear[0, 1], shear[1, 0] = np.tan(np.radians(rng.uniform(-1, 1, 2) * hyp["shear"]))
    shift[:2, 2] = (0.5 + rng.uniform(-1, 1, 2) * hyp["translate"]) * new
    return shift @ shear @ turn @ tilt @ centre, scale


def _rotation(angle: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])


def _warp_image(im: np.ndarray, projection: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == (im.shape[1], im.shape[0]) and np.allclose(projection, np.eye(3)):
        return im
    if np.allclose(projection[2], (0, 0, 1)):
        return cv2.warpAffine(im, projection[:2], dsize=size, borderValue=(GREY,) * 3)
    return cv2.warpPerspective(im, projection, dsize=size, borderValue=(GREY,) * 3)


def _corners(labels: np.ndarray) -> np.ndarray:
    """Return the corners (n, 4, 2) of boxes (n, 5)."""
    left, top, right, bottom = labels[:, 1:].T
    return np.stack([(left, top), (right, top), (right, bottom), (left, bottom)]).transpose(2, 0, 1)


def _resampled(outline: np.ndarray) -> np.ndarray:
    """Return a closed outline (k, 2) as many evenly spread points."""
    closed = np.concatenate((outline, outline[:1]))
    wanted = np.linspace(0, len(closed) - 1, OUTLINE_POINTS)
    return np.stack([np.interp(wanted, np.arange(len(closed)), axis) for axis in closed.T], axis=1)


def _project(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Move points (k, 2) by a matrix (3, 3)."""
    moved = np.concatenate((points, np.ones((len(points), 1))), axis=1) @ projection.T
    return moved[:, :2] / moved[:, 2:]


def _bounding_box(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return x1, y1, x2, y2 of what points span inside the frame."""
    inside = np.clip(points, 0, size)
    return np.concatenate((inside.min(0), inside.max(0)))


def _still_there(before: np.ndarray, after: np.ndarray, least_share: float) -> np.ndarray:
    """Return (n,) whether enough of the boxes (n, 4) `before` is left `after`."""
    old_w, old_h = (before[:, 2:] - before[:, :2]).T
    w, h = (after[:, 2:] - after[:, :2]).T
    tiny = 1e-16
    ratio = np.maximum(w / (h + tiny), h / (w + tiny))
    share = w * h / (old_w * old_h + tiny)
    return (np.minimum(w, h) > SMALLEST_SIDE) & (share > least_share) & (ratio < LARGEST_RATIO)


def mosaic(samples: Sequence[Sample], side: int, rng: np.random.Generator) -> Sample:
    """Return four samples around a random point of a canvas of twice `side`, each cut off at the canvas's edge.

    What lies outside is cut off the labels too; the warp that follows drops those of which nothing is left.
    """
    canvas = np.full((2 * side, 2 * side, 3), GREY, np.uint8)
    x, y = (int(value) for value in rng.uniform(side / 2, 3 * side / 2, 2))
    labels, segments = [], []
    for sample, (is_right, is_low) in zip(samples, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        width, height = sample.size
        left, top = x if is_right else x - width, y if is_low else y - height
        _paste(canvas, sample.im, left, top)
        labels.append(sample.labels + np.array([0, left, top, left, top], np.float32))
        segments += [outline + np.array([left, top], np.float32) for outline in sample.segments]
    joined = np.concatenate(labels)
    joined[:, 1:] = joined[:, 1:].clip(0, 2 * side)
    # Outlines count only where every object has one.
    outlines = tuple(outline.clip(0, 2 * side) for outline in segments) if len(segments) == len(joined) else ()
    return Sample(canvas, joined, outlines)


def _paste(canvas: np.ndarray, im: np.ndarray, left: int, top: int) -> None:
    """Write what fits of `im` onto the canvas, with its corner at (left, top), which may lie outside."""
    height, width = canvas.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + im.shape[1], width), min(top + im.shape[0], height)
    canvas[y1:y2, x1:x2] = im[y1 - top : y2 - top, x1 - left : x2 - left]


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Return a blend of two samples of one size, with the objects of both, https://arxiv.org/abs/1710.09412."""
    share = rng.beta(BLEND_SHAPE, BLEND_SHAPE)
    im = (first.im * share + second.im * (1 - share)).astype(np.uint8)
    return Sample(im, np.concatenate((first.labels, second.labels)))


def copy_paste(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Copy objects, mirrored with the whole image, where they hide little of others, https://arxiv.org/abs/2012.07177.

    `probability` is the share of the objects to try. Samples without outlines come back as they are.
    """
    count = round(probability * len(sample.segments))
    if not count:
        return sample
    mirrored = flipped_left_right(sample)
    im, labels, segments = sample.im.copy(), sample.labels, sample.segments
    for i in rng.permutation(len(sample.segments))[:count]:
        if (_hidden_share(mirrored.labels[i, 1:], labels[:, 1:]) >= MOST_HIDDEN).any():
            continue
        mask = np.zeros(im.shape[:2], np.uint8)
        cv2.drawContours(mask, [mirrored.segments[i].astype(np.int32)], -1, 1, cv2.FILLED)
        im[mask > 0] = mirrored.im[mask > 0]
        labels = np.concatenate((labels, mirrored.labels[i : i + 1]))
        segments = (*segments, mirrored.segments[i])
    return Sample(im, labels, segments)


def _hidden_share(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (n,) the share of each other box (n, 4) that `box` (4,) covers."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return sides.clip(0).prod(1) / (areas + 1e-16)
