"""Make up scenes: every attribute of a body is drawn without regard to its class."""

from __future__ import annotations

import cv2
import numpy as np

from data.scripts.evidence.figures import CLUTTER, EMBLEMS, MARKS, filled, turned
from data.scripts.evidence.scene import Body, Figure, Scene
from data.scripts.evidence.textures import KINDS, Color, Texture

MOST_BODIES = 5
# How often a place is looked for, for each body.
TRIES = 4
# Radii as shares of the picture's side, for things that are not enlarged.
BODY_RADII = (0.09, 0.21)
FIGURE_RADII = (0.030, 0.042)
# How much of a body others may cover at most.
MOST_COVERED = 0.35
# How far figures keep from edges and from each other, in radii.
ROOM = 1.15
# Differences of brightness, 0..255: within a surface at most, and of a figure to both colours of its surface at least.
CONTRAST_WITHIN, CONTRAST_OF_FIGURES = 45, 75
Points = tuple[tuple[float, float], ...]
Random = np.random.Generator


def compose(seed: int, index: int, size: int, nearest: float = 1.0) -> Scene:
    """Return scene `index` of the set that a seed stands for, `size` pixels wide.

    All things in it are enlarged by one random factor in 1..`nearest`.
    """
    rng = np.random.default_rng((seed, index))
    near = size * rng.uniform(1, nearest)
    background = None
    bodies: tuple[Body, ...] = ()
    while not bodies:
        outlines = place_outlines(rng, size, near)
        background = background or random_texture(rng, near)
        bodies = make_bodies(rng, outlines, size, near)
    return Scene(size, background, random_clutter(rng, size, near, background.colors), bodies)


def make_bodies(rng: Random, outlines: list[Points], size: int, near: float) -> tuple[Body, ...]:
    """Return a body for each outline, the hindmost first, but for those with no room for two figures where they show."""
    masks = [filled([np.array(points)], size) for points in outlines]
    bodies = []
    for number, points in enumerate(outlines):
        visible = masks[number] & ~np.any([np.zeros_like(masks[0]), *masks[number + 1 :]], axis=0)
        radius = near * rng.uniform(*FIGURE_RADII)
        if (centres := two_places(rng, visible, radius)) is not None:
            bodies.append(make_body(rng, points, centres, radius, near))
    return tuple(bodies)


def make_body(rng: Random, outline: Points, centres: list, radius: float, near: float) -> Body:
    """Return a body with an emblem and a mark at two centres, in colours of their own."""
    texture = random_texture(rng, near)
    name = str(rng.choice(list(EMBLEMS)))
    emblem = Figure(name, centres[0], radius, 0.0, contrasting(rng, texture.colors))
    return Body(outline, texture, emblem, random_mark(rng, centres[1], radius, texture.colors))


def random_mark(rng: Random, centre: tuple[float, float], radius: float, colors: tuple[Color, ...]) -> Figure:
    """Return a figure that decides nothing."""
    name = str(rng.choice(list(MARKS)))
    return Figure(name, centre, radius, float(rng.uniform(0, 360)), contrasting(rng, colors))


def random_clutter(rng: Random, size: int, near: float, colors: tuple[Color, ...]) -> tuple[Figure, ...]:
    """Return fragments, marks and emblems that lie on the background."""
    names = [
        *rng.choice(list(CLUTTER), rng.integers(4, 11)),
        *rng.choice(list(MARKS), rng.integers(0, 3)),
        *rng.choice(list(EMBLEMS), rng.integers(0, 3)),
    ]
    return tuple(
        Figure(
            str(name),
            tuple(rng.uniform(0, size, 2).tolist()),
            float(near * rng.uniform(*FIGURE_RADII)),
            0.0 if name in EMBLEMS else float(rng.uniform(0, 360)),
            contrasting(rng, colors),
        )
        for name in names
    )


def random_texture(rng: Random, near: float, against: Color | None = None) -> Texture:
    """Return any surface, or one that a figure of the colour `against` stands out from."""
    while True:
        first = random_color(rng)
        second = tuple(int(c) for c in np.clip(np.add(first, rng.integers(-60, 61, 3)), 0, 255))
        pair = (first, second)
        within = abs(brightness(first) - brightness(second))
        if within <= CONTRAST_WITHIN and (against is None or stands_out(against, pair)):
            break
    kind = str(rng.choice(list(KINDS)))
    period, angle = near * rng.uniform(0.03, 0.12), rng.uniform(0, 180)
    return Texture(kind, pair, float(period), float(angle), int(rng.integers(2**31)))


def contrasting(rng: Random, colors: tuple[Color, ...]) -> Color:
    """Return a random colour that stands out from all the given ones."""
    while not stands_out(color := random_color(rng), colors):
        pass
    return color


def stands_out(color: Color, others: tuple[Color, ...]) -> bool:
    """Return whether a colour is clearly darker, or clearly brighter, than each of the others."""
    return all(abs(brightness(color) - brightness(other)) >= CONTRAST_OF_FIGURES for other in others)


def brightness(color: Color) -> float:
    """Return the luma of an RGB colour, 0..255."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def random_color(rng: Random) -> Color:
    """Return any RGB colour."""
    return tuple(rng.integers(0, 256, 3).tolist())


def place_outlines(rng: Random, size: int, near: float) -> list[Points]:
    """Return the outlines of bodies that cover each other in part at most, the hindmost first."""
    outlines, masks = [], []
    wanted = rng.integers(1, MOST_BODIES + 1)
    for _ in range(TRIES * wanted):
        if len(outlines) == wanted:
            break
        points = random_outline(rng, size, near)
        mask = filled([np.array(points)], size)
        if all(covered(under, [*masks[number + 1 :], mask]) <= MOST_COVERED for number, under in enumerate(masks)):
            outlines.append(points)
            masks.append(mask)
    return outlines


def covered(mask: np.ndarray, above: list[np.ndarray]) -> float:
    """Return the share of a mask that others cover."""
    return float((mask & np.any(above, axis=0)).sum() / mask.sum())


def random_outline(rng: Random, size: int, near: float) -> Points:
    """Return an ellipse, a polygon, a rounded box or a blob anywhere in the picture, turned at random."""
    shape = SHAPES[rng.integers(len(SHAPES))](rng)
    radius = near * rng.uniform(*BODY_RADII)
    stretch = np.array([1, rng.uniform(0.6, 1)])
    points = turned(shape * stretch, rng.uniform(0, 360)) * radius
    low, high = 2 - points.min(0), size - 2 - points.max(0)
    return tuple(map(tuple, (points + rng.uniform(low, high)).tolist()))


def ellipse(rng: Random) -> np.ndarray:
    """Return points on the unit circle."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


def polygon(rng: Random) -> np.ndarray:
    """Return four to eight corners."""
    corners = int(rng.integers(4, 9))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return np.stack((np.cos(angles), np.sin(angles)), axis=1) * rng.uniform(0.85, 1, (corners, 1))


def rounded_box(rng: Random) -> np.ndarray:
    """Return points on a superellipse, which lies between a circle and a square."""
    circle = ellipse(rng)
    return np.sign(circle) * np.abs(circle) ** rng.uniform(0.3, 0.6) * 0.85


def blob(rng: Random) -> np.ndarray:
    """Return points on a wavy circle."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(rng.uniform(0.02, 0.1) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    return ellipse(rng) * (0.85 + waves)[:, None]


SHAPES = (ellipse, polygon, rounded_box, blob)


def two_places(rng: Random, visible: np.ndarray, radius: float) -> list[tuple[float, float]] | None:
    """Return centres (x, y) for two figures that fit into a mask side by side, or None where they do not."""
    room = cv2.distanceTransform(np.pad(visible, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    places = np.argwhere(room > radius * ROOM)[:, ::-1]
    if not len(places):
        return None
    first = rng.choice(places)
    others = places[np.hypot(*(places - first).T) > 2 * radius * ROOM]
    if not len(others):
        return None
    return [tuple(map(float, place)) for place in (first, rng.choice(others))]
