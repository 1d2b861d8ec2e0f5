"""Contact sheets: several pictures of one image side by side, each with its title. Arrays in, one RGB array out."""

from collections.abc import Iterable, Iterator
from functools import cache
from math import ceil, sqrt

import numpy as np

from explainer.drawing import Style, draw_boxes, paint
from explainer.explanation import Explanation

# A title and the picture under it, RGB uint8 (H, W, 3).
Titled = tuple[str, np.ndarray]

TILE_WIDTH = 360
MARGIN = 8
TITLE_HEIGHT = 22
BAR_WIDTH = 16
INK, PAPER = (30, 30, 30), 255


def detection_overlays(explanation: Explanation, style: Style) -> Iterator[Titled]:
    """Yield for each detection its title and the photograph under its own heatmap, with its box; one at a time."""
    for entry in explanation.detections:
        found = entry.detection
        picture = draw_boxes(paint(explanation.image_rgb, entry.heatmap, style), [found], style)
        yield f"{found.name} {found.confidence:.2f}, stride {found.stride}", picture


def contact_sheet(explanation: Explanation, style: Style) -> np.ndarray:
    """Return one picture of an explanation: the photograph with its boxes, the whole heatmap, then every detection's own."""
    boxes = draw_boxes(explanation.image_rgb, [entry.detection for entry in explanation.detections], style)
    overlays = detection_overlays(explanation, style)
    first = [("detections", boxes), (f"{explanation.method}, all detections", explanation.overlay(style))]
    return grid([*map(shrink, first), *map(shrink, overlays)])


def shrink(titled: Titled) -> Titled:
    """Return a picture at the width of a tile, so that the sheet of many detections stays small."""
    import cv2

    title, picture = titled
    height = max(round(picture.shape[0] * TILE_WIDTH / picture.shape[1]), 1)
    method = cv2.INTER_AREA if picture.shape[1] > TILE_WIDTH else cv2.INTER_LINEAR
    return title, cv2.resize(picture, (TILE_WIDTH, height), interpolation=method)


def grid(tiles: Iterable[Titled]) -> np.ndarray:
    """Return pictures of one size in rows and columns on white, a title over each, and the scale of the colours."""
    tiles = list(tiles)
    columns = ceil(sqrt(len(tiles)))
    height, width = tiles[0][1].shape[0] + TITLE_HEIGHT, tiles[0][1].shape[1]
    rows = ceil(len(tiles) / columns)
    shape = (MARGIN + rows * (height + MARGIN), MARGIN + columns * (width + MARGIN) + BAR_WIDTH + 4 * MARGIN, 3)
    sheet = np.full(shape, PAPER, np.uint8)
    titles = []
    for index, (title, picture) in enumerate(tiles):
        top = MARGIN + index // columns * (height + MARGIN)
        left = MARGIN + index % columns * (width + MARGIN)
        sheet[top + TITLE_HEIGHT : top + height, left : left + width] = picture
        titles.append(((left, top), shorten(title, width)))
    return write(draw_scale(sheet), titles)


def draw_scale(sheet: np.ndarray) -> np.ndarray:
    """Draw the colours from 1 at the top to 0 at the bottom along the right edge of a sheet, and return it."""
    left = sheet.shape[1] - BAR_WIDTH - 3 * MARGIN
    top, bottom = MARGIN + TITLE_HEIGHT, sheet.shape[0] - MARGIN
    values = np.linspace(1, 0, bottom - top, dtype=np.float32)[:, None].repeat(BAR_WIDTH, axis=1)
    white = np.full((*values.shape, 3), PAPER, np.uint8)
    sheet[top:bottom, left : left + BAR_WIDTH] = paint(white, values, Style())
    return write(sheet, [((left + BAR_WIDTH + 2, top), "1"), ((left + BAR_WIDTH + 2, bottom - TITLE_HEIGHT), "0")])


def write(sheet: np.ndarray, texts: list[tuple[tuple[int, int], str]]) -> np.ndarray:
    """Return the sheet with texts at their upper left corners (x, y); in letters of any alphabet that the font has."""
    from PIL import Image, ImageDraw

    page = Image.fromarray(sheet)
    draw = ImageDraw.Draw(page)
    for corner, text in texts:
        draw.text(corner, text, fill=INK, font=title_font())
    return np.asarray(page)


def shorten(title: str, width: int) -> str:
    """Return as much of a title as fits into `width` pixels."""
    while title and title_font().getlength(title) > width:
        title = title[:-1]
    return title


@cache
def title_font():
    """Return the font of titles, which comes with matplotlib."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 14)
