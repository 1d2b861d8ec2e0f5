"""Random turning, scaling, shearing, moving and tilting of a training sample."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from utils.samples import Sample

GREY = (114, 114, 114)
# An outline is resampled so that its box stays right when straight edges bend in perspective.
OUTLINE_POINTS = 1000
# What is left of an object must be this wide and high (pixels), no more than this much longer than wide, and keep
# this share of its area: less where an outline says exactly how large it was.
SMALLEST_SIDE, LARGEST_RATIO = 2, 100
AREA_OF_BOX, AREA_OF_OUTLINE = 0.1, 0.01


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
        return cv2.warpAffine(im, projection[:2], dsize=size, borderValue=GREY)
    return cv2.warpPerspective(im, projection, dsize=size, borderValue=GREY)


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
