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
from explainer.pictures.drawing import Style, caption, draw_boxes, magnitude_at, paint, tone_curve
from explainer.pictures.lettering import (
    INK,
    LIGHT_INK,
    LINE_HEIGHT,
    PAPER,
    REMARK_SIZE,
    TITLE_SIZE,
    Line,
    stacked,
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
BAR_WIDTH, LOWEST_BAR, HIGHEST_BAR, GAP = 12, 60, 300, 4
# No tick of a bar is wider.
TICK_WIDTH = 55
BAR_ROOM = GAP + BAR_WIDTH + GAP + TICK_WIDTH
# Of a pixel of a small mask.
HALF = 0.5
# An image so many times wider than high stands best below its like.
BANNER = 4
# Height and width of the tile of a single detection, whatever the shape of its image.
TILE_SIDE = 330


@dataclass(frozen=True)
class Tile:
    """A picture, RGB uint8 (h, w, 3), the title over it, of one line or more, and what must be said in the picture.

    bar: what the colours of its map mean, drawn beside it.
    """

    title: str
    picture_rgb: np.ndarray
    remark: str = ""
    bar: "ColourBar | None" = None


class Miniature:
    """An image at the size (height, width) of the tiles of a sheet; maps and boxes of the original are drawn on it."""

    def __init__(self, image_rgb: np.ndarray, size: tuple[int, int], style: Style, has_sign: bool = False):
        self.size, self.image_rgb = size, resized(image_rgb, size)
        self.has_sign, self.style = has_sign, replace(style, line_thickness="auto")
        height, width = image_rgb.shape[:2]
        self._shrinkage = np.float32([size[1] / width, size[0] / height] * 2)

    def with_boxes(self, title: str, detections: Sequence) -> Tile:
        """Return the small image with boxes, given in pixels of the original, and their labels."""
        return Tile(title, draw_boxes(self.image_rgb, self._shrunk(detections), self.style))

    def with_map(self, title: str, shown: np.ndarray, detections: Sequence, remark: str) -> Tile:
        """Return the small image under a map (h, w) of any size, with boxes; with the remark where the map is empty."""
        shown, found = resized(shown, self.size), self._shrunk(detections)
        boxes = [entry.xyxy for entry in found]
        painted = paint(self.image_rgb, shown, self.style, boxes=boxes, has_sign=self.has_sign)
        picture = draw_boxes(painted, found, replace(self.style, hide_labels=True))
        if not shown.any():
            return Tile(title, picture, remark)
        curve = tone_curve(shown, self.style.tone, boxes)
        return Tile(title, picture, bar=None if self.style.crop else colour_bar(self.style, curve, self.has_sign))

    def _shrunk(self, detections: Sequence) -> list:
        """Return detections with their boxes and masks in pixels of the small image."""
        return [
            replace(found, xyxy=found.xyxy * self._shrinkage, mask=self._shrunk_mask(found.mask))
            for found in detections
        ]

    def _shrunk_mask(self, mask: np.ndarray | None) -> np.ndarray | None:
        """Return a mask in pixels of the small image, if there is one: those that it covers half of."""
        return None if mask is None else resized(np.float32(mask), self.size) >= HALF


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
    height   that of the pictures, or of the colour bars beside them where those are higher
    cell     width of a column: of a picture with its bar, or of its title where that is wider
    heading  height of the title over a picture
    """

    columns: int
    rows: int
    height: int
    cell: int
    heading: int

    def corner(self, index: int) -> tuple[int, int]:
        """Return the left and the top edge of a tile with its texts."""
        row, column = divmod(index, self.columns)
        return MARGIN + column * (self.cell + MARGIN), MARGIN + row * (self.heading + self.height + MARGIN)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sheet: even numbers, as videos need them."""
        left, top = self.corner(self.columns * self.rows - 1)
        height, width = top + self.heading + self.height + MARGIN, left + self.cell + MARGIN
        return height + height % 2, width + width % 2


def sheet(tiles: Sequence[Tile | None], columns: int | None = None) -> np.ndarray:
    """Return tiles of one size in rows on white, RGB uint8 (H, W, 3); None leaves a place empty.

    columns: how many in a row; by default so many that the sheet is somewhat wider than high.
    """
    there = [tile for tile in tiles if tile]
    height, width = there[0].picture_rgb.shape[:2]
    if any(tile.bar for tile in there):
        height, width = max(height, LOWEST_BAR), width + BAR_ROOM
    cell = max(width, NARROWEST_CELL)
    titles = [title_lines(tile, cell) if tile else [] for tile in tiles]
    heading = LINE_HEIGHT * max(map(len, titles))
    columns = columns or best_columns(len(tiles), cell, heading + height)
    layout = Layout(columns, ceil(len(tiles) / columns), height, cell, heading)
    page, written = np.full((*layout.size, 3), PAPER, np.uint8), []
    for index, (tile, lines) in enumerate(zip(tiles, titles, strict=True)):
        left, top = layout.corner(index)
        written += stacked(lines, left, top)
        if tile:
            written += draw_tile(page, tile, left, top + heading)
    write(page, written)
    return page


def draw_tile(page: np.ndarray, tile: Tile, left: int, top: int) -> list[Line]:
    """Draw a tile without its title into a page, and return what is to be written: its remark, the ticks of its bar."""
    height, width = tile.picture_rgb.shape[:2]
    page[top : top + height, left : left + width] = tile.picture_rgb
    if tile.bar is None:
        return stacked(remark_lines(tile, max(width, NARROWEST_CELL)), left, top)
    start, long = left + width + GAP, min(max(height, LOWEST_BAR), HIGHEST_BAR)
    page[top : top + long, start : start + BAR_WIDTH] = resized(tile.bar.colours_rgb, (long, BAR_WIDTH))
    ticks = tile.bar.ticks if long >= 2 * LINE_HEIGHT * len(tile.bar.ticks) else (tile.bar.ticks[0], tile.bar.ticks[-1])
    tops = np.linspace(top, top + long - LINE_HEIGHT, len(ticks)).round().astype(int).tolist()
    return [Line(text, left=start + BAR_WIDTH + GAP, top=at) for text, at in zip(ticks, tops, strict=True)]


def best_columns(count: int, width: int, height: int) -> int:
    """Return how many of `count` cells to put in a row, so that the shape is pleasant and few places stay empty."""

    def awkwardness(columns: int) -> float:
        rows = ceil(count / columns)
        empty = rows * columns - count
        return abs(log(columns * width / (rows * height) / WIDE_AS_HIGH)) + empty / count

    return min(range(1, count + 1), key=awkwardness)


@dataclass(frozen=True)
class ColourBar:
    """The colours of a map from the hottest to the coldest, RGB uint8 (h, w, 3), and at even distances what they mean."""

    colours_rgb: np.ndarray
    ticks: tuple[str, ...]


def colour_bar(style: Style, curve: np.ndarray, has_sign: bool = False) -> ColourBar:
    """Return what colours look like over white, and the values of the map that they stand for by its `tone_curve`."""
    heat = np.linspace(1, -1 if has_sign else 0, HIGHEST_BAR, dtype=np.float32)[:, None].repeat(BAR_WIDTH, axis=1)
    white = np.full((*heat.shape, 3), PAPER, np.uint8)
    colours = paint(white, heat, replace(style, tone="linear"), has_sign=has_sign)
    if has_sign:
        half = f"{magnitude_at(curve, 1 / 2):.2g}"
        return ColourBar(colours, ("for", half, "0", f"-{half}", "against"))
    return ColourBar(colours, tuple(f"{magnitude_at(curve, tick):.2g}" for tick in (1, 2 / 3, 1 / 3, 0)))


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
    size = tile_size(explanation.image_rgb.shape[:2], len(found) + 2 - alone)
    small = Miniature(explanation.image_rgb, size, style, explanation.has_sign)
    tiles, remarks = [small.with_boxes("detections", found)], "; ".join(explanation.notes)
    if not alone:
        title = f"{explanation.method}, all detections"
        tiles.append(small.with_map(title, explanation.shown, found, remarks))
    for entry in explanation.detections:
        title = detection_title(entry.detection, entry.layers, entry.energy_in_box)
        heading, remark = (f"{explanation.method}, ", entry.note or remarks) if alone else ("", entry.note)
        tiles.append(small.with_map(heading + title, entry.shown_at(small.size), [entry.detection], remark))
    return sheet(tiles)


def detection_title(found, layers: Sequence[str] = (), energy: float | None = None) -> str:
    """Return what is said of a detection, such as "dog 0.87, stride 32, model.23, 76 % in box".

    layers: the names of those that its map was read from; energy: the share of its heatmap in its box, where there is one.
    """
    parts = [f"{caption(found)} {confidence_text(found)}", f"stride {found.stride or 'unknown'}"]
    parts += [f"{len(layers)} layers" if len(layers) > MOST_NAMES else " ".join(layers)] if layers else []
    return ", ".join(parts + ([] if energy is None else [f"{100 * energy:.0f} % in box"]))


def scales_sheet(explanation, style: Style) -> np.ndarray:
    """Return small pictures in a row: the photograph with boxes, then the map of what comes from each stride."""
    size = tile_size(explanation.image_rgb.shape[:2], len(explanation.per_scale) + 1)
    small = Miniature(explanation.image_rgb, size, style, explanation.has_sign)
    tiles = [small.with_boxes("all scales", detections_of(explanation))]
    for stride, shown in explanation.per_scale.items():
        here = [entry for entry in explanation.detections if entry.detection.stride == stride]
        title, boxes = f"stride {stride}: {explanation.what_is_at(stride)}", [entry.detection for entry in here]
        remarks = dict.fromkeys(entry.note for entry in here if entry.note)
        tiles.append(small.with_map(title, shown, boxes, "; ".join(remarks)))
    return sheet(tiles, columns=len(tiles))


def comparison_sheet(comparison, style: Style) -> np.ndarray:
    """Return the photograph with its boxes and the answers of a comparison, each with its title, side by side.

    The models stand side by side; methods beside each other, or below each other if there are several layers of each.
    The size depends on that of the image and the number of answers alone, so that pictures make a video.
    """
    answers = comparison.explanations
    size = tile_size(comparison.image_rgb.shape[:2], len(answers) + len(comparison.by_model))
    small = Miniature(comparison.image_rgb, size, style, answers[0].has_sign)
    columns = [list(model_tiles(entries, small)) for entries in comparison.by_model]
    if len(columns) > 1:
        tiles = [tile for row in zip(*columns, strict=True) for tile in row]
        return sheet(tiles, columns=len(columns))
    (photograph, *tiles), layers = columns[0], comparison.layers
    height, width = size
    if layers in (1, len(tiles)) or width > BANNER * height:
        return sheet([photograph, *tiles])
    rows = [tiles[start : start + layers] for start in range(0, len(tiles), layers)]
    places = [tile for number, row in enumerate(rows) for tile in (None if number else photograph, *row)]
    return sheet(places, columns=1 + layers)


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
    height, width = (max(round(side * scale), 1) for side in image_rgb.shape[:2])
    tile = Miniature(image_rgb, (height, width), Style()).with_map(title, heatmap, [detection], "")
    return replace(tile, picture_rgb=in_a_square(tile.picture_rgb))


def in_a_square(picture_rgb: np.ndarray) -> np.ndarray:
    """Return a picture in the upper left corner of a white tile."""
    height, width = picture_rgb.shape[:2]
    tile = np.full((TILE_SIDE, TILE_SIDE, 3), PAPER, np.uint8)
    tile[:height, :width] = picture_rgb
    return tile
