"""Training samples made of several: mosaics, blends, and objects copied within an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.samples import Sample, flipped_left_right

GREY = 114
# A copied object may hide at most this share of any other one.
MOST_HIDDEN = 0.3
# Blends are close to half and half: the shape of the beta distribution that their weights are drawn from.
BLEND_SHAPE = 32.0


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
