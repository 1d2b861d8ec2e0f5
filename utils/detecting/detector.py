"""From a letterboxed picture to the detections in the original one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explainer.checkpoints.repair import is_head, names_by_index
from utils.base.boxes import scale_boxes
from utils.base.devices import Profile
from utils.base.nms import non_max_suppression
from utils.detecting.masks import process_mask_native


@dataclass(frozen=True)
class Found:
    """Detections of one picture, most confident first.

    Attributes:
        boxes: (n, 6) float32 on the CPU: x1, y1, x2, y2 in pixels of the original picture, confidence, class.
        shape: (height, width) of the original picture.
        coefficients: (n, nm) mask coefficients of a segmentation model, and
        prototypes: (nm, h, w) its mask prototypes for this picture; None without.
    """

    boxes: torch.Tensor
    shape: tuple[int, int]
    coefficients: torch.Tensor
    prototypes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def summary(self, names: Mapping[int, str]) -> str:
        """Return the counts per class as in `4 persons, 1 bus, `, or `(no detections), `."""
        counts = sorted(Counter(self.boxes[:, 5].int().tolist()).items())
        return "".join(f"{n} {names[c]}{'s' * (n > 1)}, " for c, n in counts) or "(no detections), "

    def masks(self) -> Iterator[torch.Tensor]:
        """Yield one mask (H, W) per detection, 0 or 1, at the original size; all at once may not fit into memory."""
        if self.prototypes is None:
            return
        boxes = self.boxes.to(self.prototypes.device)
        for i in range(len(self)):
            yield process_mask_native(self.prototypes, self.coefficients[i : i + 1], boxes[i : i + 1, :4], self.shape)[
                0
            ].cpu()


class Detector:
    """Detects in batches of letterboxed pictures with a loaded model, and keeps the time of each step.

    Attributes:
        timers: of pre-processing, inference and non-maximum suppression.
    """

    def __init__(self, model: Any, nms_options: dict[str, Any], *, augment: bool = False) -> None:
        """Take a `DetectMultiBackend` and the keyword arguments of `non_max_suppression`."""
        self.model, self.nms_options, self.augment = model, nms_options, augment
        self.timers = tuple(Profile(device=model.device) for _ in range(3))

    def __call__(self, im: np.ndarray, shapes: list[tuple[int, int]], visualize: Path | bool = False) -> list[Found]:
        """Return the detections of each picture of a batch.

        Args:
            im: (B, 3, h, w) or (3, h, w) uint8 RGB, letterboxed.
            shapes: (height, width) of the B original pictures.
            visualize: a folder for pictures of the feature maps.

        Raises:
            ValueError: when the model's output holds no detections.
        """
        with torch.inference_mode():
            with self.timers[0]:
                batch = self._to_batch(im)
            with self.timers[1]:
                output = self.model(batch, augment=self.augment, visualize=visualize)
            with self.timers[2]:
                prediction, prototypes = split_output(output)
                nm = self._mask_columns(prediction, prototypes)
                self._name_all(prediction.shape[2] - 5 - nm)
                rows = non_max_suppression(prediction, **self.nms_options, nm=nm)
            maps = [None] * len(rows) if prototypes is None else prototypes
            return [_found(*one, batch.shape[2:]) for one in zip(rows, shapes, maps, strict=True)]

    def check(self, imgsz: tuple[int, int]) -> None:
        """Detect once in an empty picture (3, *imgsz); ValueError when the model does not take it or does not detect."""
        try:
            self(np.zeros((3, *imgsz), np.uint8), [tuple(imgsz)])
        # What networks of another kind raise at a picture.
        except (AttributeError, LookupError, RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"these weights do not detect in a picture ({reason}); give a detection model") from error
        for timer in self.timers:
            timer.t = 0.0

    def _to_batch(self, im: np.ndarray) -> torch.Tensor:
        """Return (B, 3, h, w) in 0..1 on the model's device, in its precision."""
        batch = torch.from_numpy(im).to(self.model.device)
        batch = (batch.half() if self.model.fp16 else batch.float()) / 255
        return batch[None] if batch.ndim == 3 else batch

    def _mask_columns(self, prediction: torch.Tensor, prototypes: torch.Tensor | None) -> int:
        """Return how many columns after the class probabilities are mask coefficients."""
        if prototypes is not None:
            return prototypes.shape[1]
        if prediction.ndim != 3:
            raise ValueError(f"these weights do not detect (output {tuple(prediction.shape)}); give a detection model")
        # Several segmentation models together give coefficients, but no prototypes that fit them all.
        return max((getattr(head, "nm", 0) for head in self.model.modules() if is_head(head)), default=0)

    def _name_all(self, classes: int) -> None:
        """Give each class a name: an exported model can bring fewer, and how many it has shows in what it predicts."""
        if len(self.model.names) < classes:
            self.model.names = names_by_index(self.model.names, classes)


def split_output(output: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the predictions (B, N, 5 + nc + nm) in a model's output, and its mask prototypes (B, nm, h, w) or None."""
    if not isinstance(output, list | tuple):
        return output, None
    first, *others = output
    return first, next((x for x in others if isinstance(x, torch.Tensor) and x.ndim == 4), None)


def _found(
    rows: torch.Tensor, shape: tuple[int, int], prototypes: torch.Tensor | None, input_shape: tuple[int, int]
) -> Found:
    """Bring the rows of one picture from the model's input to the original picture."""
    boxes = rows[:, :6].float()
    boxes[:, :4] = scale_boxes(input_shape, boxes[:, :4], shape).round()
    return Found(boxes.cpu(), shape, rows[:, 6:], prototypes)
