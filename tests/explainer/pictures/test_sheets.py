"""Sheets hold every tile whole, with titles that fit, and say why a map is empty."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.detectors.predictions import Detection
from explainer.explain import Explainer
from explainer.pictures import sheets
from explainer.pictures.drawing import Style, colour_table
from explainer.pictures.lettering import TITLE_SIZE, text_width, wrapped
from explainer.pictures.sheets import Miniature, Tile, best_columns, colour_bar, detection_title, sheet, tile_size

SETTINGS = {"imgsz": 96, "conf_thres": 0.05}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 302])
@pytest.mark.parametrize("size", [(60, 1200), (1200, 60), (480, 640), (1, 1), (2160, 3840)])
def test_a_sheet_holds_every_tile_whole_whatever_its_shape(size, count):
    height, width = tile_size(size, count)
    bar = colour_bar(Style(), np.linspace(0, 1, 256))
    tiles = [Tile(f"tile {number}", np.full((height, width, 3), 77, np.uint8), bar=bar) for number in range(count)]
    page = sheet(tiles)
    assert (page == 77).all(axis=2).sum() >= count * height * width
    assert page.size < 100_000_000


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
    small = Miniature(image, tile_size(image.shape[:2], 1), Style())
    hot = np.zeros((200, 300), np.float32)
    silent = small.with_map("title", hot, [], "it has no gradient there")
    hot[100, 100] = 1
    assert silent.remark == "it has no gradient there"
    assert small.with_map("title", hot, [], "it has no gradient there").remark == ""
    page, without = (sheet([Tile("title", silent.picture_rgb, remark)]) for remark in (silent.remark, ""))
    changed = (page != without).any(axis=2)
    assert changed.any()
    assert not changed[:27].any()


def test_a_tile_has_the_true_values_of_its_own_map_beside_it():
    image = np.full((200, 300, 3), 200, np.uint8)
    hot = np.linspace(0, 1, 60_000, dtype=np.float32).reshape(200, 300) ** 3
    small = Miniature(image, (200, 300), Style())
    even = small.with_map("", np.full((200, 300), 0.5, np.float32), [], "")
    tile = small.with_map("", hot, [detection()], "")
    assert tile.bar.ticks[0] == even.bar.ticks[0] == "1"
    assert tile.bar.ticks != even.bar.ticks
    assert all(float(high) > float(low) for high, low in pairwise(tile.bar.ticks))
    page = sheet([tile])
    for ticks, low in ((("1", "0.67", "0.33", "0"), 0), (("for", "0.5", "0", "-0.5", "against"), -1)):
        small = Miniature(image, (200, 300), Style(tone="linear"), has_sign=low < 0)
        assert small.with_map("", hot, [], "").bar.ticks == ticks
    strip = page[27:227, 312:324]
    assert np.abs(strip[2].astype(int) - colour_table("plasma")[-1]).mean() < 60
    assert (strip[-1] > 240).all()
    assert (page[27:227, 330:] < 128).any(), "ticks"


@pytest.mark.parametrize("has_sign", [False, True])
def test_ticks_fit_beside_their_bar(has_sign):
    for curve in (np.linspace(0, 1, 256), np.linspace(0, 1, 256) ** 0.1, np.minimum(np.arange(256) / 2, 1)):
        ticks = colour_bar(Style(), curve, has_sign).ticks
        assert max(text_width(tick, TITLE_SIZE) for tick in ticks) <= sheets.TICK_WIDTH


def test_a_tile_without_colours_has_no_bar():
    image, hot = picture(40, 60), np.ones((40, 60), np.float32)
    assert Miniature(image, (40, 60), Style(crop=True)).with_map("", hot, [], "").bar is None
    small = Miniature(image, (40, 60), Style())
    assert small.with_map("", 0 * hot, [], "nothing").bar is None
    assert small.with_boxes("", []).bar is None


def test_the_crowd_on_a_tile_has_no_more_labels_than_fit():
    image = picture(300, 300)
    small, bare = (
        Miniature(image, tile_size(image.shape[:2], 1), Style(hide_labels=hidden)) for hidden in (False, True)
    )
    crowd = [detection(xyxy=(x, y, x + 12, y + 12)) for y in range(5, 280, 20) for x in range(5, 280, 20)]
    labelled = (small.with_boxes("", crowd).picture_rgb != bare.with_boxes("", crowd).picture_rgb).any(axis=2)
    assert 0.05 < labelled.mean() < 0.2


def detection(name="dog", confidence=0.874, stride=32, xyxy=(10, 10, 40, 50), **changes):
    return Detection(np.float32(xyxy), confidence, 0, name, stride, 0, 0, **changes)


def test_a_tile_of_a_detection_says_what_it_is_and_where_its_map_comes_from():
    assert detection_title(detection(), ("model.23",), 0.761) == "dog 0.87, stride 32, model.23, 76 % in box"
    assert detection_title(detection(stride=None), ("a", "b")) == "dog 0.87, stride unknown, a b"
    assert (
        detection_title(detection(outcome="miss"), tuple("abc"), 0.0)
        == "miss: dog 0.87, stride 32, 3 layers, 0 % in box"
    )


def titles_of_sheet(monkeypatch, explanation):
    """Return the titles of the tiles on the contact sheet of an explanation."""
    titles = []
    monkeypatch.setattr(sheets, "sheet", lambda tiles, **_: titles.extend(tile.title for tile in tiles))
    sheets.contact_sheet(explanation, Style())
    return titles


def test_a_contact_sheet_shows_all_detections_together_and_each_by_itself(explanation, monkeypatch):
    first, together, *own = titles_of_sheet(monkeypatch, explanation)
    assert (first, together) == ("detections", "GradCAM, all detections")
    assert len(own) == len(explanation.detections) > 1
    for title, entry in zip(own, explanation.detections, strict=True):
        energy = f"{100 * entry.row()['energy_in_box']:.0f} % in box"
        assert title == f"{entry.title}, {entry.layers[0]}, {energy}"


def test_the_map_of_a_single_detection_is_shown_once(explanation, monkeypatch):
    single = replace(explanation, detections=explanation.detections[:1], per_class={})
    photograph, own = titles_of_sheet(monkeypatch, single)
    assert photograph == "detections"
    assert own.startswith(f"GradCAM, {single.detections[0].title}, ")
    assert titles_of_sheet(monkeypatch, replace(single, detections=())) == ["detections", "GradCAM, all detections"]


@pytest.fixture(scope="module")
def explanation(model):
    return Explainer(model, backward_per_class=True, max_det=4, **SETTINGS)(picture())
