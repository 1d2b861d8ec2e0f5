"""Average precision and smoothing, on cases worked out by hand."""

import numpy as np
import pytest

from utils.validating.curves import compute_ap, smooth


def test_average_precision_of_a_miss_before_a_hit():
    # one object; the better detection misses it: precision 0 at recall 0, then 1/2 at recall 1
    ap, envelope, recall = compute_ap(np.array([0.0, 1.0]), np.array([0.0, 0.5]))
    assert envelope[0] == 1
    assert recall.tolist() == [0, 0, 1, 1]
    assert ap == pytest.approx((0.5 * 100 - 0.5 / 2) / 100 + (1 - 0.5) * 0.5 / 100, abs=6e-3)


def test_smoothing_keeps_length_and_constants():
    assert smooth(np.full(1000, 0.3), 0.1) == pytest.approx(np.full(1000, 0.3))
    assert len(smooth(np.arange(7.0), 0.2)) == 7
