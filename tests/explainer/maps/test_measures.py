"""The figures, against values worked out by hand."""

import numpy as np
import pytest

from explainer.maps import measures

ROWS, COLUMNS = slice(0, 2), slice(2, 4)


def quarters(a=1.0, b=2.0, c=3.0, d=4.0):
    """Return a 4x4 map of four 2x2 quarters with these values, in reading order."""
    return np.kron(np.float32([[a, b], [c, d]]), np.ones((2, 2), np.float32))


@pytest.mark.parametrize(
    ("curve", "area"), [([1, 0], 0.5), ([1, 1, 0], 0.75), ([0, 1, 0], 0.5), ([1, 0, 0, 0, 0], 0.125), ([1, 1, 1], 1)]
)
def test_the_area_under_a_curve_is_that_of_its_trapezoids(curve, area):
    assert measures.area_under(curve) == pytest.approx(area)


def test_the_share_inside_is_that_of_the_sum():
    assert measures.share_inside(quarters(), (ROWS, COLUMNS)) == pytest.approx(0.2)
    assert measures.share_inside(quarters(), quarters() > 2) == pytest.approx(0.7)
    assert measures.share_inside(np.zeros((4, 4)), (ROWS, COLUMNS)) is None


def test_the_peak_is_inside_a_box_or_a_mask_or_it_is_not():
    assert measures.peak_inside(quarters(b=9), (ROWS, COLUMNS)) is True
    assert measures.peak_inside(quarters(), (ROWS, COLUMNS)) is False
    assert measures.peak_inside(quarters(), quarters() == 4) is True
    assert measures.peak_inside(np.zeros((4, 4)), (ROWS, COLUMNS)) is None


def test_enrichment_is_one_for_a_flat_map_and_the_inverse_of_the_area_where_all_is_inside():
    assert measures.enrichment(quarters(1, 1, 1, 1), (ROWS, COLUMNS)) == pytest.approx(1)
    assert measures.enrichment(quarters(0, 1, 0, 0), (ROWS, COLUMNS)) == pytest.approx(4)
    assert measures.enrichment(quarters(), quarters() == 4) == pytest.approx(1.6)
    assert measures.enrichment(np.zeros((4, 4)), (ROWS, COLUMNS)) is None
    assert measures.enrichment(quarters(), (slice(2, 2), COLUMNS)) is None


def test_object_discrimination_is_the_part_that_lies_on_other_objects():
    heatmap = quarters()
    own, first, second = heatmap == 1, heatmap == 2, (slice(2, 4), slice(0, 2))
    assert measures.object_discrimination(heatmap, own, [first, second]) == pytest.approx(5 / 6)
    assert measures.object_discrimination(heatmap, heatmap == 4, [first]) == pytest.approx(1 / 3)
    assert measures.object_discrimination(heatmap, own, []) is None
    assert measures.object_discrimination(np.zeros((4, 4)), own, [first]) is None


def test_what_objects_share_counts_once_and_for_the_explained_one_where_it_has_a_part():
    flat, left, middle = np.ones((4, 8)), (slice(0, 4), slice(0, 4)), (slice(0, 4), slice(2, 6))
    assert measures.object_discrimination(flat, left, [middle]) == pytest.approx(8 / 24)
    assert measures.object_discrimination(flat, left, [middle, middle]) == pytest.approx(8 / 24)
    assert measures.object_discrimination(flat, left, [(slice(0, 2), slice(0, 3))]) == 0


def test_compactness_is_the_root_mean_square_distance_to_the_peak_in_half_diagonals():
    heatmap = np.zeros((5, 9), np.float32)
    heatmap[2, 4], heatmap[2, 7] = 2, 1
    # A third of the sum lies 3 pixels away; the half diagonal of a 6x8 box is 5.
    assert measures.compactness(heatmap, [0, 0, 6, 8]) == pytest.approx(np.sqrt(3) / 5)
    heatmap[2, 7], heatmap[0, 4] = 0, 1
    assert measures.compactness(heatmap, [0, 0, 6, 8]) == pytest.approx(np.sqrt(4 / 3) / 5)
    assert measures.compactness(np.zeros((5, 9)), [0, 0, 6, 8]) is None
    assert measures.compactness(heatmap, [3, 3, 3, 3]) is None


def test_the_gini_index_tells_an_even_spread_from_a_dot():
    assert measures.gini(np.ones((4, 4))) == pytest.approx(0)
    assert measures.gini(np.eye(1, 10)) == pytest.approx(0.9)
    assert measures.gini(np.array([[1.0, 3.0]])) == pytest.approx(0.25)
    assert measures.gini(np.zeros((2, 2))) is None


@pytest.mark.parametrize(("value", "drop"), [(0.75, 0.25), (1.0, 0.0), (1.5, 0.0), (0.0, 1.0)])
def test_the_drop_in_confidence_is_what_is_lost_and_no_gain_counts(value, drop):
    assert measures.confidence_drop(value) == pytest.approx(drop)


def test_equal_values_share_the_mean_of_their_ranks():
    assert measures.average_ranks(np.array([[3, 1], [1, 5]])).tolist() == [2, 0.5, 0.5, 3]


def test_spearman_looks_at_the_order_alone():
    values = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert measures.spearman(values, values**3) == pytest.approx(1)
    assert measures.spearman(values, -values) == pytest.approx(-1)
    # Ranks 0 1 2 3 and 1 0 3 2: 1 - 6 * 4 / (4 * 15).
    assert measures.spearman(values, np.array([[2.0, 1.0, 4.0, 3.0]])) == pytest.approx(0.6)
    assert measures.spearman(values, np.zeros((1, 4))) is None


def test_structural_similarity_of_a_map_with_itself_is_one_and_with_its_inverse_is_low():
    heatmap = np.random.default_rng(0).random((30, 40), dtype=np.float32)
    assert measures.structural_similarity(heatmap, heatmap) == pytest.approx(1)
    assert measures.structural_similarity(heatmap, 1 - heatmap) < -0.5


def test_structural_similarity_of_maps_as_large_as_the_window_is_that_of_their_middle_alone():
    first, second = np.random.default_rng(0).random((2, 11, 11))
    bell = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    weights = np.outer(bell, bell) / bell.sum() ** 2
    means = [(weights * each).sum() for each in (first, second)]
    away = [each - mean for each, mean in zip((first, second), means, strict=True)]
    variances, covariance = [(weights * each**2).sum() for each in away], (weights * away[0] * away[1]).sum()
    closeness = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    expected = closeness * (2 * covariance + 9e-4) / (sum(variances) + 9e-4)
    assert measures.structural_similarity(first, second) == pytest.approx(expected)


def test_structural_similarity_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first, second = np.random.default_rng(0).random((2, 37, 52))
    second = 0.7 * first + 0.3 * second
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = metrics.structural_similarity(first, second, **settings)
    assert measures.structural_similarity(first, second) == pytest.approx(expected, abs=1e-6)


def test_structural_similarity_of_maps_smaller_than_the_window_is_defined():
    narrow = np.random.default_rng(0).random((4, 30))
    assert measures.structural_similarity(narrow, narrow) == pytest.approx(1)


def test_structural_similarity_of_two_flat_maps_is_that_of_their_means():
    first, second = np.full((20, 20), 0.2), np.full((20, 20), 0.6)
    assert measures.structural_similarity(first, second) == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4))


def test_the_interval_holds_the_mean_and_shrinks_with_the_number_of_groups():
    values = np.random.default_rng(1).normal(5, 1, 400)
    low, high = measures.bootstrap_interval(values, np.arange(400), seed=0)
    # 1.96 standard errors of 1 / 20.
    assert (low, high) == pytest.approx((values.mean() - 0.098, values.mean() + 0.098), abs=0.015)


def test_values_that_always_come_together_count_once_for_the_interval():
    values = np.random.default_rng(2).normal(0, 1, 50)
    alone = measures.bootstrap_interval(values, np.arange(50), seed=0)
    tenfold = measures.bootstrap_interval(values.repeat(10), np.arange(50).repeat(10), seed=0)
    assert tenfold == pytest.approx(alone)


def test_one_group_alone_has_an_interval_without_width():
    assert measures.bootstrap_interval(np.array([1.0, 2.0]), np.array(["a", "a"]), seed=0) == (1.5, 1.5)
