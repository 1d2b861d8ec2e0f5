"""Missing pixels follow their neighbours: the same values as those of a direct solution."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scenes import picture

from explainer.maps.imputation import filled_from_neighbours

HEIGHT, WIDTH = 45, 70
PICTURE = np.float32(picture(HEIGHT, WIDTH)) / 255
Y, X = np.mgrid[:HEIGHT, :WIDTH]
NOISE = np.random.default_rng(0).random((HEIGHT, WIDTH))


def directly(known):
    colours = torch.from_numpy(PICTURE.transpose(2, 0, 1).copy())
    filled = NoisyLinearImputer(noise=0)(colours, torch.from_numpy(np.float32(known)))
    return filled.numpy().transpose(1, 2, 0)


@pytest.mark.parametrize(
    "known",
    [
        NOISE > 0.5,
        NOISE > 0.97,
        np.hypot(Y - 20, X - 30) > 12,
        np.hypot(Y - 20, X - 30) < 12,
        (Y == 0) & (X == 0),
        X < 5,
        (X + Y) % 7 == 0,
        (Y != 22) | (X != 35),
    ],
    ids=["half", "few", "hole", "surroundings", "all-but-a-corner", "all-but-a-side", "stripes", "one"],
)
def test_the_values_are_those_of_the_library(known):
    found = filled_from_neighbours(PICTURE, known)
    assert found.dtype == np.float32
    assert (found[known] == PICTURE[known]).all()
    np.testing.assert_allclose(found, directly(known), atol=1e-3)


def test_a_picture_that_is_known_stays_and_one_that_is_not_becomes_its_mean():
    whole = np.ones((HEIGHT, WIDTH), bool)
    assert (filled_from_neighbours(PICTURE, whole) == PICTURE).all()
    np.testing.assert_allclose(filled_from_neighbours(PICTURE, ~whole)[3, 5], PICTURE.mean(axis=(0, 1)))


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (3, 200)])
def test_pictures_of_any_shape_are_filled(size):
    strip = np.ones((*size, 3), np.float32) * np.float32([0.2, 0.5, 0.8])
    known = np.zeros(size, bool)
    known[0, 0] = True
    np.testing.assert_allclose(filled_from_neighbours(strip, known), strip, atol=1e-3)


def test_more_pixels_take_no_more_steps():
    from explainer.maps import imputation

    def steps(side):
        cycles, one = [], imputation.System.cycle
        y, x = np.mgrid[:side, :side]
        known = np.hypot(y - side / 2, x - side / 2) > 0.45 * side
        ramp = np.float32(x / side)[..., None].repeat(3, axis=2)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                imputation.System, "cycle", lambda system, right: cycles.append(right.size) or one(system, right)
            )
            filled_from_neighbours(ramp, known)
        return cycles.count(max(cycles))

    assert steps(256) <= steps(64) + 4 <= 20
