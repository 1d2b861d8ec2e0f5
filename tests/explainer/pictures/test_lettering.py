"""Text is written in letters of any alphabet that a font has, fits its place, and says once what is missing."""

import socket

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from explainer.pictures import lettering
from explainer.pictures.lettering import (
    Line,
    contrasting,
    label_plate,
    pieces_of,
    plate,
    shortened,
    text_width,
    usual_font,
    write,
)

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CACHED = (lettering.font_with, pieces_of, text_width, shortened, plate, label_plate)


@pytest.fixture
def fonts(monkeypatch):
    """Return a function that takes font files and makes them the only ones of this machine, besides the usual one."""

    def only(*paths):
        monkeypatch.setattr(lettering, "system_fonts", lambda: list(map(str, paths)))
        monkeypatch.setattr(lettering, "REPORTED", set())
        for function in CACHED:
            function.cache_clear()

    yield only
    for function in CACHED:
        function.cache_clear()


def font_of(path, letters, advance=1000):
    """Write a font whose letters are all a black square as wide as high, and return its path."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"letter{ord(letter)}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"letter{ord(letter)}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (advance, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def warnings(monkeypatch):
    """Return the list that warnings go to."""
    from utils.general import LOGGER

    said = []
    monkeypatch.setattr(LOGGER, "warning", said.append)
    return said


def test_a_name_is_written_in_the_font_that_has_its_letters(fonts, warnings, tmp_path):
    square = font_of(tmp_path / "square.ttf", "斑馬")
    fonts(square)
    assert pieces_of("斑馬 zebra") == (("斑馬", str(square)), (" zebra", usual_font()))
    letters = plate("馬", 20, WHITE, BLACK)
    assert letters.shape[1] == 20
    black, white = ((letters == colour).all(axis=2).sum() for colour in (BLACK, WHITE))
    assert white == 14 * 14
    assert black + white == letters.shape[0] * letters.shape[1]
    assert warnings == []


def test_what_no_font_has_is_drawn_as_it_is_and_said_once(fonts, warnings):
    fonts()
    assert pieces_of("斑馬 1") == (("斑馬 1", usual_font()),)
    assert plate("斑馬 1", 20, WHITE, BLACK).any()
    plate("犬", 20, WHITE, BLACK)
    plate("\U0001f436", 20, WHITE, BLACK)
    assert [text.split(" no font ")[1] for text in warnings] == [
        "here has: 斑馬; install e.g. fonts-noto-cjk",
        "here has: \U0001f436; install e.g. fonts-noto-color-emoji",
    ]


@pytest.mark.parametrize("name", ["собака", "σκύλος", "größer", "كلب", "שלום", "żółw"])
def test_the_usual_font_writes_many_alphabets_without_a_search(name, fonts, warnings, monkeypatch):
    fonts()
    monkeypatch.setattr(lettering, "system_fonts", lambda: pytest.fail("the machine's fonts were searched"))
    assert pieces_of(name) == ((name, usual_font()),)
    assert plate(name, 20, WHITE, BLACK).any()
    assert warnings == []


def test_the_first_font_that_has_all_letters_of_a_name_is_taken(fonts, tmp_path):
    one, both = font_of(tmp_path / "one.ttf", "斑"), font_of(tmp_path / "two.ttf", "斑馬")
    fonts(one, both)
    assert pieces_of("斑馬") == (("斑馬", str(both)),)
    assert pieces_of("斑") == (("斑", str(one)),)
    fonts(one, font_of(tmp_path / "three.ttf", "馬"))
    assert pieces_of("斑馬") == (("斑", str(one)), ("馬", str(tmp_path / "three.ttf")))


def test_files_that_are_no_fonts_are_passed_over(fonts, tmp_path):
    broken, empty = tmp_path / "broken.ttf", tmp_path / "empty.otf"
    good = font_of(tmp_path / "good.ttf", "馬")
    broken.write_bytes(good.read_bytes()[:200])
    empty.write_bytes(b"")
    fonts(broken, empty, tmp_path / "gone.ttf", good)
    assert pieces_of("馬") == (("馬", str(good)),)


def test_an_accent_or_joiner_stays_with_its_letter(fonts, tmp_path):
    square = font_of(tmp_path / "square.ttf", "\U0001f469\U0001f33e")
    fonts(square)
    assert pieces_of("\U0001f469\u200d\U0001f33e") == (("\U0001f469\u200d\U0001f33e", str(square)),)


def test_plain_upright_fonts_come_first_and_those_without_letters_never(monkeypatch):
    from matplotlib import font_manager

    found = ["/b/NotoSans-Bold.ttf", "/a/NotoSerif-BoldItalic.ttf", "/c/NotoSans-Regular.ttf", "/d/LastResort.otf"]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    assert lettering.system_fonts.__wrapped__() == [
        "/c/NotoSans-Regular.ttf",
        "/b/NotoSans-Bold.ttf",
        "/a/NotoSerif-BoldItalic.ttf",
    ]


@pytest.mark.parametrize("text", ["", "a\nb", "\x00", "\ud800", "\u2028", "a" * 5000, "\u0301"])
def test_any_text_at_all_becomes_one_line(text, fonts):
    fonts()
    assert plate(text, 12, WHITE, BLACK).shape[0] == plate("a", 12, WHITE, BLACK).shape[0]


def test_a_long_text_keeps_both_ends():
    text = "x".join(map(str, range(1000)))
    short = shortened(text, 200, 14)
    assert 180 < text_width(short, 14) <= 200
    first, last = short.split("…")
    assert text.startswith(first)
    assert text.endswith(last)
    assert 0 <= len(first) - len(last) <= 1
    assert shortened("dog", 200, 14) == "dog"
    assert shortened("dog", 1, 14) == "d…"


def test_a_label_shortens_its_name_and_not_its_figures():
    label, name = (label_plate("name" * 40, figures, 12, BLACK, 100) for figures in (" 0.87", ""))
    assert 90 < name.shape[1] <= 100 + 2 * 2
    assert label.shape[1] == name.shape[1] + text_width(" 0.87", 12)
    assert (label[:, :2] == BLACK).all()
    assert label.max() > 240


def luminance(colour):
    """Return the relative luminance of a colour as WCAG 2 defines it."""
    share = np.array(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def contrast(one, other):
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_ink_can_be_read_on_any_ground():
    levels = range(0, 256, 51)
    for ground in ((red, green, blue) for red in levels for green in levels for blue in levels):
        assert contrast(ground, contrasting(ground)) > 3.4
    assert contrasting(WHITE) != contrasting(BLACK)


def test_letters_have_soft_edges():
    written = plate("O", 30, WHITE, BLACK)[..., 0]
    assert len(np.unique(written)) > 20


def test_a_line_lies_on_its_paper_and_ends_with_the_page():
    page = np.full((60, 100, 3), 77, np.uint8)
    write(page, [Line("a long line that leaves the page", left=50, top=20, ink=WHITE, paper=BLACK)])
    assert (page[:20] == 77).all()
    assert (page[39:] == 77).all()
    assert (page[:, :50] == 77).all()
    assert (page[20:39, 50:, 0] != 77).all()


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    for function in CACHED:
        function.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert plate("斑馬 größer \U0001f436", 20, WHITE, BLACK).any()
