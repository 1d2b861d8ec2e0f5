"""Sheets hold every tile whole, with titles that fit, and say why a map is empty."""

import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.explain import Explainer
from explainer.pictures.drawing import Style, text_width, wrapped
from explainer.pictures.sheets import Miniature, Tile, best_columns, colour_bar, sheet, tile_size

SETTINGS = {"imgsz": 96, "conf_thres": 0.05}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 302])
@pytest.mark.parametrize("size", [(60, 1200), (1200, 60), (480, 640), (1, 1), (2160, 3840)])
def test_a_sheet_holds_every_tile_whole_whatever_its_shape(size, count):
    height, width = tile_size(size, count)
    tiles = [Tile(f"tile {number}", np.full((height, width, 3), 77, np.uint8)) for number in range(count)]
    page = sheet(tiles, bar=colour_bar(Style(), has_sign=False))
    assert (page == 77).all(axis=2).sum() >= count * height * width
    assert page.size < 80_000_000


def test_tiles_are_as_large_as_their_number_allows():
    few, many = tile_size((1080, 1920), 4), tile_size((1080, 1920), 1000)
    assert few[0] * few[1] == pytest.approx(100_000, rel=0.01)
    assert many[0] * many[1] * 1000 < 16_200_000
    assert few[1] / few[0] == pytest.approx(1920 / 1080, rel=0.01)


def test_high_tiles_stand_beside_each_other_and_wide_ones_below():
    assert best_columns(5, 200, 1400) == 5
    assert best_columns(5, 1400, 90) == 1


def test_titles_of_any_length_fit_into_two_lines():
    title = "a very long name of a class that fits into no tile at all " * 3 + "0.87"
    for width in (200, 40):
        lines = wrapped(title, width, 14)
        assert len(lines) == 2
        assert all(text_width(line, 14) <= width for line in lines)
    assert lines[1].endswith("7")
    assert wrapped("größer 0.50, stride 8", 300, 14) == ["größer 0.50, stride 8"]


def test_a_tile_with_an_empty_map_says_why():
    image = np.full((200, 300, 3), 200, np.uint8)
    small = Miniature(image, 1, Style())
    hot = np.zeros((200, 300), np.float32)
    silent = small.with_map("title", hot, [], "it has no gradient there")
    hot[100, 100] = 1
    assert silent.remark == "it has no gradient there"
    assert small.with_map("title", hot, [], "it has no gradient there").remark == ""
    page, without = (sheet([Tile("title", silent.picture_rgb, remark)]) for remark in (silent.remark, ""))
    changed = (page != without).any(axis=2)
    assert changed.any()
    assert not changed[:27].any()


def test_a_crowd_of_boxes_has_no_labels(model):
    explanation = Explainer(model, **SETTINGS)(picture())
    found = [entry.detection for entry in explanation.detections][:1]
    small = Miniature(picture(), 1, Style())
    few, many = small.with_boxes("", found).picture_rgb, small.with_boxes("", found * 20).picture_rgb
    assert (few != many).any()


@pytest.fixture(scope="module")
def explanation(model):
    return Explainer(model, backward_per_class=True, max_det=4, **SETTINGS)(picture())
