"""Train torchvision's detectors on scenes of the Evidence set; their label is the set's class plus one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from data.scripts.evidence.reading import Labelled
from data.scripts.learning.emblems import learn_emblems
from data.scripts.learning.steps import Steps, as_tensor, batches

BATCH = 8
# What the scenes of a batch are resized to, in pixels. Scenes to look at are larger, as are things in those to learn from.
SIDES = (224, 256, 288, 320)


def train(
    model: nn.Module,
    scenes: list[Labelled],
    *,
    epochs: int,
    emblem_epochs: int,
    rng: np.random.Generator,
    device: torch.device,
    class_gain: float,
) -> None:
    """Train a detector of torchvision, its backbone on emblems first; it is in training mode before and after.

    The anchors of a dense head that hold an object are many, and few of them read its emblem: the backbone of a RetinaNet
    goes on reading emblems, in the scenes, while the head learns.

    class_gain: what the loss of its classes is multiplied with.
    """
    model.to(device)
    min_size = model.transform.min_size
    reader = learn_emblems(
        model.backbone,
        lambda images: list(model.backbone(model.transform.normalize(images)).values()),
        scenes,
        epochs=emblem_epochs,
        rng=rng,
    )
    steps = Steps(nn.ModuleList((model, reader)), len(scenes) // BATCH * epochs)
    levels = {}
    watch = model.backbone.register_forward_hook(lambda module, images, output: levels.update(output))
    for batch in batches(len(scenes), BATCH, epochs, rng):
        model.transform.min_size = (int(rng.choice(SIDES)),)
        images, targets = zip(*(example(scenes[index], rng.random() < 0.5, device) for index in batch), strict=True)
        losses = model(list(images), list(targets))
        if isinstance(model, RetinaNet):
            classes = torch.cat([target["labels"] - 1 for target in targets])
            losses["classification"] = losses["classification"] * class_gain
            losses |= reader.at_places(list(levels.values()), [target["emblems"] for target in targets], classes)
        steps.step(losses)
    watch.remove()
    model.transform.min_size = min_size


def example(scene: Labelled, mirror: bool, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the image (3, H, W) in 0..1, and the boxes and labels that torchvision's detectors learn from.

    Beside them stand the middles of the emblems (n, 2), as shares of the image's sides.
    """
    image_rgb, boxes = scene.image_rgb, scene.boxes
    emblems = scene.emblems / len(image_rgb)
    if mirror:
        x1, y1, x2, y2 = boxes.T
        width = image_rgb.shape[1]
        image_rgb, boxes = image_rgb[:, ::-1], np.stack((width - x2, y1, width - x1, y2), axis=1)
        emblems = np.abs(emblems - (1, 0))
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.from_numpy(scene.classes + 1),
        "emblems": torch.tensor(emblems, dtype=torch.float32),
    }
    return as_tensor(image_rgb).to(device), {name: value.to(device) for name, value in target.items()}


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict for a CPU, whose floating point numbers take two bytes each."""
    return {name: (value.half() if value.is_floating_point() else value).cpu() for name, value in state.items()}
