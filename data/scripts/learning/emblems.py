"""Let a backbone learn the emblems before its detector looks for bodies in scenes.

A detector that is shown scenes alone takes long to find out that it is the emblems that tell classes. Cut out, they are
learned in minutes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.scripts.evidence.reading import Labelled, cut_out
from data.scripts.evidence.rendering import CLASSES
from data.scripts.learning.steps import Steps, as_tensor, batches

# Side of the pictures of emblems in pixels, where those in scenes are 19 to 54 pixels wide.
SIDE = 64
# How far, in pixels, the pictures are moved at random to either side.
SHIFT = 8
BATCH = 32


class EmblemReader(nn.Module):
    """Linear readings of emblems off the levels of a backbone, one for each."""

    def __init__(self, levels: list[Tensor]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(level.shape[1], len(CLASSES)) for level in levels).to(levels[0].device)

    def at_peaks(self, levels: list[Tensor], classes: Tensor) -> dict[str, Tensor]:
        """Return the loss of each level (n, channels, rows, columns) of pictures of one emblem each; classes: (n,)."""
        return self._losses([level.amax((2, 3)) for level in levels], classes)

    def at_places(self, levels: list[Tensor], places: list[Tensor], classes: Tensor) -> dict[str, Tensor]:
        """Return the loss of each level of scenes where emblems lie.

        places: for each scene (n, 2), x and y of the middle of each emblem as shares of the sides; classes: of all.
        """
        grids = [(2 * place - 1)[None, None] for place in places]
        read = [
            torch.cat([
                F.grid_sample(scene[None], grid, align_corners=False)[0, :, 0].T
                for scene, grid in zip(level, grids, strict=True)
            ])
            for level in levels
        ]  # fmt: skip
        return self._losses(read, classes)

    def _losses(self, read: list[Tensor], classes: Tensor) -> dict[str, Tensor]:
        losses = (F.cross_entropy(head(features), classes) for head, features in zip(self.heads, read, strict=True))
        return {f"level {number}": loss for number, loss in enumerate(losses)}


def learn_emblems(
    backbone: nn.Module,
    levels_of: Callable[[Tensor], list[Tensor]],
    scenes: list[Labelled],
    *,
    epochs: int,
    rng: np.random.Generator,
) -> EmblemReader:
    """Train a backbone so that the peaks of each of its levels tell emblems apart, and return what reads them.

    Args:
        backbone: whose parameters learn.
        levels_of: takes images (n, 3, h, w) in 0..1 and returns the backbone's levels (n, channels, rows, columns).
        scenes: where the emblems are cut out.
        epochs: how often each emblem is shown.
        rng: decides the order of the emblems, their places and which are mirrored.
    """
    device = next(backbone.parameters()).device
    images = np.stack([emblem for scene in scenes for emblem in cut_out(scene, SIDE + 2 * SHIFT)])
    classes = torch.from_numpy(np.concatenate([scene.classes for scene in scenes])).to(device)
    reader = EmblemReader(levels_of(as_tensor(images[:2, :SIDE, :SIDE]).to(device)))
    steps = Steps(nn.ModuleList((backbone, reader)), len(images) // BATCH * epochs)
    for batch in batches(len(images), BATCH, epochs, rng):
        x, y = rng.integers(0, 2 * SHIFT + 1, 2)
        shown = images[batch, y : y + SIDE, x : x + SIDE][:, :, :: rng.choice((-1, 1))]
        steps.step(reader.at_peaks(levels_of(as_tensor(shown).to(device)), classes[batch]))
    return reader
