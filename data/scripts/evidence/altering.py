"""Change one half of a scene and leave the other: the emblems, or all that is around them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.scripts.evidence.composing import Random, random_clutter, random_mark, random_texture
from data.scripts.evidence.scene import Body, Scene


def without_emblems(scene: Scene) -> Scene:
    """Return the scene with the surface of its bodies where the emblems were, and nothing else changed."""
    return replace(scene, bodies=tuple(replace(body, emblem=None) for body in scene.bodies))


def with_other_surroundings(scene: Scene, seed: int) -> Scene:
    """Return the scene with other surfaces, clutter and marks; emblems keep every pixel, and bodies their outline."""
    rng = np.random.default_rng(seed)
    background = random_texture(rng, scene.size)
    clutter = random_clutter(rng, scene.size, scene.size, background.colors)
    bodies = tuple(in_other_colors(rng, body, scene.size) for body in scene.bodies)
    return Scene(scene.size, background, clutter, bodies)


def in_other_colors(rng: Random, body: Body, size: int) -> Body:
    """Return a body with another surface, from which its emblem stands out, and another mark in the mark's place."""
    texture = random_texture(rng, size, against=body.emblem.color)
    return replace(body, texture=texture, mark=random_mark(rng, body.mark.centre, body.mark.radius, texture.colors))
