"""Augmentation keeps boxes on their objects."""

import numpy as np
import pytest
from tiny_data import COLORS

from utils.data.augmenting import (
    Sample,
    copy_paste,
    flipped_left_right,
    flipped_up_down,
    mixup,
    mosaic,
    warped,
    with_changed_colors,
)

STILL = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "perspective": 0.0}


def one_square(category=0, box=(20, 10, 40, 30), size=(64, 48)):
    """Return a sample with one coloured square, with its outline."""
    left, top, right, bottom = box
    im = np.full((size[1], size[0], 3), 128, np.uint8)
    im[top:bottom, left:right] = COLORS[category]
    outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return Sample(im, np.array([[category, *box]], np.float32), (outline,))


def box_of_color(im, color, tolerance=60):
    """Return x1, y1, x2, y2 of the pixels of a colour."""
    ys, xs = np.nonzero((np.abs(im.astype(int) - color) < tolerance).all(2))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("seed", range(5))
def test_a_warp_moves_the_box_with_the_square(seed):
    changes = {"degrees": 20.0, "translate": 0.1, "scale": 0.3, "shear": 5.0, "perspective": 0.0005}
    sample = one_square(box=(90, 70, 130, 110), size=(200, 180))
    after = warped(sample, STILL | changes, np.random.default_rng(seed))
    assert after.labels[0, 1:] == pytest.approx(box_of_color(after.im, COLORS[0], 100), abs=3)


def test_a_warp_that_does_nothing_keeps_everything():
    sample = one_square()
    after = warped(sample, STILL, np.random.default_rng(0))
    assert np.array_equal(after.im, sample.im)
    assert after.labels == pytest.approx(sample.labels)


def test_a_warp_drops_objects_that_left_the_frame():
    sample = one_square(box=(0, 0, 10, 10))
    assert len(warped(sample, STILL, np.random.default_rng(0), size=(8, 8)).labels) == 0


def test_flips_move_the_box_with_the_square():
    sample = one_square(box=(5, 3, 15, 13))
    for flip in (flipped_left_right, flipped_up_down):
        after = flip(sample)
        assert after.labels[0, 1:].tolist() == box_of_color(after.im, COLORS[0])


def test_colors_change_but_not_without_gains():
    sample = one_square()
    rng = np.random.default_rng(0)
    assert with_changed_colors(sample, (0, 0, 0), rng) is sample
    assert not np.array_equal(with_changed_colors(sample, (0.1, 0.5, 0.5), rng).im, sample.im)


def test_a_mosaic_holds_four_images_with_their_boxes():
    samples = [one_square(0), one_square(1), one_square(2), one_square(0, size=(48, 64))]
    joined = mosaic(samples, 64, np.random.default_rng(1))
    assert joined.im.shape == (128, 128, 3)
    for category in (1, 2):
        (box,) = joined.labels[joined.labels[:, 0] == category, 1:]
        assert box.tolist() == box_of_color(joined.im, COLORS[category])


def test_mixup_keeps_the_objects_of_both():
    blend = mixup(one_square(0), one_square(1, box=(1, 1, 11, 11)), np.random.default_rng(0))
    assert blend.labels[:, 0].tolist() == [0, 1]
    assert 100 < blend.im[5, 5, 1] < 230


def test_copied_objects_have_labels():
    copied = copy_paste(one_square(box=(2, 2, 12, 12)), 1.0, np.random.default_rng(0))
    assert copied.labels[1].tolist() == [0, 52, 2, 62, 12]
    assert copied.im[5, 55].tolist() == list(COLORS[0])


def test_an_object_in_the_middle_is_not_copied_onto_itself():
    assert len(copy_paste(one_square(box=(22, 2, 42, 12)), 1.0, np.random.default_rng(0)).labels) == 1
