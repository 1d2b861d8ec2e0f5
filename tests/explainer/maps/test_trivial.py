"""Heatmaps that explain nothing: they know the box, and the bare picture in it."""

import numpy as np
import pytest

from explainer.maps import measures
from explainer.maps.detail import detail_of_picture
from explainer.maps.trivial import TRIVIAL, edges_in_box, edges_under_gaussian, gaussian_in_box, nearness_to_centre

BOX = np.array([20, 40, 60, 60])
INSIDE = (slice(40, 60), slice(20, 60))
NOISE = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)


def test_the_gaussian_sits_on_its_box_with_nine_tenths_inside():
    blob = gaussian_in_box(BOX, (100, 120))
    assert blob.shape == (100, 120)
    assert blob.dtype == np.float32
    assert blob.max() == 1
    assert {blob[49, 39], blob[50, 40]} == {1}
    # Two standard deviations to each side: 0.9545 squared.
    assert measures.share_inside(blob, INSIDE) == pytest.approx(0.911, abs=0.003)


def test_a_gaussian_on_a_box_without_area_is_finite():
    blob = gaussian_in_box(np.array([20, 40, 20, 60]), (100, 120))
    assert np.isfinite(blob).all()


@pytest.mark.parametrize("name", TRIVIAL)
def test_each_is_a_heatmap_that_peaks_in_the_box(name):
    heatmap = TRIVIAL[name](NOISE, BOX)
    assert heatmap.shape == (100, 120)
    assert heatmap.dtype == np.float32
    assert heatmap.min() >= 0
    assert heatmap.max() == pytest.approx(1, abs=0.01)
    assert measures.peak_inside(heatmap, INSIDE)


@pytest.mark.parametrize("name", ["ClippedGaussian", "FilledBox", "BoxEdges", "CentredEdges", "CentredDetail"])
def test_five_of_them_are_nothing_outside_of_the_box(name):
    assert measures.share_inside(TRIVIAL[name](NOISE, BOX), INSIDE) == 1


@pytest.mark.parametrize("name", TRIVIAL)
def test_a_box_without_area_or_at_the_edge_is_no_error(name):
    for box in ([20, 40, 20, 60], [-5, -5, 3, 3], [118, 98, 130, 110]):
        assert np.isfinite(TRIVIAL[name](NOISE, np.array(box))).all()


def test_the_distance_is_that_of_circles_around_the_middle_of_the_box():
    near = nearness_to_centre(NOISE, BOX)
    assert near[49, 39] == near[50, 40] == near.max()
    assert near[50 + 10, 40] == pytest.approx(near[50, 40 + 10])
    assert near[0, 119] == 0


def test_edges_are_those_of_the_picture_in_the_box_alone():
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[:, 30:, 1] = 200
    picture[:, 90:] = 0
    edges = edges_in_box(picture, BOX)
    assert edges[50].argmax() in (29, 30)
    assert (edges[:, 50:] == 0).all()
    centred = edges_under_gaussian(picture, BOX)
    assert centred[:, 50:].max() == 0
    assert centred[50, 29:31].max() > 2 * centred[42, 29:31].max() > 0
    assert not edges_in_box(np.full((100, 120, 3), 7, np.uint8), BOX).any()


def test_centred_detail_is_the_factor_of_detailcam_under_the_gaussian():
    detail = detail_of_picture(NOISE)
    expected = (detail * gaussian_in_box(BOX, (100, 120)))[INSIDE]
    np.testing.assert_allclose(TRIVIAL["CentredDetail"](NOISE, BOX)[INSIDE], expected / expected.max(), atol=1e-6)
    np.testing.assert_allclose(detail, detail_of_picture(np.float32(NOISE) / 255), atol=1e-5)
