"""Maps land where they belong, and the figures read from them are right."""

import cv2
import numpy as np
import pytest
import torch
from scenes import confident_detector

from explainer.detectors.yolov5 import YOLOv5
from explainer.errors import UnreadableImageError
from explainer.maps.heatmaps import (
    Letterbox,
    Stretched,
    heatmap_of,
    hottest,
    keep_hottest,
    normalise,
    peak,
    pixels_in_box,
)
from utils.general import scale_boxes


@pytest.fixture(scope="module")
def detector():
    return YOLOv5(confident_detector())


SIZES = {
    "square": (224, 224),
    "padded above and below": (100, 300),
    "padded left and right": (333, 150),
    "odd": (177, 123),
    "twenty times wider than high": (40, 800),
    "twenty times higher than wide": (800, 40),
    "larger than the input": (700, 1001),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("place", [(0.2, 0.3), (0.5, 0.5), (0.9, 0.8)])
def test_a_map_lands_where_its_evidence_was_in_the_image(detector, size, place):
    height, width = size
    y, x = round(place[0] * height), round(place[1] * width)
    image = np.zeros((*size, 3), np.uint8)
    side = max(min(size) // 8, 2)
    cv2.rectangle(image, (x - side, y - side), (x + side, y + side), (255, 255, 255), -1)

    tensor, letterbox = detector.prepare(image, (320, 320))
    brightness = torch.nn.functional.avg_pool2d((tensor == 1).float().mean(1, keepdim=True), 4)[0, 0].numpy()
    heatmap = heatmap_of([brightness], letterbox)

    assert heatmap.shape == size
    ys, xs = np.nonzero(heatmap > 0.5)
    drawn_ys, drawn_xs = np.nonzero(image[..., 0])
    cell = 4 * max(size) / 320
    assert abs(ys.mean() - drawn_ys.mean()) < cell / 2
    assert abs(xs.mean() - drawn_xs.mean()) < cell / 2


def test_evidence_in_the_padding_is_cut_off_before_the_map_is_scaled():
    letterbox = Letterbox(image_size=(20, 40), input_size=(64, 64), content_size=(32, 64), top=16, left=0)
    cam = np.zeros((16, 16), np.float32)
    cam[1, 3], cam[8, 8] = 100, 1
    heatmap = heatmap_of([cam], letterbox)
    assert heatmap.max() == pytest.approx(1)
    assert peak(heatmap)[1] == pytest.approx(20 * (8.5 * 4 - 16) / 32, abs=1.5)


def test_an_image_too_narrow_for_a_single_row_of_pixels_is_refused_by_name_of_its_size(detector):
    with pytest.raises(UnreadableImageError, match="3000x1"):
        detector.prepare(np.zeros((1, 3000, 3), np.uint8), (320, 320))


def test_normalising_maps_the_lowest_to_zero_and_the_highest_to_one():
    assert normalise(np.float32([[2, 3], [4, 6]])).tolist() == [[0, 0.25], [0.5, 1]]


def test_a_tiny_map_is_as_visible_as_a_large_one():
    cam = np.float32([[0, 1], [2, 4]])
    np.testing.assert_allclose(normalise(cam * np.float32(1e-20)), normalise(cam), rtol=1e-5)


def test_a_map_without_contrast_is_empty():
    assert not normalise(np.full((3, 3), 7, np.float32)).any()


def test_maps_of_several_layers_are_averaged_after_each_was_scaled():
    letterbox = Letterbox((2, 2), (2, 2), (2, 2), 0, 0)
    faint, strong = np.float32([[0, 1], [0, 0]]), np.float32([[0, 0], [500, 1000]])
    np.testing.assert_allclose(heatmap_of([faint, strong], letterbox), [[0, 1], [0.5, 1]])


def test_the_hottest_value_of_several_heatmaps_is_kept_and_none_gives_zeros():
    assert hottest([np.float32([[0, 1]]), np.float32([[0.5, 0.2]])], (1, 2)).tolist() == [[0.5, 1]]
    assert hottest([], (1, 2)).tolist() == [[0, 0]]


def test_only_the_hottest_percent_of_pixels_keep_their_value():
    heatmap = np.arange(100, dtype=np.float32).reshape(10, 10) / 99
    kept = keep_hottest(heatmap, 7)
    assert (kept > 0).sum() == 7
    assert kept.max() == heatmap.max()
    assert keep_hottest(heatmap, 100) is heatmap


def test_a_box_holds_the_pixels_whose_centres_lie_inside():
    rows, columns = pixels_in_box([0.6, 1.4, 3.4, 2.6], (10, 10))
    assert (rows, columns) == (slice(1, 3), slice(1, 3))
    assert pixels_in_box([-5, -5, 50, 50], (4, 6)) == (slice(0, 4), slice(0, 6))


def test_the_peak_is_given_as_x_and_y_and_an_empty_map_has_none():
    heatmap = np.zeros((4, 5), np.float32)
    assert peak(heatmap) is None
    heatmap[3, 1] = 0.5
    assert peak(heatmap) == (1, 3)


# Boxes between the image and the input


@pytest.mark.parametrize("image_size", [(720, 1280), (99, 41), (33, 500)])
def test_boxes_leave_the_input_as_scale_boxes_moves_them_to_the_bit(image_size):
    place = Letterbox(image_size, (384, 640), (384, 640), 0, 0)
    boxes = np.random.default_rng(0).uniform(-50, 700, (200, 4)).astype(np.float32)
    expected = scale_boxes(place.input_size, torch.from_numpy(boxes.copy()), image_size).numpy()
    np.testing.assert_array_equal(place.boxes_to_image(boxes), expected)


@pytest.mark.parametrize("kind", [Letterbox, Stretched])
@pytest.mark.parametrize("image_size", [(720, 1280), (99, 41), (33, 500)])
def test_boxes_move_into_the_input_as_those_of_detections_move_out_of_it(kind, image_size):
    height, width = image_size
    xyxy = np.float32([[0.2 * width, 0.3 * height, 0.9 * width, 0.8 * height]])
    place = kind(image_size, (384, 640), (300, 600), 7, 9)
    np.testing.assert_allclose(place.boxes_to_image(place.boxes_to_input(xyxy)), xyxy, atol=1e-2)


def test_a_stretched_image_fills_its_part_of_the_input():
    place = Stretched((100, 200), (320, 320), (300, 310), 4, 6)
    np.testing.assert_allclose(place.boxes_to_input(np.float32([[0, 0, 200, 100]])), [[6, 4, 316, 304]])
