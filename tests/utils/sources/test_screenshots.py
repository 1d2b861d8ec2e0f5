"""Pictures of the screen, and the region that a source names."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from utils.base.media import is_screen
from utils.sources.screenshots import LoadScreenshots, parse_screen_source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("screen", (0, None)),
        ("screen 2", (2, None)),
        ("screen 1 2 3 4", (0, (1, 2, 3, 4))),
        ("Screen 1 2 3 4 5", (1, (2, 3, 4, 5))),
    ],
)
def test_a_screen_and_its_region_are_read(source, expected):
    assert is_screen(source)
    assert parse_screen_source(source) == expected


@pytest.mark.parametrize("source", ["screen x", "screen 1 2", "screen -1", "window 1"])
def test_another_text_is_no_screen(source):
    with pytest.raises(ValueError, match="names no part of a screen"):
        parse_screen_source(source)


class FakeScreens:
    """Stands in for mss: a red screen of 100 x 50 pixels at (10, 20)."""

    monitors = [{"left": 10, "top": 20, "width": 100, "height": 50}]  # noqa: RUF012

    def grab(self, place):
        self.place = place
        bgra = np.zeros((place["height"], place["width"], 4), np.uint8)
        bgra[..., 2:] = 255
        return bgra

    def close(self):
        pass


def test_a_region_of_the_screen_is_grabbed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", SimpleNamespace(mss=FakeScreens))
    loader = LoadScreenshots("screen 0 5 6 64 32", img_size=64)
    path, im, im0, cap, text = next(loader)
    assert (path, cap, text) == ("0", None, "screen 0 (LTWH): 15,26,64,32: ")
    assert im0.shape == (32, 64, 3)
    assert im0[0, 0].tolist() == [0, 0, 255]
    assert im[:, 0, 0].tolist() == [255, 0, 0]
    assert loader.sct.place["left"] == 15
    with pytest.raises(ValueError, match="screen 3 is not there"):
        LoadScreenshots("screen 3")


def test_without_mss_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install mss"):
        LoadScreenshots("screen")
