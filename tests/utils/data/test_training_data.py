"""The data set: items, their augmentation, rectangles, caches."""

import cv2
import numpy as np
import pytest
import torch
from tiny_data import COLORS

from utils.data.training_data import LoadImagesAndLabels
from utils.training.hyperparameters import DEFAULT, load_hyp


def hyp(**changes):
    return load_hyp(DEFAULT) | changes


def box_of_color(im, color, tolerance=60):
    """Return x1, y1, x2, y2 of the pixels of a colour."""
    ys, xs = np.nonzero((np.abs(im.astype(int) - color) < tolerance).all(2))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_an_item_without_augmentation_is_the_letterboxed_image(squares):
    dataset = LoadImagesAndLabels(squares / "images", img_size=64)
    im, targets, path, (shape, (ratio, pad)) = dataset[0]
    assert (im.shape, im.dtype) == ((3, 64, 64), torch.uint8)
    assert path.endswith("0.jpg")
    assert (shape, ratio, pad) == ((48, 64), (1.0, 1.0), (0.0, 8.0))
    left, top, right, bottom = box_of_color(im.numpy()[::-1].transpose(1, 2, 0), COLORS[2])
    assert (targets[2, 2:4] * 64).tolist() == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=1)


def test_augmented_boxes_stay_on_their_squares(squares):
    plain = hyp(hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, mosaic=0.0, scale=0.2, degrees=5.0)
    dataset = LoadImagesAndLabels(squares / "images", img_size=64, augment=True, hyp=plain)
    for epoch in range(4):
        im, targets, *_ = dataset[(0, epoch)]
        picture = im.numpy()[::-1].transpose(1, 2, 0)
        for _, category, x, y, w, h in (targets * torch.tensor([1, 1, 64, 64, 64, 64])).tolist():
            if min(w, h) > 10:
                assert picture[int(y), int(x)].astype(int) == pytest.approx(COLORS[int(category)], abs=100)


def test_an_item_depends_on_seed_epoch_and_index_alone(squares):
    first, second = (LoadImagesAndLabels(squares / "images", 64, augment=True, hyp=hyp()) for _ in range(2))
    second[(3, 0)]
    assert torch.equal(first[(1, 5)][0], second[(1, 5)][0])
    assert not torch.equal(first[(1, 5)][0], first[(1, 6)][0])


def test_rectangles_are_as_small_as_the_batch_allows(squares):
    cv2.imwrite(str(squares / "images/tall.jpg"), np.zeros((90, 30, 3), np.uint8))
    dataset = LoadImagesAndLabels(squares / "images", img_size=64, batch_size=6, rect=True, stride=32)
    assert dataset.batch_shapes.tolist() == [[64, 64], [64, 32]]
    assert dataset[6][0].shape == (3, 64, 32)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_changes_nothing(squares, cache):
    plain = LoadImagesAndLabels(squares / "images", 32)
    cached = LoadImagesAndLabels(squares / "images", 32, cache_images=cache)
    assert torch.equal(plain[2][0], cached[2][0])
    assert (squares / "images/2.npy").exists() == (cache == "disk")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:200], lambda data: data[:20], lambda data: b"", lambda data: b"x" * 300]
)
def test_a_damaged_array_of_the_cache_is_made_anew(squares, damage):
    plain = LoadImagesAndLabels(squares / "images", 32)
    LoadImagesAndLabels(squares / "images", 32, cache_images="disk")
    array = squares / "images/2.npy"
    whole = array.read_bytes()
    array.write_bytes(damage(whole))
    cached = LoadImagesAndLabels(squares / "images", 32, cache_images="disk")
    assert array.read_bytes() == whole
    assert torch.equal(plain[2][0], cached[2][0])
    array.write_bytes(damage(whole))
    assert torch.equal(plain[2][0], cached[2][0])
    assert not list(squares.rglob("*.part"))


def test_single_cls_makes_one_class_of_all(squares):
    dataset = LoadImagesAndLabels(squares / "images", 64, single_cls=True)
    assert {row[0] for rows in dataset.labels for row in rows.tolist()} == {0}
