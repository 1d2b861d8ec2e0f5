"""What there is to see in a picture, as a factor for maps."""

import cv2
import numpy as np
import pytest

from explainer.maps.detail import POWER, SURROUNDINGS, detail_of, edges_of, times_detail
from explainer.maps.heatmaps import Letterbox

# 40 x 60 pixels in the middle of an input of 64 x 64.
LETTERBOX = Letterbox((40, 60), (64, 64), (40, 60), 12, 2)
CONTENT = LETTERBOX.content_pixels


def as_input(content):
    """Return a picture (40, 60, 3) in its input, on grey."""
    whole = np.full((64, 64, 3), 114 / 255, np.float32)
    whole[CONTENT] = content
    return whole


def with_a_square():
    content = np.full((40, 60, 3), 0.2, np.float32)
    content[15:25, 20:40, 1] = 0.9
    return content


def test_detail_is_a_power_of_how_far_a_pixel_stands_out_times_its_edge():
    content = with_a_square()
    detail = detail_of(as_input(content), LETTERBOX)
    around = cv2.GaussianBlur(content, (0, 0), SURROUNDINGS, borderType=cv2.BORDER_REFLECT)
    expected = (np.abs(content - around).max(2) * edges_of(content)) ** POWER
    np.testing.assert_allclose(detail[CONTENT], expected / expected.max(), atol=1e-5)


def test_detail_lies_on_the_outline_and_is_strongest_where_the_inside_stands_out():
    detail = detail_of(as_input(with_a_square()), LETTERBOX)[CONTENT]
    inside, outside, within, beyond = detail[15, 30], detail[14, 30], detail[20, 30], detail[5, 5]
    assert inside > outside > 0
    assert within == beyond == 0


def test_the_padding_and_its_border_have_no_detail():
    detail = detail_of(as_input(np.full((40, 60, 3), 0.9, np.float32)), LETTERBOX)
    assert detail.shape == (64, 64)
    assert detail.dtype == np.float32
    assert not detail.any()


@pytest.mark.parametrize("colour", [0, 1, 2])
def test_the_colour_where_it_is_largest_counts(colour):
    content = np.full((40, 60, 3), 0.5, np.float32)
    content[10:20, 10:20, colour] = 0.7
    expected = np.full((40, 60, 3), 0.5, np.float32)
    expected[10:20, 10:20] = 0.7
    np.testing.assert_allclose(*(detail_of(as_input(each), LETTERBOX) for each in (content, expected)), atol=1e-6)


def test_maps_are_enlarged_without_their_negative_part_before_they_are_multiplied():
    detail = np.float32([[1, 0.5], [0, 1]])
    (whole, one) = times_detail((np.float32([[2, -3], [4, 8]]), np.float32([[3]])), detail)
    assert whole.tolist() == [[2, 0], [0, 8]]
    assert one.tolist() == [[3, 1.5], [0, 3]]
