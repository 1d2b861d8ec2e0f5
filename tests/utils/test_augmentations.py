"""The letterbox: sizes worked out by hand, and the published YOLOv5's numbers."""

import json

import numpy as np
import pytest

from utils.augmentations import letterbox


def grey(height, width, value=200):
    return np.full((height, width, 3), value, np.uint8)


def test_a_wide_image_is_padded_to_the_next_stride_above_and_below():
    out, ratio, pad = letterbox(grey(100, 200), 64, stride=32)
    assert out.shape == (32, 64, 3)
    assert ratio == (0.32, 0.32)
    assert pad == (0, 0)
    out, _, pad = letterbox(grey(90, 200), 64, stride=32)
    assert out.shape == (32, 64, 3)
    assert pad == (0, 1.5)


def test_an_odd_row_of_padding_goes_below():
    out, _, _ = letterbox(grey(90, 200), 64, stride=32)
    padded = (out == 114).all(axis=(1, 2))
    assert np.flatnonzero(padded).tolist() == [0, 30, 31]


def test_without_auto_the_whole_frame_is_filled():
    out, _, pad = letterbox(grey(100, 200), (128, 64), auto=False)
    assert out.shape == (128, 64, 3)
    assert pad == (0, 48)


def test_a_small_image_keeps_its_size_without_scaleup():
    out, ratio, pad = letterbox(grey(10, 20), 64, auto=False, scaleup=False)
    assert ratio == (1, 1)
    assert pad == (22, 27)
    assert (out[27:37, 22:42] == 200).all()


def test_scale_fill_stretches_to_the_frame():
    out, ratio, pad = letterbox(grey(10, 20), (60, 40), auto=False, scaleFill=True)
    assert out.shape == (60, 40, 3)
    assert ratio == (2, 6)
    assert pad == (0, 0)


def test_the_padding_has_the_colour_asked_for():
    out, _, _ = letterbox(grey(10, 40), 40, color=(1, 2, 3), auto=False)
    assert out[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [(10000, 3), (3, 10000), (1, 1), (17, 23)])
def test_no_side_rounds_to_nothing(size):
    out, _, _ = letterbox(grey(*size), 640)
    assert max(out.shape[:2]) == 640
    assert min(out.shape[:2]) >= 32
    assert (out == 200).any()


def test_the_image_given_is_not_changed():
    im = grey(30, 40)
    letterbox(im, 64)
    assert (im == 200).all()


def test_every_reference_row_is_met(assets):
    rows = json.loads((assets / "golden" / "letterbox.json").read_text(encoding="utf-8"))
    for row in rows:
        im = np.random.default_rng(row["seed"]).integers(0, 255, (*row["in_hw"], 3), dtype=np.uint8)
        out, ratio, pad = letterbox(im, tuple(row["new_shape"]), stride=32, **row["kw"])
        assert list(out.shape[:2]) == row["out_hw"], row
        assert list(ratio) == row["ratio_wh"], row
        assert list(pad) == row["pad_wh"], row
        assert out.mean() == row["mean"], row
