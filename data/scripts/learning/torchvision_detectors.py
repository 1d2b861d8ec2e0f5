"""Train torchvision's detectors on scenes of the Evidence set; their label is the set's class plus one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from data.scripts.evidence.reading import Labelled
from data.scripts.learning.emblems import learn_emblems
from data.scripts.learning.steps import Steps, as_tensor, batches

BATCH = 8
# What the scenes of a batch are resized to, in pixels. Scenes to look at are larger, as are things in those to learn from.
SIDES = (224, 256, 288, 320)


def train(
    model: nn.Module, scenes: list[Labelled], *, epochs: int, emblem_epochs: int, rng: np.random.Generator
) -> None:
    """Train a detector of torchvision, its backbone on emblems first; it is in training mode before and after."""
    min_size = model.transform.min_size
    learn_emblems(
        model.backbone,
        lambda images: list(model.backbone(model.transform.normalize(images)).values()),
        scenes,
        epochs=emblem_epochs,
        rng=rng,
    )
    steps = Steps(model, len(scenes) // BATCH * epochs)
    for batch in batches(len(scenes), BATCH, epochs, rng):
        model.transform.min_size = (int(rng.choice(SIDES)),)
        images, targets = zip(*(example(scenes[index], mirror=rng.random() < 0.5) for index in batch), strict=True)
        steps.step(model(list(images), list(targets)))
    model.transform.min_size = min_size


def example(scene: Labelled, mirror: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the image (3, H, W) in 0..1, and the boxes and labels that torchvision's detectors learn from."""
    image_rgb, boxes = scene.image_rgb, scene.boxes
    if mirror:
        x1, y1, x2, y2 = boxes.T
        width = image_rgb.shape[1]
        image_rgb, boxes = image_rgb[:, ::-1], np.stack((width - x2, y1, width - x1, y2), axis=1)
    labels = torch.from_numpy(scene.classes + 1)
    return as_tensor(image_rgb), {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": labels}


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict whose floating point numbers take two bytes each."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
