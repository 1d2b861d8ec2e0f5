"""Masked passes: what they change in an image, and what they find left of a detection."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scenes import confident_detector, picture

from explainer.detectors.predictions import Predictions
from explainer.detectors.yolov5 import YOLOv5
from explainer.evaluation.faithfulness import GREY, Perturbation, Protocol, filled_in, hottest_first
from explainer.maps.heatmaps import Letterbox
from explainer.methods.targets import similarities

# A picture of 8x12 pixels with two rows of padding above and below.
PLACE = Letterbox(image_size=(8, 12), input_size=(12, 12), content_size=(8, 12), top=2, left=0)


def brightness_of_the_left_half(images):
    """Stand in for a detector that is as sure of one box as the left half of the content is bright."""
    objectness = images[:, :, 2:10, :6].mean(dim=(1, 2, 3))
    rows = torch.tensor([[[3.0, 6, 6, 8, 0, 1, 0]]]).repeat(len(images), 1, 1)
    rows[:, 0, 4] = objectness
    return Predictions.of_columns(rows)


def white(**protocol):
    image = torch.full((1, 3, 12, 12), GREY)
    image[:, :, 2:10] = 1
    return Perturbation(brightness_of_the_left_half, image, PLACE, [0], Protocol(**protocol))


def left_is_hot():
    return np.float32(np.arange(12) < 6) * np.ones((8, 1), np.float32)


def test_the_hottest_pixels_go_first_and_the_padding_never():
    step = white(steps=4).step_of_pixel(np.arange(96, dtype=np.float32).reshape(8, 12))
    assert (step[:2] == 5).all()
    assert (step[10:] == 5).all()
    assert step[2:10].flatten().tolist() == [4] * 24 + [3] * 24 + [2] * 24 + [1] * 24


@pytest.mark.parametrize("value", [0, 1])
def test_a_flat_map_is_taken_from_the_middle_outwards_whatever_the_seed(value):
    flat = np.full((8, 12), value, np.float32)
    step = white(steps=4).step_of_pixel(flat)
    assert (step == white(steps=4, seed=1).step_of_pixel(flat)).all()
    y, x = np.mgrid[:8, :12]
    distance = np.hypot(y - 3.5, x - 5.5)
    for number in range(1, 4):
        assert distance[step[2:10] == number].max() <= distance[step[2:10] == number + 1].min()


def test_pixels_without_heat_are_taken_by_their_distance_to_those_that_have_some():
    spots = np.zeros((9, 40), np.float32)
    spots[4, 5], spots[4, 30] = 0.2, 1
    y, x = np.unravel_index(hottest_first(spots), spots.shape)
    distance = np.minimum(np.hypot(y - 4, x - 5), np.hypot(y - 4, x - 30))
    assert (y[0], x[0], y[1], x[1]) == (4, 30, 4, 5)
    assert (np.diff(distance) >= 0).all()


def test_equal_heat_is_taken_from_the_centre_of_all_heat_outwards():
    box = np.zeros((12, 20), np.float32)
    box[2:7, 3:8] = 0.5
    y, x = np.unravel_index(hottest_first(box), box.shape)
    assert (np.diff(np.hypot(y - 4, x - 5)[:25]) >= 0).all()
    assert box[y[:25], x[:25]].all()


def test_the_order_is_that_of_the_heat_and_rounding_does_not_turn_it():
    heat = np.float32(np.random.default_rng(0).permutation(60 * 80).reshape(60, 80))
    assert (heat.ravel()[hottest_first(heat)] == np.arange(60 * 80)[::-1]).all()
    sharp = np.where(heat > 4000, heat, 0) / 4800
    noise = np.float32(np.random.default_rng(1).uniform(0, 1e-8, heat.shape))
    assert (hottest_first(sharp) == hottest_first(sharp + noise)).all()


def test_deletion_of_all_that_matters_in_the_first_half_of_the_steps():
    (curves,) = white(steps=4, deletion="zero").curves([left_is_hot()], [0])
    assert curves.deletion == pytest.approx([1, 0.5, 0, 0, 0])


def test_deleted_pixels_become_what_was_asked_for():
    assert white(deletion="grey").ends[0] == pytest.approx([GREY])
    assert white(deletion="zero").ends[0] == pytest.approx([0])
    assert white(deletion="blur").ends[0] == pytest.approx([1])


def test_insertion_starts_from_a_blur_and_ends_with_the_image():
    perturbation = white(steps=4)
    perturbation.image = torch.cat([torch.ones(1, 3, 12, 6), torch.zeros(1, 3, 12, 6)], dim=3)
    (curves,) = perturbation.curves([left_is_hot()], [0])
    start = float(perturbation.blurred[:, :, 2:10, :6].mean())
    assert start < 0.9
    assert curves.insertion == pytest.approx([start, (1 + start) / 2, 1, 1, 1], abs=0.05)


def test_only_the_evidence_shows_through():
    perturbation = white(deletion="zero")
    assert perturbation.shown([left_is_hot(), 0.25 * left_is_hot()], [0, 0]) == pytest.approx([1, 0.25])


def test_curves_of_many_maps_are_those_of_each_alone_whatever_the_batch():
    with YOLOv5(confident_detector()).borrowed() as detector:
        image, place = detector.prepare(picture(50, 75), (96, 96))
        maps = list(np.random.default_rng(0).random((3, 50, 75), dtype=np.float32))
        together = Perturbation(detector.predict, image, place, [7, 300], Protocol(steps=5, batch_size=7))
        alone = Perturbation(detector.predict, image, place, [7, 300], Protocol(steps=5, batch_size=1))
        found = together.curves(maps, [0, 1, 0])
        expected = [alone.curves([heatmap], [which])[0] for heatmap, which in zip(maps, [0, 1, 0], strict=True)]
    for one, other in zip(found, expected, strict=True):
        assert one.deletion == pytest.approx(other.deletion, abs=1e-5)
        assert one.insertion == pytest.approx(other.insertion, abs=1e-5)
        assert one.deletion[0] == one.insertion[-1] == 1


def test_the_whole_image_counts_as_one():
    with YOLOv5(confident_detector()).borrowed() as detector:
        image, place = detector.prepare(picture(50, 75), (96, 96))
        perturbation = Perturbation(detector.predict, image, place, [7, 300])
        assert perturbation.left(iter([(image, 0), (image, 1)])) == pytest.approx([1, 1])


def test_what_is_left_is_overlap_times_cosine_times_objectness_of_the_best_prediction():
    sought = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[1.0, 0]])
    same = (5, 5, 10, 10, 0.5, 0.6, 0.8)
    half_beside = (10, 5, 10, 10, 0.9, 1, 0)

    def left(*rows):
        return similarities(Predictions.of_columns(torch.tensor([rows])), *sought).tolist()

    assert left(same) == [[pytest.approx(0.5 * 0.6)]]
    assert left(half_beside) == [[pytest.approx(0.9 / 3)]]
    assert left(same, half_beside) == [[pytest.approx(0.3)]]


def test_the_whole_image_gives_at_least_the_objectness_that_a_detection_has():
    with YOLOv5(confident_detector()).borrowed() as detector:
        image, place = detector.prepare(picture(50, 75), (96, 96))
        rows = [7, 300, 900]
        found = Perturbation(detector.predict, image, place, rows).clean
        assert (found >= detector.predict(image)[0].certainty[rows] - 1e-6).all()


def test_imputed_pixels_follow_their_neighbours_and_the_others_stay():
    ramp = torch.arange(40.0)[None, None, None].expand(1, 3, 20, 40) / 40
    missing = torch.zeros(20, 40, dtype=torch.bool)
    missing[:, 10:20] = True
    filled = filled_in(ramp, missing, torch.Generator().manual_seed(0))
    assert (filled[..., ~missing] == ramp[..., ~missing]).all()
    assert (filled - ramp).abs().max() < 0.15
    assert not (filled[..., missing] == ramp[..., missing]).all()


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_imputed_pixels_are_those_of_the_library_noise_and_all(share):
    content = torch.from_numpy(picture(60, 80)).permute(2, 0, 1)[None].float() / 255
    missing = torch.from_numpy(np.random.default_rng(0).random((60, 80)) < share)
    missing[20:50, 30:70] = True
    torch.manual_seed(3)
    expected = NoisyLinearImputer()(content[0], (~missing).float())
    found = filled_in(content, missing, torch.Generator().manual_seed(3))[0]
    assert (found - expected).abs().max() < 1e-4
