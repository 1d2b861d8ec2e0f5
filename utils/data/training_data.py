"""A data set for training and validation: images with labels, augmented as the hyperparameters say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from utils.base.boxes import xyxy2xywhn
from utils.base.logger import LOGGER
from utils.data.augmenting import (
    Sample,
    copy_paste,
    flipped_left_right,
    flipped_up_down,
    letterboxed,
    mixup,
    mosaic,
    place_labels,
    warped,
    with_changed_colors,
)
from utils.data.image_store import ImageStore
from utils.data.scan import find_images, lists_in, scan

# (height, width) in the file, and ((ratio_h, ratio_w), (pad_x, pad_y)) of the way into the batch.
Shapes = tuple[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]]
Item = tuple[Tensor, Tensor, str, Shapes | None]


class LoadImagesAndLabels(Dataset):
    """Images (3, h, w) uint8 RGB with targets (n, 6): 0, class, x, y, w, h relative to the image.

    An item is asked for by its index, or by (index, epoch): what augmentation does to it depends on these two and on the
    seed alone, so that neither the number of workers nor a restart changes what a model sees.

    Attributes:
        im_files, label_files: paths; labels: (n, 5) float32 each, relative; segments: outlines each; n: their number.
        shapes: (n, 2) width and height of the images.
        batch: (n,) the number of the batch of each image; batch_shapes: with `rect` the (h, w) of each batch.
        img_size, stride, augment, mosaic, rect, hyp: as given; mosaic where augmenting and not rect.
    """

    def __init__(
        self,
        path: str | Path | Iterable[str | Path],
        img_size: int = 640,
        batch_size: int = 16,
        augment: bool = False,
        hyp: Mapping[str, float] | None = None,
        rect: bool = False,
        *,
        cache_images: str | None = None,
        single_cls: bool = False,
        stride: int = 32,
        pad: float = 0.0,
        prefix: str = "",
        seed: int = 0,
    ) -> None:
        """Find and check all images and labels.

        Args:
            path: of the images, see `utils.data.scan.find_images`.
            img_size: pixels of the longer side.
            batch_size: how many images share a shape with `rect`.
            augment: whether to change images at random, as `hyp` says.
            hyp: the hyperparameters.
            rect: sort images by proportions, and pad each batch only as far as its own need.
            cache_images: "ram" or "disk", see `utils.data.image_store.ImageStore.cache`.
            single_cls: give every object the class 0.
            stride: pixels that sides of batches with `rect` are multiples of.
            pad: how many strides more than needed those sides have.
            prefix: of the log lines.
            seed: of the augmentation.

        Raises:
            FileNotFoundError: without images; ValueError: when none of them can be used.
        """
        self.img_size, self.stride, self.augment, self.rect = img_size, stride, augment, rect
        self.hyp, self.seed = dict(hyp or {}), seed
        self.mosaic = augment and not rect
        entries = scan(find_images(path), prefix, lists_in(path))
        self.im_files = [entry.image for entry in entries]
        self.label_files = [entry.label_file for entry in entries]
        self.shapes = np.array([entry.size for entry in entries])
        self.labels = [entry.labels.rows for entry in entries]
        self.segments = [entry.labels.segments for entry in entries]
        self.n = len(entries)
        self.batch = np.arange(self.n) // batch_size
        self.batch_shapes = self._sort_into_rectangles(pad) if rect else None
        if single_cls:
            self.labels = [rows * np.array([0, 1, 1, 1, 1], np.float32) for rows in self.labels]
        self._check_copy_paste(prefix)
        self._images = ImageStore(self.im_files, img_size, always_linear=augment)
        if cache_images:
            self._images.cache(cache_images, prefix)

    def _check_copy_paste(self, prefix: str) -> None:
        """Say so where objects are to be copied but no label has an outline."""
        if self.augment and self.hyp.get("copy_paste", 0) > 0 and not any(self.segments):
            LOGGER.warning(f"{prefix}WARNING: copy_paste does nothing here: it needs labels with outlines")

    def _sort_into_rectangles(self, pad: float) -> np.ndarray:
        """Sort everything from wide to high images and return the (h, w) of each batch, (batches, 2)."""
        proportion = self.shapes[:, 1] / self.shapes[:, 0]
        order = proportion.argsort()
        for name in ("im_files", "label_files", "labels", "segments"):
            values = getattr(self, name)
            setattr(self, name, [values[i] for i in order])
        self.shapes, proportion = self.shapes[order], proportion[order]
        sides = [_smallest_frame(proportion[self.batch == b]) for b in range(self.batch[-1] + 1)]
        cells = np.ceil(np.array(sides) * self.img_size / self.stride + pad)
        return cells.astype(int) * self.stride

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        rng = np.random.default_rng((self.seed, epoch, index))
        shapes = None
        if self.mosaic and rng.random() < self.hyp["mosaic"]:
            sample = self._mosaic(index, rng)
            if rng.random() < self.hyp["mixup"]:
                sample = mixup(sample, self._mosaic(int(rng.integers(self.n)), rng), rng)
        else:
            sample, shapes = self._framed(index)
            sample = warped(sample, self.hyp, rng) if self.augment else sample
        sample = self._recolored_and_flipped(sample, rng) if self.augment else sample
        return _to_tensor(sample.im), self._targets(sample), self.im_files[index], shapes

    def load(self, index: int) -> tuple[Sample, tuple[int, int]]:
        """Return image `index` at the size for training, with its labels, and its (height, width) in the file."""
        im, original, (height, width) = self._images(index)
        placed = place_labels(self.labels[index], self.segments[index], (width, height), (0, 0))
        return Sample(im, *placed), original

    def _framed(self, index: int) -> tuple[Sample, Shapes]:
        """Return one image in its frame, and how it got there."""
        sample, (height, width) = self.load(index)
        shape = tuple(self.batch_shapes[self.batch[index]].tolist()) if self.rect else (self.img_size, self.img_size)
        loaded_w, loaded_h = sample.size
        framed, ratio, pad = letterboxed(sample, shape, scaleup=self.augment)
        scale = (loaded_h / height * ratio[1], loaded_w / width * ratio[0])
        return framed, ((height, width), (scale, pad))

    def _mosaic(self, index: int, rng: np.random.Generator) -> Sample:
        """Return image `index` and three random ones in a mosaic, warped into one image."""
        indices = rng.permutation([index, *rng.integers(self.n, size=3)])
        joined = mosaic([self.load(i)[0] for i in indices], self.img_size, rng)
        joined = copy_paste(joined, self.hyp["copy_paste"], rng)
        return warped(joined, self.hyp, rng, size=(self.img_size, self.img_size))

    def _recolored_and_flipped(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = with_changed_colors(sample, tuple(self.hyp[f"hsv_{channel}"] for channel in "hsv"), rng)
        if rng.random() < self.hyp["flipud"]:
            sample = flipped_up_down(sample)
        if rng.random() < self.hyp["fliplr"]:
            sample = flipped_left_right(sample)
        return sample

    @staticmethod
    def _targets(sample: Sample) -> Tensor:
        width, height = sample.size
        targets = torch.zeros(len(sample.labels), 6)
        if len(sample.labels):
            targets[:, 1] = torch.from_numpy(sample.labels[:, 0])
            boxes = xyxy2xywhn(sample.labels[:, 1:], w=width, h=height, clip=True, eps=1e-3)
            targets[:, 2:] = torch.from_numpy(boxes)
        return targets

    @staticmethod
    def collate_fn(batch: list[Item]) -> tuple[Tensor, Tensor, tuple[str, ...], tuple[Shapes | None, ...]]:
        """Return images (B, 3, h, w), targets (n, 6) with the number of their image, paths, shapes."""
        images, targets, paths, shapes = zip(*batch, strict=True)
        for i, rows in enumerate(targets):
            rows[:, 0] = i
        return torch.stack(images), torch.cat(targets), paths, shapes

    @staticmethod
    def collate_fn4(batch: list[Item]) -> tuple[Tensor, Tensor, tuple[str, ...], tuple[Shapes | None, ...]]:
        """Return a quarter as many images of twice the size: four in a square, or at random one of them enlarged."""
        groups = [batch[i : i + 4] for i in range(0, len(batch), 4)]
        joins = [len(group) == 4 and bool(torch.rand(()) < 0.5) for group in groups]
        quads = [_in_a_square(g) if join else _enlarged(g[0]) for g, join in zip(groups, joins, strict=True)]
        return LoadImagesAndLabels.collate_fn(quads)


def _smallest_frame(proportions: np.ndarray) -> tuple[float, float]:
    """Return (h, w), the longer one 1, of the least frame that holds images of these proportions (height / width)."""
    if proportions.max() < 1:
        return float(proportions.max()), 1.0
    if proportions.min() > 1:
        return 1.0, float(1 / proportions.min())
    return 1.0, 1.0


def _to_tensor(im_bgr: np.ndarray) -> Tensor:
    """Return (3, h, w) RGB of a picture (h, w, 3) BGR."""
    return torch.from_numpy(np.ascontiguousarray(cv2.cvtColor(im_bgr, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)))


def _enlarged(item: Item) -> Item:
    im, targets, path, shapes = item
    twice = F.interpolate(im[None].float(), scale_factor=2, mode="bilinear", align_corners=False)[0]
    return twice.to(im.dtype), targets, path, shapes


def _in_a_square(items: list[Item]) -> Item:
    images, targets, paths, shapes = zip(*items, strict=True)
    rows = [torch.cat(images[i : i + 2], dim=2) for i in (0, 2)]
    shifted = []
    for i, rows_of_one in enumerate(targets):
        moved = rows_of_one.clone()
        moved[:, 2:] /= 2
        moved[:, 2:4] += torch.tensor([i % 2, i // 2]) / 2
        shifted.append(moved)
    return torch.cat(rows, dim=1), torch.cat(shifted), paths[0], shapes[0]
