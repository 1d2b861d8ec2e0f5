"""Drawing, colours and crops."""

import numpy as np
import pytest
import torch
from PIL import Image

from utils.plots import Annotator, Colors, colors, save_one_box

RED, BLACK = (0, 0, 255), (0, 0, 0)


def black(height=60, width=80):
    return np.zeros((height, width, 3), np.uint8)


def test_twenty_colours_differ_and_repeat():
    assert len({colors(i) for i in range(20)}) == 20
    assert colors(3) == colors(23) == colors(torch.tensor(3.0))
    assert colors(5, bgr=True) == colors(5)[::-1]
    assert Colors.hex2rgb("#ff8000") == (255, 128, 0)


@pytest.mark.parametrize("pil", [False, True])
def test_a_box_is_drawn_in_its_colour_and_channel_order(pil):
    annotator = Annotator(black(), line_width=1, pil=pil)
    annotator.box_label(torch.tensor([10.0, 20.0, 50.0, 40.0]), color=RED)
    picture = annotator.result()
    assert tuple(picture[20, 30]) == RED
    assert tuple(picture[30, 10]) == RED
    assert tuple(picture[30, 30]) == BLACK


def test_an_array_is_drawn_on_in_place():
    im = black()
    Annotator(im).rectangle((0, 0, 10, 10), fill=RED)
    assert tuple(im[5, 5]) == RED


@pytest.mark.parametrize("label", ["cat 0.9", "Büro 猫"])
def test_a_label_stands_on_its_background_above_the_box(label):
    annotator = Annotator(black(200, 300), line_width=2, example=label)
    annotator.box_label((100, 100, 200, 180), label, RED, txt_color=(255, 255, 255))
    picture = annotator.result()
    above = picture[85:98, 100:150].reshape(-1, 3)
    assert (above == RED).all(1).any()
    assert (above == 255).all(1).any()


@pytest.mark.parametrize("pil", [False, True])
def test_a_label_without_room_stays_inside_the_picture(pil):
    annotator = Annotator(black(200, 300), line_width=2, pil=pil)
    annotator.box_label((290, 0, 299, 150), "wide label", RED)
    assert (annotator.result()[3:15, 200:280] == RED).all(2).any()


def test_text_can_be_anchored_at_its_bottom():
    annotator = Annotator(black(100, 200))
    annotator.text((0, 100), "hello", anchor="bottom")
    assert annotator.result()[60:].any()


def test_a_pil_image_is_accepted():
    annotator = Annotator(Image.new("RGB", (80, 60)), line_width=1)
    annotator.box_label((10, 20, 50, 40), "x", color=(255, 0, 0))
    assert annotator.result().shape == (60, 80, 3)
    assert tuple(annotator.result()[40, 30]) == (255, 0, 0)


@pytest.mark.parametrize("pil", [False, True])
def test_masks_are_tinted(pil):
    mask = torch.zeros(1, 60, 80)
    mask[0, :10] = 1
    annotator = Annotator(black(), pil=pil)
    annotator.masks(mask, [(200, 100, 0)], alpha=0.5)
    assert tuple(annotator.result()[5, 5]) == (100, 50, 0)
    assert tuple(annotator.result()[20, 5]) == BLACK


@pytest.mark.parametrize(
    "im", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), black().transpose(1, 0, 2), np.zeros((5, 5, 4), np.uint8)]
)
def test_a_picture_that_cannot_be_drawn_on_is_refused(im):
    with pytest.raises(ValueError, match="picture"):
        Annotator(im)


def striped():
    im = black(100, 200)
    im[..., 0] = np.arange(200)
    return im


def test_a_crop_is_the_box_made_larger_and_padded(tmp_path):
    # 50 wide x 1.02 + 10 = 61, around x = 75; 20 high becomes 30.4.
    crop = save_one_box(torch.tensor([50.0, 40, 100, 60]), striped(), BGR=True, save=False)
    assert crop.shape[:2] == (31, 61)
    assert crop[0, 0].tolist() == [44, 0, 0]


def test_a_crop_is_bgr_whatever_the_picture_was():
    crop = save_one_box([50, 40, 100, 60], striped(), BGR=False, save=False)
    assert crop[0, 0].tolist() == [0, 0, 44]


def test_a_square_crop_is_as_wide_as_high():
    crop = save_one_box([50, 40, 100, 60], striped(), gain=1, pad=0, square=True, save=False)
    assert crop.shape[:2] == (50, 50)


def test_crops_of_one_name_are_numbered_and_keep_their_colours(tmp_path):
    im = np.full((50, 50, 3), (250, 10, 20), np.uint8)
    for _ in range(2):
        save_one_box([10, 10, 30, 30], im, tmp_path / "cat" / "a.png", BGR=True)
    assert sorted(file.name for file in (tmp_path / "cat").iterdir()) == ["a.jpg", "a2.jpg"]
    red, _, blue = np.asarray(Image.open(tmp_path / "cat" / "a2.jpg"))[5, 5].tolist()
    assert blue > 200 > 60 > red


def test_a_box_outside_the_picture_still_gives_a_pixel():
    assert save_one_box([500, 500, 510, 510], striped(), save=False).shape == (1, 1, 3)
