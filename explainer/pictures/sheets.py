"""Sheets: small pictures side by side, each with its title, of one image or of several. Arrays in, one RGB array out.

What an answer looks like on them: an explanation here is an `Explanation` and a comparison a `Comparison`, of which nothing
but the values is asked for. All pictures are RGB, uint8 (H, W, 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log, sqrt

import numpy as np

from explainer.detectors.predictions import confidence_text
from explainer.files.results import as_png
from explainer.pictures.drawing import Style, caption, draw_boxes, paint
from explainer.pictures.lettering import (
    INK,
    LIGHT_INK,
    LINE_HEIGHT,
    PAPER,
    REMARK_SIZE,
    TITLE_SIZE,
    Line,
    stacked,
    text_width,
    wrapped,
    write,
)

TILE_PIXELS, LONGEST_SIDE = 100_000, 2000
# The pictures of a whole sheet take no more pixels together, however many there are.
SHEET_PIXELS = 16_000_000
NARROWEST_CELL = 200
# A title counts the layers where there are more.
MOST_NAMES = 2
WIDE_AS_HIGH = 1.5
MARGIN = 8
BAR_WIDTH, LOWEST_BAR, HIGHEST_BAR = 16, 60, 300
# An image so many times wider than high stands best below its like.
BANNER = 4
# Height and width of the tile of a single detection, whatever the shape of its image.
TILE_SIDE = 330


@dataclass(frozen=True)
class Tile:
    """A picture, RGB uint8 (h, w, 3), the title over it, of one line or more, and what must be said in the picture."""

    title: str
    picture_rgb: np.ndarray
    remark: str = ""


class Miniature:
    """An image at the size of its tiles on a sheet of `count`, where maps and boxes of the original are drawn on it.

    size   height and width of the tiles
    bar    the colours of the maps from high to low, for `sheet`; None where the style has none
    """

    def __init__(self, image_rgb: np.ndarray, count: int, style: Style, has_sign: bool = False):
        self.size = tile_size(image_rgb.shape[:2], count)
        self.image_rgb = resized(image_rgb, self.size)
        self.has_sign, self.style = has_sign, replace(style, line_thickness="auto")
        height, width = image_rgb.shape[:2]
        self._shrinkage = np.float32([self.size[1] / width, self.size[0] / height] * 2)
        self.bar = None if style.crop else colour_bar(style, has_sign)

    def with_boxes(self, title: str, detections: Sequence) -> Tile:
        """Return the small image with boxes, given in pixels of the original, and their labels."""
        return Tile(title, draw_boxes(self.image_rgb, self._shrunk(detections), self.style))

    def with_map(self, title: str, shown: np.ndarray, detections: Sequence, remark: str) -> Tile:
        """Return the small image under a map (h, w) of any size, with boxes; with the remark where the map is empty."""
        painted = paint(self.image_rgb, resized(shown, self.size), self.style, has_sign=self.has_sign)
        style = replace(self.style, hide_labels=True)
        return Tile(title, draw_boxes(painted, self._shrunk(detections), style), "" if shown.any() else remark)

    def _shrunk(self, detections: Sequence) -> list:
        """Return detections with their boxes in pixels of the small image."""
        return [replace(found, xyxy=found.xyxy * self._shrinkage) for found in detections]


def tile_size(image_size: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the height and width of each of `count` tiles: the shape of the image (height, width), and a like area."""
    height, width = image_size
    pixels = min(TILE_PIXELS, SHEET_PIXELS / count)
    # A narrow picture takes the place of a wider one, for its title.
    highest = SHEET_PIXELS / count / NARROWEST_CELL
    scale = min(sqrt(pixels / (height * width)), LONGEST_SIDE / max(height, width), highest / height)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image or a map at another size (height, width)."""
    import cv2

    if array.shape[:2] == size:
        return array
    smaller = array.shape[0] > size[0]
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Layout:
    """Where things lie on a sheet, in pixels.

    columns  how many tiles are in a row, of `rows` rows
    tile     height and width of the pictures
    cell     width of a column; a picture can be narrower than its title
    heading  height of the title over a picture
    bar      height of the colour bar, 0 for none, and `bar_text` the width of what is written beside it
    """

    columns: int
    rows: int
    tile: tuple[int, int]
    cell: int
    heading: int
    bar: int
    bar_text: int

    def corner(self, index: int) -> tuple[int, int]:
        """Return the left and the top edge of a tile with its texts."""
        row, column = divmod(index, self.columns)
        return MARGIN + column * (self.cell + MARGIN), MARGIN + row * (self.heading + self.tile[0] + MARGIN)

    @property
    def bar_corner(self) -> tuple[int, int]:
        """Left and top edge of the colour bar."""
        return self.corner(self.columns - 1)[0] + self.cell + 2 * MARGIN, MARGIN + self.heading

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sheet: even numbers, as videos need them."""
        last_row = self.corner(self.columns * (self.rows - 1))[1]
        left, top = self.bar_corner
        height = max(last_row + self.heading + self.tile[0], top + self.bar) + MARGIN
        width = left + (BAR_WIDTH + 4 + self.bar_text + MARGIN if self.bar else -MARGIN)
        return height + height % 2, width + width % 2


def sheet(tiles: Sequence[Tile | None], *, bar: "ColourBar | None" = None, columns: int | None = None) -> np.ndarray:
    """Return tiles of one size in rows on white, RGB uint8 (H, W, 3); None leaves a place empty.

    bar: that of the tiles' colours, drawn beside them.
    columns: how many in a row; by default so many that the sheet is somewhat wider than high.
    """
    height, width = next(tile.picture_rgb.shape[:2] for tile in tiles if tile)
    cell = max(width, NARROWEST_CELL)
    titles = [title_lines(tile, cell) if tile else [] for tile in tiles]
    heading = LINE_HEIGHT * max(map(len, titles))
    columns = columns or best_columns(len(tiles), cell, heading + height)
    bar_height = min(max(height, LOWEST_BAR), HIGHEST_BAR) if bar else 0
    bar_text = max(text_width(end, TITLE_SIZE) for end in (bar.high, bar.low)) if bar else 0
    layout = Layout(columns, ceil(len(tiles) / columns), (height, width), cell, heading, bar_height, bar_text)
    page, written = np.full((*layout.size, 3), PAPER, np.uint8), []
    for index, (tile, lines) in enumerate(zip(tiles, titles, strict=True)):
        left, top = layout.corner(index)
        written += stacked(lines, left, top)
        if tile:
            page[top + heading : top + heading + height, left : left + width] = tile.picture_rgb
            written += stacked(remark_lines(tile, cell), left, top + heading)
    write(page, written + (draw_colour_bar(page, layout, bar) if bar else []))
    return page


def best_columns(count: int, width: int, height: int) -> int:
    """Return how many of `count` cells to put in a row, so that the shape is pleasant and few places stay empty."""

    def awkwardness(columns: int) -> float:
        rows = ceil(count / columns)
        empty = rows * columns - count
        return abs(log(columns * width / (rows * height) / WIDE_AS_HIGH)) + empty / count

    return min(range(1, count + 1), key=awkwardness)


@dataclass(frozen=True)
class ColourBar:
    """The colours of a map from high to low, RGB uint8 (h, w, 3), and what its two ends mean."""

    colours_rgb: np.ndarray
    high: str
    low: str


def colour_bar(style: Style, has_sign: bool) -> ColourBar:
    """Return the colours of heatmaps from 1 to 0, or of maps with a sign from 1 to -1, as they look over white."""
    heat = np.linspace(1, -1 if has_sign else 0, HIGHEST_BAR, dtype=np.float32)[:, None].repeat(BAR_WIDTH, axis=1)
    white = np.full((*heat.shape, 3), PAPER, np.uint8)
    high, low = ("for", "against") if has_sign else ("1", "0")
    return ColourBar(paint(white, heat, style, has_sign=has_sign), high, low)


def draw_colour_bar(page: np.ndarray, layout: Layout, bar: ColourBar) -> list[Line]:
    """Draw the colours beside the tiles, and return what to write at their ends."""
    left, top = layout.bar_corner
    bottom, right = top + layout.bar, left + BAR_WIDTH
    page[top:bottom, left:right] = resized(bar.colours_rgb, (layout.bar, BAR_WIDTH))
    return [Line(bar.high, left=right + 4, top=top), Line(bar.low, left=right + 4, top=bottom - LINE_HEIGHT)]


def title_lines(tile: Tile, width: int) -> list[Line]:
    """Return the title of a tile as lines that are no wider than `width` pixels."""
    return [Line(text) for line in tile.title.splitlines() for text in wrapped(line, width, TITLE_SIZE)]


def remark_lines(tile: Tile, width: int) -> list[Line]:
    """Return the remark of a tile as light lines on dark, which can be read on any picture."""
    return [Line(text, size=REMARK_SIZE, ink=LIGHT_INK, paper=INK) for text in wrapped(tile.remark, width, REMARK_SIZE)]


def detection_overlay(explanation, index: int, style: Style) -> np.ndarray:
    """Return the photograph under the heatmap of one detection, with its box."""
    image_rgb, entry = explanation.image_rgb, explanation.detections[index]
    painted = paint(image_rgb, entry.shown_at(image_rgb.shape[:2]), style, has_sign=entry.has_sign)
    return draw_boxes(painted, [entry.detection], style)


@dataclass(frozen=True)
class Overlays(Sequence):
    """The overlays of an explanation's detections, RGB uint8 (H, W, 3). One exists only while it is looked at."""

    explanation: object
    style: Style

    def __len__(self) -> int:
        return len(self.explanation.detections)

    def __getitem__(self, index: int) -> np.ndarray:
        return detection_overlay(self.explanation, index, self.style)

    def _repr_png_(self) -> bytes:
        """Return the contact sheet as a notebook shows it."""
        return as_png(contact_sheet(self.explanation, self.style))


def contact_sheet(explanation, style: Style) -> np.ndarray:
    """Return small pictures on one sheet: the photograph with boxes, the whole heatmap, then each detection's own.

    A single detection's own heatmap is the whole one, which is then shown once.
    """
    found, alone = detections_of(explanation), len(explanation.detections) == 1
    small = Miniature(explanation.image_rgb, len(found) + 2 - alone, style, explanation.has_sign)
    tiles, remarks = [small.with_boxes("detections", found)], "; ".join(explanation.notes)
    if not alone:
        title = f"{explanation.method}, all detections"
        tiles.append(small.with_map(title, explanation.shown, found, remarks))
    for entry in explanation.detections:
        title = detection_title(entry.detection, entry.layers, entry.energy_in_box)
        heading, remark = (f"{explanation.method}, ", entry.note or remarks) if alone else ("", entry.note)
        tiles.append(small.with_map(heading + title, entry.shown_at(small.size), [entry.detection], remark))
    return sheet(tiles, bar=small.bar)


def detection_title(found, layers: Sequence[str] = (), energy: float | None = None) -> str:
    """Return what is said of a detection, such as "dog 0.87, stride 32, model.23, 76 % in box".

    layers: the names of those that its map was read from; energy: the share of its heatmap in its box, where there is one.
    """
    parts = [f"{caption(found)} {confidence_text(found)}", f"stride {found.stride or 'unknown'}"]
    parts += [f"{len(layers)} layers" if len(layers) > MOST_NAMES else " ".join(layers)] if layers else []
    return ", ".join(parts + ([] if energy is None else [f"{100 * energy:.0f} % in box"]))


def scales_sheet(explanation, style: Style) -> np.ndarray:
    """Return small pictures in a row: the photograph with boxes, then the map of what comes from each stride."""
    small = Miniature(explanation.image_rgb, len(explanation.per_scale) + 1, style, explanation.has_sign)
    tiles = [small.with_boxes("all scales", detections_of(explanation))]
    for stride, shown in explanation.per_scale.items():
        here = [entry for entry in explanation.detections if entry.detection.stride == stride]
        title, boxes = f"stride {stride}: {explanation.what_is_at(stride)}", [entry.detection for entry in here]
        remarks = dict.fromkeys(entry.note for entry in here if entry.note)
        tiles.append(small.with_map(title, shown, boxes, "; ".join(remarks)))
    return sheet(tiles, columns=len(tiles), bar=small.bar)


def comparison_sheet(comparison, style: Style) -> np.ndarray:
    """Return the photograph with its boxes and the answers of a comparison, each with its title, side by side.

    The models stand side by side; methods beside each other, or below each other if there are several layers of each.
    The size depends on that of the image and the number of answers alone, so that pictures make a video.
    """
    answers = comparison.explanations
    small = Miniature(comparison.image_rgb, len(answers) + len(comparison.by_model), style, answers[0].has_sign)
    columns = [list(model_tiles(entries, small)) for entries in comparison.by_model]
    if len(columns) > 1:
        tiles = [tile for row in zip(*columns, strict=True) for tile in row]
        return sheet(tiles, bar=small.bar, columns=len(columns))
    (photograph, *tiles), layers = columns[0], comparison.layers
    height, width = small.size
    if layers in (1, len(tiles)) or width > BANNER * height:
        return sheet([photograph, *tiles], bar=small.bar)
    rows = [tiles[start : start + layers] for start in range(0, len(tiles), layers)]
    places = [tile for number, row in enumerate(rows) for tile in (None if number else photograph, *row)]
    return sheet(places, bar=small.bar, columns=1 + layers)


def model_tiles(answers: Mapping[str, object], small: Miniature) -> Iterator[Tile]:
    """Yield the photograph with the boxes of one model, and its answers, which are given by title."""
    first = next(iter(answers.values()))
    found, heading = detections_of(first), f"{first.model}\n" if first.model else ""
    yield small.with_boxes(f"{heading}detections", found)
    for title, answer in answers.items():
        yield small.with_map(heading + title, answer.shown, found, "; ".join(answer.notes))


def detections_of(explanation) -> list:
    """Return the detections that an explanation is about."""
    return [entry.detection for entry in explanation.detections]


def detection_tile(image_rgb: np.ndarray, heatmap: np.ndarray, detection, title: str) -> Tile:
    """Return one detection, the image under its heatmap with its box, as large as fits into a square.

    detection: it has what `draw_boxes` asks for, and is a dataclass.
    """
    scale = TILE_SIDE / max(image_rgb.shape[:2])
    size = tuple(max(round(side * scale), 1) for side in image_rgb.shape[:2])
    style = Style(hide_labels=True)
    painted = paint(resized(image_rgb, size), np.clip(resized(heatmap, size), 0, 1), style)
    boxed = draw_boxes(painted, [replace(detection, xyxy=detection.xyxy * np.float32(scale))], style)
    return Tile(title, in_a_square(boxed))


def in_a_square(picture_rgb: np.ndarray) -> np.ndarray:
    """Return a picture in the upper left corner of a white tile."""
    height, width = picture_rgb.shape[:2]
    tile = np.full((TILE_SIDE, TILE_SIDE, 3), PAPER, np.uint8)
    tile[:height, :width] = picture_rgb
    return tile


def tile_sheet(tiles: Sequence[Tile], columns: int | None = None) -> np.ndarray:
    """Return tiles in rows on white, beside the bar of their colours, RGB uint8 (H, W, 3)."""
    return sheet(tiles, bar=colour_bar(Style(), has_sign=False), columns=columns)
