"""Anchor boxes: whether they fit the head that uses them and the objects it is to find, and new ones that do."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from utils.base.logger import LOGGER, colorstr

if TYPE_CHECKING:
    from utils.data.training_data import LoadImagesAndLabels

# Anchors stay as they are where this share of the objects can be learnt with them.
GOOD_RECALL = 0.98
# Of a level; YOLOv5 has 3.
MOST_ANCHORS = 100
# Objects narrower or lower than this, in pixels, do not shape anchors.
SMALLEST_SIDE = 2.0
LLOYD_ROUNDS = 30
# Zoom of the training images that the check takes into account, to either side.
ZOOM = 0.1


def checked_anchors(source: object, anchors: Any) -> int | list[list[float]]:
    """Return anchors as a file gives them: their number for each level, or the sides of all.

    Sides are pixels: for each level a list of as many pairs, width and height one after the other.

    Raises:
        ValueError: naming the file, for anything else.
    """
    if _is_number(anchors) and 1 <= anchors <= MOST_ANCHORS:
        return round(anchors)
    levels = list(anchors) if isinstance(anchors, (list, tuple)) else []
    if levels and all(_are_pairs(level) and len(level) == len(levels[0]) for level in levels):
        return levels
    raise ValueError(
        f"{source}: anchors is {str(anchors)[:80]}; give their number for each level, 1 to {MOST_ANCHORS}, or for each level "
        "a list of the widths and heights of as many, in pixels"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _are_pairs(level: Any) -> bool:
    """Whether the anchors of a level are pairs of positive numbers, 1 to `MOST_ANCHORS` of them."""
    is_list = isinstance(level, (list, tuple)) and len(level) in range(2, 2 * MOST_ANCHORS + 1, 2)
    return is_list and all(_is_number(side) and side > 0 for side in level)


def check_anchor_order(m: nn.Module) -> None:
    """Turn the anchors of head `m` round where they run from large to small while its strides grow.

    `m` has `anchors` (levels, anchors, 2) and `stride` (levels,). Anchors without values (on the meta device) stay.
    """
    if m.anchors.is_meta:
        return
    areas = m.anchors.prod(-1).mean(-1)
    growth = (areas[-1] - areas[0]).item()
    stride_growth = (m.stride[-1] - m.stride[0]).item()
    if growth * stride_growth < 0:
        LOGGER.info("Anchors run against the strides of the head: turning their order round")
        m.anchors[:] = m.anchors.flip(0)


def check_anchors(
    dataset: LoadImagesAndLabels, model: nn.Module, thr: float = 4.0, imgsz: int = 640, seed: int = 0
) -> None:
    """Replace the model's anchors, in place, where they fit the objects of a data set badly and better ones are found.

    An anchor fits an object if no side differs by `thr` times or more. `imgsz` is the longer side of training images.
    """
    prefix = colorstr("AutoAnchor: ")
    head = model.model[-1]
    sizes = _object_sizes(dataset, imgsz)
    learnable = (sizes >= SMALLEST_SIDE).any(1)
    if not learnable.any():
        if len(sizes):
            LOGGER.warning(
                f"{prefix}WARNING: all {len(sizes)} objects are smaller than {SMALLEST_SIDE:g} pixels at --imgsz {imgsz}, "
                "so they shape no anchors; keeping those of the model. Check the labels, or train at a larger size"
            )
        return
    rng = np.random.default_rng(seed)
    zoomed = sizes * rng.uniform(1 - ZOOM, 1 + ZOOM, size=(len(sizes), 1))
    pixels = (head.anchors * head.stride.to(head.anchors)[:, None, None]).reshape(-1, 2).cpu().numpy()
    recall, fitting = _anchor_fit(pixels, zoomed, thr)
    LOGGER.info(f"{prefix}{fitting:.2f} anchors/target, {recall:.3f} Best Possible Recall (BPR)")
    if recall > GOOD_RECALL:
        return
    LOGGER.info(f"{prefix}the anchors fit badly, looking for better ones...")
    found = kmean_anchors(dataset, n=len(pixels), img_size=imgsz, thr=thr, seed=seed)
    new_recall, _ = _anchor_fit(found, zoomed, thr)
    if new_recall <= recall:
        LOGGER.info(f"{prefix}no better ones found (BPR {new_recall:.3f}), keeping those of the model")
        return
    head.anchors[:] = torch.from_numpy(found).to(head.anchors).view_as(head.anchors)
    check_anchor_order(head)
    head.anchors /= head.stride.to(head.anchors)[:, None, None]
    LOGGER.info(f"{prefix}new anchors, BPR {new_recall:.3f}: {found.round().astype(int).tolist()}")


def kmean_anchors(
    dataset: LoadImagesAndLabels, n: int = 9, img_size: int = 640, thr: float = 4.0, gen: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return `n` anchors (n, 2) in pixels, small to large, for the objects of a data set.

    They are the k-means of widths and heights, then changed at random `gen` times, where that lets objects fit better.
    ValueError where all objects are too small for that.
    """
    sizes = _object_sizes(dataset, img_size)
    sizes = sizes[(sizes >= SMALLEST_SIDE).any(1)]
    if not len(sizes):
        raise ValueError(
            f"no object has {SMALLEST_SIDE:g} pixels at image size {img_size}, so there are no anchors for them"
        )
    rng = np.random.default_rng(seed)
    anchors = _k_means(sizes, n, rng)
    best = _mean_fit(anchors, sizes, thr)
    for _ in range(gen):
        factors = 1 + rng.normal(0, 0.1, anchors.shape) * (rng.random(anchors.shape) < 0.9) * rng.random()
        changed = (anchors * factors.clip(0.3, 3.0)).clip(min=SMALLEST_SIDE)
        fit = _mean_fit(changed, sizes, thr)
        if fit > best:
            best, anchors = fit, changed
    return anchors[anchors.prod(1).argsort()].astype(np.float32)


def _object_sizes(dataset: LoadImagesAndLabels, imgsz: int) -> np.ndarray:
    """Return width and height (n, 2) in pixels of all objects, in images whose longer side is `imgsz`."""
    scaled = imgsz * dataset.shapes / dataset.shapes.max(1, keepdims=True)
    return np.concatenate([rows[:, 3:5] * size for rows, size in zip(dataset.labels, scaled, strict=True)])


def _ratios(anchors: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return (n, k) in 0..1: by how much the worse side of each object differs from each anchor's, 1 for not at all."""
    # Anchors that are yet to be fitted may be 0.
    ratio = sizes[:, None] / np.maximum(anchors[None], 1e-9)
    return np.minimum(ratio, 1 / np.maximum(ratio, 1e-9)).min(2)


def _anchor_fit(anchors: np.ndarray, sizes: np.ndarray, thr: float) -> tuple[float, float]:
    """Return the share of the objects that fit an anchor, and how many anchors fit an object in the mean."""
    fits = _ratios(anchors, sizes) > 1 / thr
    return float(fits.any(1).mean()), float(fits.sum(1).mean())


def _mean_fit(anchors: np.ndarray, sizes: np.ndarray, thr: float) -> float:
    """Return how well objects fit their best anchors in the mean; those that fit none count as nothing."""
    best = _ratios(anchors, sizes).max(1)
    return float((best * (best > 1 / thr)).mean())


def _k_means(sizes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the centres (n, 2) of as many groups of sizes; where there are too few objects, some at random."""
    if len(np.unique(sizes, axis=0)) < n:
        return rng.uniform(SMALLEST_SIDE, sizes.max() + SMALLEST_SIDE, (n, 2))
    # Quantiles of the area as a start: every group has members.
    spread = sizes.std(0) + 1e-9
    points = sizes[sizes.prod(1).argsort()] / spread
    centres = points[((np.arange(n) + 0.5) / n * len(points)).astype(int)]
    for _ in range(LLOYD_ROUNDS):
        group = ((points[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        members = [points[group == i] for i in range(n)]
        centres = np.stack([m.mean(0) if len(m) else c for m, c in zip(members, centres, strict=True)])
    return centres * spread
