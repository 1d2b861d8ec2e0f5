"""What an answer looks like: its maps and boxes over the photograph, alone or as small pictures on a sheet.

An explanation here is an `Explanation` and a comparison a `Comparison`, of which nothing but the values is asked for.
All pictures are RGB, uint8 (H, W, 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from explainer.files.results import as_png
from explainer.pictures.drawing import Style, draw_boxes, paint
from explainer.pictures.sheets import PAPER, Miniature, Tile, colour_bar, resized, sheet

# An image so many times wider than high stands best below its like.
BANNER = 4
# Height and width of the tile of a single detection, whatever the shape of its image.
TILE_SIDE = 330


def explanation_overlay(explanation, style: Style, class_name: str | None = None) -> np.ndarray:
    """Return the photograph under its heatmap with the explained boxes; of one class alone, if it is named."""
    detections, shown = detections_of(explanation), explanation.shown
    if class_name is not None:
        detections = [found for found in detections if found.name == class_name]
        shown = explanation.per_class[class_name]
    painted = paint(explanation.image_rgb, shown, style, has_sign=explanation.has_sign)
    return draw_boxes(painted, detections, style)


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
    """Return small pictures on one sheet: the photograph with boxes, the whole heatmap, then each detection's own."""
    found = detections_of(explanation)
    small = Miniature(explanation.image_rgb, len(found) + 2, style, explanation.has_sign)
    title, remark = f"{explanation.method}, all detections", "; ".join(explanation.notes)
    tiles = [small.with_boxes("detections", found), small.with_map(title, explanation.shown, found, remark)]
    tiles += [
        small.with_map(entry.title, entry.shown_at(small.size), [entry.detection], entry.note)
        for entry in explanation.detections
    ]
    return sheet(tiles, bar=small.bar)


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
    style = Style(line_thickness=2, hide_labels=True)
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
