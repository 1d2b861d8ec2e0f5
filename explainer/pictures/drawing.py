"""What pictures are made of: the colours of a map over a photograph, boxes, and lines of text.

Arrays in, arrays out. All images are RGB, uint8 (H, W, 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from operator import attrgetter

import numpy as np

from explainer.errors import unknown

# Perceptually even ones first. All of them are known without a look at the libraries that hold them.
SELECTION = ("plasma", "inferno", "magma", "viridis", "cividis", "turbo", "jet", "hot", "bone")
EVERY_NAME = 'every name that python -c "import matplotlib; print(*matplotlib.colormaps)" prints, and OpenCV\'s'
# The dark end of a map would lie like a shadow over the photograph.
DARKEST_LEFT_OUT = 0.15
BAND_PIXELS = 2**16
RED, BLUE = (200, 20, 30), (20, 70, 190)

LINE_HEIGHT, MOST_LINES = 19, 2
INK, LIGHT_INK = (30, 30, 30), (255, 255, 255)
TITLE_SIZE, REMARK_SIZE = 14, 12


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an overlay is drawn: box line width in pixels, what labels say, whether the evidence is blanked out.

    colormap  name of a colour map, as `canonical_colormap` spells it
    alpha     opacity of the colours where the heatmap is hottest, 0..1
    """

    line_thickness: int = 3
    hide_labels: bool = False
    hide_conf: bool = False
    crop: bool = False
    colormap: str = "plasma"
    alpha: float = 0.8


def paint(image_rgb: np.ndarray, heatmap: np.ndarray, style: Style, *, has_sign: bool = False) -> np.ndarray:
    """Return the image under the colours of its heatmap, or with the evidence blanked out if the style says so.

    has_sign: the map is one in -1..1, and what is negative speaks against the score.
    """
    if style.crop:
        return blank_out(image_rgb, heatmap)
    if has_sign:
        return mix(image_rgb, heatmap, signed_tables(style.alpha), scale=127, zero=128)
    return mix(image_rgb, heatmap, heat_tables(style.colormap, style.alpha), scale=255, zero=0)


def mix(
    image_rgb: np.ndarray, values: np.ndarray, tables: tuple[np.ndarray, np.ndarray], *, scale: int, zero: int
) -> np.ndarray:
    """Return the image under the colours of a map; a value v takes entry number v * scale + zero of the tables."""
    import cv2

    colours, rest = tables
    painted = np.empty_like(image_rgb)
    # Band by band: what lies between is small enough to stay in the processor's cache.
    rows = max(BAND_PIXELS // image_rgb.shape[1], 1)
    for top in range(0, len(image_rgb), rows):
        band = slice(top, top + rows)
        steps = cv2.convertScaleAbs(values[band], alpha=scale, beta=zero)
        share = cv2.cvtColor(cv2.LUT(steps, rest), cv2.COLOR_GRAY2RGB)
        photograph = cv2.multiply(image_rgb[band], share, dst=share, scale=1 / 255)
        painted[band] = cv2.add(photograph, cv2.applyColorMap(steps, colours), dst=photograph)
    return painted


@cache
def heat_tables(colormap: str, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of a heatmap, whose values lie in 0..1; transparent at 0."""
    heat = np.linspace(0, 1, 256)
    return mixing_tables(colour_table(colormap), heat, alpha)


@cache
def signed_tables(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of a map with a sign: red for what is positive, blue for what is negative, transparent at 0."""
    values = (np.arange(256) - 128) / 127
    return mixing_tables(np.where(values[:, None] > 0, RED, BLUE), np.minimum(np.abs(values), 1), alpha)


def mixing_tables(colours: np.ndarray, heat: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what each of 256 steps adds to a pixel, RGB uint8 (256, 1, 3), and how much it leaves of it, uint8 (256,).

    Opacity rises slowly from 0 and ends at `alpha` slowly, so that the photograph stays visible where little speaks.
    """
    opacity = alpha * heat * heat * (3 - 2 * heat)
    rest = np.uint8(255 * (1 - opacity) + 0.5)
    return np.uint8(colours * opacity[:, None] + 0.5)[:, None], rest


def blank_out(image_rgb: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return the image with every pixel that the heatmap keeps replaced by the image's mean colour."""
    blanked = image_rgb.copy()
    blanked[heatmap > 0] = np.uint8(image_rgb.mean(axis=(0, 1)) + 0.5)
    return blanked


def draw_boxes(image_rgb: np.ndarray, detections: Sequence, style: Style) -> np.ndarray:
    """Return a copy of the image with the box, class and confidence of each detection, most confident on top.

    Each detection has `xyxy` in image pixels, `caption`, `class_index` and `confidence`; the most confident comes first.
    The boxes of those that were not found by the model (`was_found`) are dashed.
    """
    from utils.plots import Annotator, colors

    captions = list(map(attrgetter("caption"), detections))
    were_found = list(map(attrgetter("was_found"), detections))
    annotator = Annotator(image_rgb.copy(), line_width=style.line_thickness, example=" ".join(captions) or "abc")
    for found, caption in reversed(list(zip(detections, captions, strict=True))):
        text = caption if style.hide_conf else f"{caption} {found.confidence:.2f}"
        annotator.box_label(found.xyxy.tolist(), "" if style.hide_labels else text, color=colors(found.class_index))
    picture = np.array(annotator.result())
    for found, was_found in zip(detections, were_found, strict=True):
        if not was_found:
            dash(picture, found.xyxy, annotator.lw)
    return picture


def dash(picture_rgb: np.ndarray, xyxy: np.ndarray, thickness: int) -> None:
    """Draw white dashes into a picture, along the edges of a box in its pixels."""
    import cv2

    x1, y1, x2, y2 = np.rint(xyxy).astype(int).tolist()
    length = max(4 * thickness, 6)
    for x in range(x1, x2, 2 * length):
        for y in (y1, y2):
            cv2.line(picture_rgb, (x, y), (min(x + length, x2), y), (255, 255, 255), thickness)
    for y in range(y1, y2, 2 * length):
        for x in (x1, x2):
            cv2.line(picture_rgb, (x, y), (x, min(y + length, y2)), (255, 255, 255), thickness)


def canonical_colormap(name: str) -> str:
    """Return a colour map's name as its library spells it; UsageError for an unknown one."""
    asked = str(name).strip().lower().removeprefix("colormap_")
    if asked in SELECTION:
        return asked
    spellings = {known.lower(): known for known in (*matplotlib_names(), *opencv_names())}
    if asked not in spellings:
        raise unknown("colour map", name, SELECTION, f"and {EVERY_NAME}; not case-sensitive")
    return spellings[asked]


def opencv_names() -> dict[str, int]:
    """Return OpenCV's colour maps: their numbers by name, in lower case."""
    import cv2

    prefix = "COLORMAP_"
    return {name.removeprefix(prefix).lower(): getattr(cv2, name) for name in dir(cv2) if name.startswith(prefix)}


def matplotlib_names() -> list[str]:
    """Return the names of matplotlib's colour maps."""
    import matplotlib

    return list(matplotlib.colormaps)


@cache
def colour_table(name: str) -> np.ndarray:
    """Return the colours of a map, RGB uint8 (256, 3), given its canonical name; the first ones are left out."""
    import cv2

    positions = np.linspace(DARKEST_LEFT_OUT, 1, 256)
    numbers = opencv_names()
    if name in numbers:
        steps = np.uint8(positions * 255 + 0.5)[:, None]
        return np.ascontiguousarray(cv2.applyColorMap(steps, numbers[name])[:, 0, ::-1])
    import matplotlib

    return matplotlib.colormaps[name](positions, bytes=True)[:, :3].copy()


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
