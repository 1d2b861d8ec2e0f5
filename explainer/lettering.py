"""Lines of text on a page: wrapped, stacked and written."""

from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil

import numpy as np

LINE_HEIGHT, MOST_LINES = 19, 2
INK, LIGHT_INK = (30, 30, 30), (255, 255, 255)
TITLE_SIZE, REMARK_SIZE = 14, 12


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of text and where its upper left corner is, in pixels."""

    text: str = field(kw_only=False)
    left: int = 0
    top: int = 0
    size: int = TITLE_SIZE
    ink: tuple[int, int, int] = INK
    paper: tuple[int, int, int] | None = None


def write(page: np.ndarray, lines: list[Line]) -> np.ndarray:
    """Return the page with lines of text, in letters of any alphabet that the font has."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(page)
    draw = ImageDraw.Draw(image)
    for line in lines:
        if line.paper and line.text:
            width = text_width(line.text, line.size) + 3
            draw.rectangle((line.left, line.top, line.left + width, line.top + LINE_HEIGHT - 1), fill=line.paper)
        draw.text((line.left, line.top), line.text, fill=line.ink, font=font(line.size))
    return np.array(image)


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


def shortened(text: str, width: int, size: int) -> str:
    """Return a text as it is, or its two ends around an ellipsis, so that it fits into `width` pixels."""
    kept, shown = len(text), text
    while kept > 1 and text_width(shown, size) > width:
        kept -= 1
        shown = f"{text[: ceil(kept / 2)]}…{text[len(text) - kept // 2 :]}"
    return shown


def text_width(text: str, size: int) -> int:
    """Return how many pixels a line of text is wide."""
    return ceil(font(size).getlength(text))


@cache
def font(size: int):
    """Return the font of titles and remarks, which comes with matplotlib."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
