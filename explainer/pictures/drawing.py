"""What pictures are made of: the colours of a map over a photograph, and boxes with their labels.

Arrays in, arrays out. All images are RGB, uint8 (H, W, 3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt

import numpy as np

from explainer.detectors.predictions import MISS, NEAR_MISS, NOT_FOUND, confidence_text
from explainer.errors import unknown
from explainer.maps.heatmaps import pixels_in_box
from explainer.pictures.lettering import Colour, contrasting, label_plate

# Perceptually even ones first. All of them are known without a look at the libraries that hold them.
SELECTION = ("plasma", "inferno", "magma", "viridis", "cividis", "turbo", "jet", "hot", "bone")
EVERY_NAME = 'every name that python -c "import matplotlib; print(*matplotlib.colormaps)" prints, and OpenCV\'s'
# The dark end of a map would lie like a shadow over the photograph.
DARKEST_LEFT_OUT = 0.15
BAND_PIXELS, COUNTED_PIXELS = 2**16, 2**16
# The share of the evidence that is not painted, where it is coldest.
REST = 0.15
# From this heat on colours are seen; so much of each box shows some, unless more of the whole picture had to.
SEEN, SEEN_OF_BOX, MOST_PAINTED = 0.4, 0.05, 3 / 4
EVIDENCE = "evidence"
RED, BLUE = (200, 20, 30), (20, 70, 190)

# Lines are a pixel wide for so many pixels of the mean side of a picture; letters in pixels start at some and grow as well.
SIDE_PER_LINE, THICKEST_LINE = 400, 8
LETTERS_AT_LEAST, SIDE_PER_LETTER, SMALLEST_LETTERS = 6, 80, 9
SHARE_OF_LABELS = 1 / 8


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an overlay is drawn: line width of boxes, what labels say, whether the evidence is blanked out.

    line_thickness  in pixels; "auto" (or 0) goes by the picture's size
    colormap        name of a colour map, as `canonical_colormap` spells it
    alpha           opacity of the colours where the heatmap is hottest, 0..1
    tone            what of a map the colours follow: one of TONES
    """

    line_thickness: int | str = "auto"
    hide_labels: bool = False
    hide_conf: bool = False
    crop: bool = False
    colormap: str = "plasma"
    alpha: float = 0.8
    tone: str = EVIDENCE


def paint(
    image_rgb: np.ndarray, heatmap: np.ndarray, style: Style, *, boxes: Sequence = (), has_sign: bool = False
) -> np.ndarray:
    """Return the image under the colours of its heatmap, or with the evidence blanked out if the style says so.

    boxes: those of what the map explains, (x1, y1, x2, y2) in pixels; the tone "evidence" sees to it that each shows some.
    has_sign: the map is one in -1..1, and what is negative speaks against the score.
    """
    if style.crop:
        return blank_out(image_rgb, heatmap)
    curve = tone_curve(heatmap, style.tone, boxes)
    if has_sign:
        return mix(image_rgb, heatmap, signed_tables(curve, style.alpha), scale=127, zero=128)
    return mix(image_rgb, heatmap, heat_tables(style.colormap, curve, style.alpha), scale=255, zero=0)


def tone_curve(heatmap: np.ndarray, tone: str, boxes: Sequence = ()) -> np.ndarray:
    """Return how hot the magnitudes 0, 1/255 .. 1 look in a map (H, W) by one of TONES: float (256,), 0..1, which rises.

    boxes: as for `paint`. UsageError for an unknown tone.
    """
    if tone not in TONES:
        raise unknown("tone", tone, TONES)
    return TONES[tone](heatmap, [heatmap[pixels_in_box(xyxy, heatmap.shape)] for xyxy in boxes])


def linear(heatmap: np.ndarray, insides: Sequence[np.ndarray]) -> np.ndarray:
    """Return the curve by which magnitudes look as they are."""
    return MAGNITUDES


def root(heatmap: np.ndarray, insides: Sequence[np.ndarray]) -> np.ndarray:
    """Return the curve by which the roots of magnitudes are shown."""
    return np.sqrt(MAGNITUDES)


def share_of_evidence(heatmap: np.ndarray, insides: Sequence[np.ndarray]) -> np.ndarray:
    """Return the curve by which a magnitude looks as hot as the share of the map's sum is that lies where there is less.

    So colours say how much of the evidence lies where it is as hot or hotter, whether the map is sharp or flat. The coldest
    pixels, which have REST of the sum together, get 0: in a flat map they are half of the picture. Where the inside of a box
    would then show nothing, all get a brighter look, as a photograph in the dark does, but no more than MOST_PAINTED of the
    picture is lifted into sight.
    """
    counts = magnitude_counts(heatmap)
    held = counts * MAGNITUDES
    below = np.cumsum(held) - held / 2
    highest = below[counts > 0].max(initial=0)
    if highest == 0:
        return MAGNITUDES
    share = (below / highest).clip(0, 1)
    heat = ((share - REST) / (1 - REST)).clip(0, 1)
    wanted = [level_reached(magnitude_counts(inside), SEEN_OF_BOX) for inside in insides]
    dimmest = min(filter(None, wanted), default=255)
    level = max(dimmest, level_reached(counts, MOST_PAINTED))
    if heat[level] >= SEEN or not 0 < share[level] < 1:
        return heat
    return share ** (np.log(SEEN) / np.log(share[level]))


def magnitude_counts(heatmap: np.ndarray) -> np.ndarray:
    """Return how often each magnitude 0, 1/255 .. 1 occurs in a map, of a large one every few pixels: float (256,)."""
    import cv2

    if not heatmap.size:
        return np.zeros(256)
    stride = max(round(sqrt(heatmap.size / COUNTED_PIXELS)), 1)
    levels = cv2.convertScaleAbs(np.ascontiguousarray(heatmap[::stride, ::stride]), alpha=255)
    return cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel().astype(float)


def level_reached(counts: np.ndarray, part: float) -> int:
    """Return the highest of 256 levels that a part of all counts, 0..1, lies at or above."""
    reached = np.cumsum(counts[::-1])
    return 255 - int(np.searchsorted(reached, part * reached[-1])) if reached[-1] else 0


MAGNITUDES = np.linspace(0, 1, 256)
# From a map and what lies in its boxes to the curve of `tone_curve`.
TONES = {EVIDENCE: share_of_evidence, "root": root, "linear": linear}


def magnitude_at(curve: np.ndarray, heat: float) -> float:
    """Return the largest magnitude, 0..1, that looks no hotter than a heat by a curve."""
    return float(MAGNITUDES[curve <= heat + 1e-6].max(initial=0))


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


def heat_tables(colormap: str, curve: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of a heatmap, whose values lie in 0..1; transparent where the curve is 0."""
    return mixing_tables(colour_table(colormap)[np.uint8(curve * 255 + 0.5)], curve, alpha)


def signed_tables(curve: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of a map with a sign: red for what is positive, blue for what is negative."""
    values = (np.arange(256) - 128) / 127
    heat = curve[np.uint8(np.minimum(np.abs(values), 1) * 255 + 0.5)]
    return mixing_tables(np.where(values[:, None] > 0, RED, BLUE), heat, alpha)


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
    """Return a copy of the image with the box, mask, class and confidence of each detection, most confident on top.

    Each detection has `xyxy` in image pixels, `name`, `class_index`, `confidence`, `outcome` and `mask`, which may be None;
    the most confident comes first. Lines lie around a box or a mask, so that its inside stays whole. A box that the model
    did not find is dashed: the colour of its class and one that contrasts with it take turns, so that one of them is seen
    on any ground.
    """
    from utils.plots import colors

    picture, thickness = image_rgb.copy(), line_width(style, image_rgb.shape)
    height, width = image_rgb.shape[:2]
    corners = np.array([found.xyxy for found in detections]).reshape(-1, 4)
    boxes = np.int64(np.rint(np.clip(corners, 0, [width, height] * 2)))
    hues = [tuple(colors(found.class_index)) for found in detections]
    for found, box, hue in reversed(list(zip(detections, boxes.tolist(), hues, strict=True))):
        turns = (hue, contrasting(hue) if found.outcome in NOT_FOUND else hue)
        outline(picture, box, turns, thickness)
        if found.mask is not None and found.mask.any():
            outline_of_mask(picture, found.mask, turns, thickness)
    if not style.hide_labels:
        labels = label_plates(detections, hues, style, image_rgb.shape)
        for label, (left, top, right, bottom) in label_places(boxes, labels, image_rgb.shape, thickness):
            picture[top:bottom, left:right] = label
    return picture


def line_width(style: Style, shape: tuple[int, ...]) -> int:
    """Return the width of boxes' lines in pixels on a picture (H, W, ...): what the style says, or by the mean side."""
    if style.line_thickness not in ("auto", 0):
        return style.line_thickness
    return min(ceil((shape[0] + shape[1]) / 2 / SIDE_PER_LINE), THICKEST_LINE)


def outline(picture_rgb: np.ndarray, xyxy: Sequence[int], hues: tuple[Colour, Colour], thickness: int) -> None:
    """Draw the edges of a box into a picture, around it where there is room, in dashes of two colours by turns.

    A line of one colour has a seam outside that contrasts with it, half transparent, so that it is seen on any ground.
    """
    height, width = picture_rgb.shape[:2]
    left, top = (max(edge - thickness, 0) for edge in xyxy[:2])
    right, bottom = min(xyxy[2] + thickness, width), min(xyxy[3] + thickness, height)
    dash, frame = dash_length(thickness), picture_rgb[top:bottom, left:right]
    if hues[0] == hues[1]:
        seam = seam_width(thickness)
        rows, columns = slice(max(top - seam, 0), bottom + seam), slice(max(left - seam, 0), right + seam)
        for strip in (
            picture_rgb[rows.start : top, columns],
            picture_rgb[bottom : rows.stop, columns],
            picture_rgb[top:bottom, columns.start : left],
            picture_rgb[top:bottom, right : columns.stop],
        ):
            strip[:] = strip // 2 + np.uint8(contrasting(hues[0])) // 2
    down, across = (np.uint8(hues)[np.arange(length) // dash % 2] for length in frame.shape[:2])
    frame[:thickness] = frame[-thickness:] = across
    frame[:, :thickness] = frame[:, -thickness:] = down[:, None]


def outline_of_mask(picture_rgb: np.ndarray, mask: np.ndarray, hues: tuple[Colour, Colour], thickness: int) -> None:
    """Draw the outline of a mask, bool (H, W) and not empty, around it into a picture of its size, as `outline` a box."""
    import cv2

    seam = seam_width(thickness) if hues[0] == hues[1] else 0
    margin = thickness + seam
    left, top, width, height = cv2.boundingRect(np.uint8(mask))
    rows, columns = (
        slice(max(start - margin, 0), start + length + margin) for start, length in ((top, height), (left, width))
    )
    inside, part = np.uint8(mask[rows, columns]), picture_rgb[rows, columns]
    wide = grown(inside, thickness)
    around = grown(inside, margin) > wide
    part[around] = part[around] // 2 + np.uint8(contrasting(hues[0])) // 2
    down, across = (np.arange(length) // dash_length(thickness) for length in inside.shape)
    turns = (down[:, None] + across) % 2
    line = wide > inside
    part[line] = np.uint8(hues)[turns[line]]


def grown(region: np.ndarray, pixels: int) -> np.ndarray:
    """Return a region, uint8 (h, w) of 0 and 1, with all that lies so many pixels around it."""
    import cv2

    return cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2))


def dash_length(thickness: int) -> int:
    """Return how many pixels long the dashes of a line are."""
    return max(4 * thickness, 6)


def seam_width(thickness: int) -> int:
    """Return how wide the seam of a line is in pixels."""
    return ceil(thickness / 3)


def label_plates(
    detections: Sequence, hues: Sequence[Colour], style: Style, shape: tuple[int, ...]
) -> list[np.ndarray]:
    """Return the labels of the most confident detections as pictures, RGB uint8 (h, w, 3): name and confidence.

    Letters grow with the picture (H, W, ...), and a name takes a third of its width at most. All labels take an eighth of the
    picture at most: where they would take more, their letters are two thirds as high, but legible, and the least confident
    detections that then still find no room have no label.
    """
    height, width = shape[:2]
    usual = max(round(LETTERS_AT_LEAST + (height + width) / 2 / SIDE_PER_LETTER), SMALLEST_LETTERS)
    for size in (usual, max(round(usual * 2 / 3), SMALLEST_LETTERS)):
        labels, room = [], height * width * SHARE_OF_LABELS
        for found, hue in zip(detections, hues, strict=True):
            figures = "" if style.hide_conf else f" {confidence_text(found)}"
            label = label_plate(caption(found), figures, size, hue, max(width // 3, 8 * size))
            room -= label.shape[0] * label.shape[1] if label.shape[1] <= width else np.inf
            if room < 0:
                break
            labels.append(label)
        else:
            break
    return labels


def label_places(
    boxes: np.ndarray, labels: Sequence[np.ndarray], shape: tuple[int, ...], thickness: int
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield labels and where they lie in a picture (H, W, ...): left, top, right and bottom edge in pixels.

    boxes   (N, 4) in pixels, the first ones with a label of shape (h, w, 3); lines of `thickness` lie around them

    A label lies outside its box: above, below, to the right, to the left, else off a corner; at the first of these places
    that is in the picture, on no label before it and not in another box. If there is none, it is the one that covers least
    of the insides of other boxes; if other labels are everywhere, a corner of its own box. Where they are there, too, it is
    left out.
    """
    taken = np.zeros((0, 4), int)
    for index, label in enumerate(labels):
        outside = places_outside(boxes[index], label.shape, shape, thickness)
        outside = outside[(outside[:, :2] >= 0).all(axis=1) & (outside[:, 2:] <= shape[1::-1]).all(axis=1)]
        inside = places_inside(boxes[index], label.shape, shape, thickness)
        free, free_inside = (places[covered(places, taken) == 0] for places in (outside, inside))
        others = np.delete(boxes, index, axis=0)
        place = next((some[covered(some, others).argmin()] for some in (free, free_inside) if len(some)), None)
        if place is not None:
            taken = np.vstack([taken, place])
            yield label, place.tolist()


def places_outside(xyxy: np.ndarray, label: tuple[int, ...], shape: tuple[int, ...], thickness: int) -> np.ndarray:
    """Return the places (8, 4) of a label (h, w, ...) around a box and its lines, best first, in the picture or not."""
    (left, top, right, bottom), (height, width) = xyxy + thickness * np.array([-1, -1, 1, 1]), label[:2]
    along_x, along_y = max(min(left, shape[1] - width), 0), max(min(top, shape[0] - height), 0)
    sides = [(along_x, top - height), (along_x, bottom), (right, along_y), (left - width, along_y)]
    corners = [(x, y) for y in (top - height, bottom) for x in (left - width, right)]
    return np.array([(x, y, x + width, y + height) for x, y in sides + corners])


def places_inside(xyxy: np.ndarray, label: tuple[int, ...], shape: tuple[int, ...], thickness: int) -> np.ndarray:
    """Return the places (4, 4) of a label (h, w, ...) in the corners of a box, within its lines and the picture."""
    (left, top, right, bottom), (height, width) = xyxy.tolist(), label[:2]
    corners = [(x, y) for y in (top, bottom - height) for x in (left, right - width)]
    last_x, last_y = shape[1] - thickness - width, shape[0] - thickness - height
    within = [(max(min(max(x, thickness), last_x), 0), max(min(max(y, thickness), last_y), 0)) for x, y in corners]
    return np.array([(x, y, x + width, y + height) for x, y in within])


def covered(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return how many pixels of boxes (N, 4) each of some places (M, 4) covers; what lies in two boxes counts twice."""
    first = np.maximum(places[:, None, :2], boxes[:, :2])
    last = np.minimum(places[:, None, 2:], boxes[:, 2:])
    return np.maximum(last - first, 0).prod(axis=2).sum(axis=1)


def caption(found) -> str:
    """Return what is written on the box of a detection: the class, and that it was missed or is below the threshold."""
    if found.outcome == NEAR_MISS:
        return f"below {found.above}: {found.name}"
    return f"miss: {found.name}" if found.outcome == MISS else found.name


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
