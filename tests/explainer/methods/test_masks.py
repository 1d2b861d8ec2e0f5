"""Random masks: how much they keep, and how fine they are around boxes."""

from itertools import islice

import numpy as np
import pytest

from explainer.methods.masks import OUTER, focused_masks, grid_masks, random_grid, smooth_step, window_around

SIZE = (48, 80)


def several(masks, count=300):
    return np.array(list(islice(masks, count)))


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_masks_keep_the_share_that_is_asked_for(keep):
    masks = several(grid_masks(SIZE, 8, keep, seed=0))
    assert masks.shape == (300, 48, 80)
    assert masks.dtype == np.float32
    assert masks.min() == 0
    assert masks.max() == 1
    np.testing.assert_allclose(masks.mean(axis=0), keep, atol=0.12)
    assert masks.mean() == pytest.approx(keep, abs=0.02)


def test_the_seed_decides_about_masks():
    box = np.float32([[10, 10, 20, 20]])
    for make in (lambda seed: grid_masks(SIZE, 8, 0.5, seed), lambda seed: focused_masks(SIZE, box, 4, 0.5, seed)):
        first, again, other = (several(make(seed), 3) for seed in (0, 0, 1))
        assert (first == again).all()
        assert (first != other).any()


def test_a_grid_that_keeps_all_of_its_knots_keeps_the_image():
    assert (random_grid(np.random.default_rng(0), SIZE, (10.0, 10.0), keep=1) == 1).all()
    assert (random_grid(np.random.default_rng(0), SIZE, (10.0, 10.0), keep=0) == 0).all()


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
def test_focused_masks_keep_the_share_that_is_asked_for_inside_and_around_boxes(keep):
    masks = several(focused_masks(SIZE, np.float32([[10, 10, 40, 40], [60, 5, 66, 11]]), 4, keep, seed=0))
    assert masks.dtype == np.float32
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert masks.mean() == pytest.approx(keep, abs=0.03)


def test_focused_masks_are_fine_around_a_small_box():
    masks = several(focused_masks(SIZE, np.float32([[60, 5, 68, 13]]), 4, 0.5, seed=0))
    inside, outside = np.abs(np.diff(masks[:, 6:12, 61:67], axis=2)), np.abs(np.diff(masks[:, 30:36, 10:16], axis=2))
    assert inside.mean() > 2 * outside.mean()


def test_a_window_is_all_there_in_the_middle_of_a_box_and_gone_beyond_it():
    window = window_around(np.float32([20, 10, 40, 30]), SIZE)
    assert window.box == (20, 20)
    assert (window.rows, window.columns) == (slice(5, 35), slice(15, 45))
    assert window.rows.stop - window.rows.start == OUTER * 20
    assert window.weight[15, 15] == 1
    assert window.weight[0, 0] == 0
    assert window.weight.dtype == np.float32


@pytest.mark.parametrize("box", [(200, 10, 220, 30), (-90, -90, -70, -70)])
def test_the_window_of_a_box_outside_of_a_mask_is_empty(box):
    assert window_around(np.float32(box), SIZE).weight.size == 0
    assert several(focused_masks(SIZE, np.float32([box]), 4, 0.5, seed=0), 3).shape == (3, *SIZE)


def test_a_smooth_step_leaves_both_ends_slowly():
    assert smooth_step(np.array([-1, 0, 0.5, 1, 2])).tolist() == [0, 0, 0.5, 1, 1]
    assert smooth_step(np.array([0.1]))[0] < 0.1
