"""Text in pictures: lines of it, in letters of any alphabet that a font on this machine has.

A line becomes a plate, a small picture of its letters, which is laid on the page. Nothing is downloaded.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import groupby
from math import ceil
from pathlib import Path

import numpy as np

Colour = tuple[int, int, int]

LINE_HEIGHT, MOST_LINES = 19, 2
INK, LIGHT_INK, PAPER = (30, 30, 30), (255, 255, 255), (255, 255, 255)
TITLE_SIZE, REMARK_SIZE = 14, 12
# Grounds that are lighter than this, of 0..1, are written on with dark ink: either ink then contrasts by 3.5 to 1 or more.
LIGHT_GROUND = 0.25
# Words in the names of font files that are not as plain as a label should be, and files without letters of their own.
ADORNED = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "serif", "condensed")
BLANK = ("lastresort", "blank")
# Fonts of coloured pictures have them in a few sizes alone, in pixels.
STRIKES = (109, 136, 137, 128, 160, 96)
# What Debian and Ubuntu call the fonts of an alphabet, by the first word of its letters' names.
CJK_FONTS = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"), "fonts-noto-cjk")
EMOJI_FONTS, OTHER_FONTS = "fonts-noto-color-emoji", "fonts-noto-core"
# The fonts that were said to be missing.
REPORTED: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of text and where its upper left corner is, in pixels."""

    text: str = field(kw_only=False)
    left: int = 0
    top: int = 0
    size: int = TITLE_SIZE
    ink: Colour = INK
    paper: Colour = PAPER


def write(page: np.ndarray, lines: Iterable[Line]) -> None:
    """Write lines of text into a page, RGB uint8 (H, W, 3), each on a strip of its paper."""
    for line in lines:
        if line.text:
            letters = plate(line.text, line.size, line.ink, line.paper)
            height, width = letters.shape[:2]
            strip = page[line.top : line.top + max(height, LINE_HEIGHT), line.left : line.left + width + 4]
            strip[:] = line.paper
            place = strip[:height, :width]
            place[:] = letters[: place.shape[0], : place.shape[1]]


def stacked(lines: list[Line], left: int, top: int) -> list[Line]:
    """Return lines one below the other, the first one at a corner."""
    return [replace(line, left=left, top=top + number * LINE_HEIGHT) for number, line in enumerate(lines)]


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Return a text in two lines of `width` pixels at most; what does not fit there is left out and shown by an ellipsis."""
    lines = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = [" ".join(lines[MOST_LINES - 1 :])]
    return [shortened(line, width, size) for line in lines]


@lru_cache(maxsize=4096)
def shortened(text: str, width: int, size: int) -> str:
    """Return a text as it is, or its two ends around an ellipsis, so that it fits into `width` pixels."""

    def ends(kept: int) -> str:
        return f"{text[: ceil(kept / 2)]}…{text[len(text) - kept // 2 :]}"

    if text_width(text, size) <= width:
        return text
    fitting = bisect_right(range(1, len(text)), width, key=lambda kept: text_width(ends(kept), size))
    return ends(max(fitting, 1))


@lru_cache(maxsize=4096)
def label_plate(name: str, figures: str, size: int, ground: Colour, widest: int) -> np.ndarray:
    """Return a label as a picture, RGB uint8 (h, w, 3): a name, shortened to `widest` pixels, and figures after it."""
    texts = (shortened(name, widest, size), figures)
    letters = [plate(text, size, contrasting(ground), ground) for text in texts if text]
    margin = np.full((len(letters[0]), max(size // 6, 1), 3), ground, np.uint8)
    return np.hstack([margin, *letters, margin])


@lru_cache(maxsize=4096)
def plate(text: str, size: int, ink: Colour, ground: Colour) -> np.ndarray:
    """Return a line of text as a picture of its own, RGB uint8 (h, w, 3), that cannot be written to.

    Its height is that of a line in the usual font, whatever the letters are.
    """
    from PIL import Image, ImageDraw

    ascent, descent = font(size)[0].getmetrics()
    image = Image.new("RGB", (max(text_width(text, size), 1), ascent + descent), ground)
    draw, left = ImageDraw.Draw(image), 0.0
    for letters, path in pieces_of(text):
        letter_font, scale = font(size, path)
        if scale == 1:
            draw.text((left, ascent), letters, ink, letter_font, anchor="ls", embedded_color=True)
        else:
            paste_pictures(image, letters, letter_font, scale, (left, ascent))
        left += letter_font.getlength(letters) * scale
    picture_rgb = np.array(image)
    picture_rgb.setflags(write=False)
    return picture_rgb


def paste_pictures(image, letters: str, letter_font, scale: float, start: tuple[float, float]) -> None:
    """Paste letters of a font that has one size alone into an image, scaled; `start` is on their baseline."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = letter_font.getbbox(letters, anchor="ls")
    large = Image.new("RGBA", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(large).text((-left, -top), letters, font=letter_font, anchor="ls", embedded_color=True)
    small = large.resize([max(round(side * scale), 1) for side in large.size], Image.Resampling.BOX)
    image.paste(small, (round(start[0] + left * scale), round(start[1] + top * scale)), small)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Return how many pixels a line of text is wide."""
    fonts = [(letters, *font(size, path)) for letters, path in pieces_of(text)]
    return ceil(sum(letter_font.getlength(letters) * scale for letters, letter_font, scale in fonts))


@cache
def contrasting(ground: Colour) -> Colour:
    """Return the ink that is read best on a ground: dark or white, by the ground's relative luminance as in WCAG 2."""
    linear = (np.array(ground) / 255) ** 2.2
    return INK if linear @ (0.2126, 0.7152, 0.0722) > LIGHT_GROUND else LIGHT_INK


@cache
def font(size: int, path: str = ""):
    """Return a font, by default the usual one, and by what its letters must be scaled to have that size in pixels."""
    from PIL import ImageFont

    path = path or usual_font()
    try:
        return ImageFont.truetype(path, size), 1
    except OSError:
        for strike in STRIKES:
            try:
                return ImageFont.truetype(path, strike), size / strike
            except OSError:
                continue
        raise


@cache
def usual_font() -> str:
    """Return the file of the font that comes with matplotlib; it has Latin, Greek, Cyrillic, Arabic and more."""
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@lru_cache(maxsize=4096)
def pieces_of(text: str) -> Sequence[tuple[str, str]]:
    """Return a text in pieces, each with the file of a font that has its letters; the usual one where none has them."""
    text = "".join(map(plain_letter, text))
    if text.isascii():
        return ((text, usual_font()),)
    by_letter, path, paths = fonts_of(text), usual_font(), []
    for letter in text:
        path = by_letter.get(letter, path)
        paths.append(path)
    pieces = groupby(zip(text, paths, strict=True), key=lambda pair: pair[1])
    return tuple(("".join(letter for letter, _ in pairs), path) for path, pairs in pieces)


def plain_letter(letter: str) -> str:
    """Return a letter, or what stands for one that ends a line or is no letter at all."""
    category = unicodedata.category(letter)
    return " " if category in ("Cc", "Zl", "Zp") else "\ufffd" if category == "Cs" else letter


def fonts_of(text: str) -> dict[str, str]:
    """Return the font file of each letter, if possible one for all that the usual font lacks.

    Accents, joiners and the like are left out: they belong to the letter before.
    """
    alone = {letter for letter in text if unicodedata.category(letter) not in ("Mn", "Me", "Mc", "Cf")}
    strange = "".join(sorted(letter for letter in alone if not has(usual_font(), letter)))
    together = font_with(strange) if strange else None
    found = {letter: together or font_with(letter) for letter in strange}
    report_missing([letter for letter in strange if not found[letter]])
    return {letter: found.get(letter) or usual_font() for letter in alone}


@cache
def font_with(letters: str) -> str | None:
    """Return the first file among this machine's fonts that has all of some letters; None if there is none."""
    return next((path for path in system_fonts() if has(path, letters) and can_draw(path, letters[0])), None)


@cache
def system_fonts() -> list[str]:
    """Return the font files of this machine in an order of their names: plain upright ones first."""
    from matplotlib.font_manager import findSystemFonts

    def adornments(path: str) -> tuple[int, str, str]:
        name = Path(path).stem.lower()
        return sum(word in name for word in ADORNED), name, path

    paths = sorted(findSystemFonts(), key=adornments)
    return [path for path in paths if not any(word in Path(path).stem.lower() for word in BLANK)]


def has(path: str, letters: str) -> bool:
    """Return whether a font has all of some letters."""
    return bool(np.isin([ord(letter) for letter in letters], code_points(path)).all())


@cache
def code_points(path: str) -> np.ndarray:
    """Return what a font has letters for, as numbers; nothing for a file that is no font."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(path, fontNumber=0, lazy=True) as opened:
            return np.array(sorted(opened.getBestCmap() or ()), np.uint32)
    except (TTLibError, OSError, KeyError):
        return np.array([], np.uint32)


def can_draw(path: str, letter: str) -> bool:
    """Return whether Pillow can open a font, and draws something for a letter; vector pictures leave no trace."""
    try:
        return font(TITLE_SIZE, path)[0].getmask(letter).getbbox() is not None
    except OSError:
        return False


def report_missing(letters: Sequence[str]) -> None:
    """Log letters that no font here has, and what to install; once for what would be installed."""
    for package in dict.fromkeys(map(fonts_to_install, letters)):
        if package not in REPORTED:
            from utils.general import LOGGER

            REPORTED.add(package)
            missing = "".join(letter for letter in letters if fonts_to_install(letter) == package)
            LOGGER.warning(f"WARNING ⚠️ no font here has: {missing}; install e.g. {package}")


def fonts_to_install(letter: str) -> str:
    """Return the name of a package of fonts that have a letter."""
    if unicodedata.category(letter) == "So":
        return EMOJI_FONTS
    return CJK_FONTS.get(unicodedata.name(letter, "?").split()[0], OTHER_FONTS)
