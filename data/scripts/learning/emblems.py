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


def learn_emblems(
    backbone: nn.Module,
    levels_of: Callable[[Tensor], list[Tensor]],
    scenes: list[Labelled],
    *,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    """Train a backbone so that the peaks of each of its levels tell emblems apart.

    Args:
        backbone: whose parameters learn.
        levels_of: takes images (n, 3, h, w) in 0..1 and returns the backbone's levels (n, channels, rows, columns).
        scenes: where the emblems are cut out.
        epochs: how often each emblem is shown.
        rng: decides the order of the emblems, their places and which are mirrored.
    """
    images = np.stack([emblem for scene in scenes for emblem in cut_out(scene, SIDE + 2 * SHIFT)])
    classes = torch.from_numpy(np.concatenate([scene.classes for scene in scenes]))
    heads = nn.ModuleList(
        nn.Linear(level.shape[1], len(CLASSES)) for level in levels_of(as_tensor(images[:2, :SIDE, :SIDE]))
    )
    steps = Steps(nn.ModuleList((backbone, heads)), len(images) // BATCH * epochs)
    for batch in batches(len(images), BATCH, epochs, rng):
        x, y = rng.integers(0, 2 * SHIFT + 1, 2)
        shown = images[batch, y : y + SIDE, x : x + SIDE][:, :, :: rng.choice((-1, 1))]
        peaks = [level.amax((2, 3)) for level in levels_of(as_tensor(shown))]
        losses = [F.cross_entropy(head(peak), classes[batch]) for head, peak in zip(heads, peaks, strict=True)]
        steps.step({f"level {number}": loss for number, loss in enumerate(losses)})
