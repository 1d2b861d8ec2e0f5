"""The files that val.py leaves: labels, JSON, pictures. Each writer is shown one batch after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from utils.base.boxes import xyxy2xywh, xyxy2xywhn
from utils.base.image_io import write_image
from utils.base.paths import UniqueNames, naming_failed_writes, writing_whole
from utils.data.pictures import draw_batch, labels_of_image
from utils.validating.metrics import ConfusionMatrix
from utils.validating.validation import BatchResult, ImageResult

# COCO numbers its 80 detection classes from 1 to 90 and leaves these out.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_CATEGORIES = tuple(number for number in range(1, 91) if number not in COCO_GAPS)
DRAWN_BATCHES = 3
DRAWN_CONFIDENCE = 0.25
# More boxes than this in one picture hide what is under them.
DRAWN_BOXES = 30


class LabelFiles:
    """Writes a text file per image: class, x, y, w, h relative to the image, and the confidence where asked."""

    def __init__(self, folder: Path, *, save_conf: bool) -> None:
        self.folder, self.save_conf = folder, save_conf
        self._names = UniqueNames()

    def __call__(self, batch: BatchResult) -> None:
        """Write the files of a batch."""
        for result in batch.results:
            path = self.folder / self._names(f"{Path(result.path).stem}.txt")
            lines = "".join(f"{line}\n" for line in self._lines(result))
            with naming_failed_writes(path):
                self.folder.mkdir(parents=True, exist_ok=True)
            with writing_whole(path) as part:
                part.write_text(lines, encoding="utf-8")

    def _lines(self, result: ImageResult) -> list[str]:
        height, width = result.shape
        boxes = xyxy2xywhn(result.detections[:, :4].cpu(), width, height).tolist()
        scores = result.detections[:, 4:].tolist()
        rows = [(c, *box, conf)[: 6 if self.save_conf else 5] for box, (conf, c) in zip(boxes, scores, strict=True)]
        return [" ".join(f"{value:g}" for value in row) for row in rows]


class JsonFile:
    """Collects detections in COCO's format; `write()` them at the end."""

    def __init__(self, path: Path, *, is_coco: bool) -> None:
        """Use COCO's own category numbers where the classes are COCO's."""
        self.path, self.is_coco = path, is_coco
        self._entries: list[dict] = []

    def __call__(self, batch: BatchResult) -> None:
        """Add the detections of a batch."""
        for result in batch.results:
            self._entries += self._of_image(result)

    def _of_image(self, result: ImageResult) -> list[dict]:
        stem = Path(result.path).stem
        image = int(stem) if stem.isdecimal() else stem
        boxes = xyxy2xywh(result.detections[:, :4].cpu())
        boxes[:, :2] -= boxes[:, 2:] / 2
        return [
            {
                "image_id": image,
                "category_id": COCO_CATEGORIES[int(category)] if self.is_coco else int(category),
                "bbox": [round(value, 3) for value in box],
                "score": round(confidence, 5),
            }
            for box, (confidence, category) in zip(boxes.tolist(), result.detections[:, 4:].tolist(), strict=True)
        ]

    def write(self) -> None:
        """Write the file; OSError, naming it, when that fails."""
        with writing_whole(self.path) as part:
            part.write_text(json.dumps(self._entries), encoding="utf-8")


class BatchPictures:
    """Saves pictures of the first batches, once with their labels and once with what was found."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self.folder, self.names = folder, names

    def __call__(self, batch: BatchResult) -> None:
        """Save two pictures of a batch."""
        if batch.number >= DRAWN_BATCHES:
            return
        paths = [result.path for result in batch.results]
        labels = [labels_of_image(batch.targets, i) for i in range(len(paths))]
        found = [rows[rows[:, 4] > DRAWN_CONFIDENCE][:DRAWN_BOXES] for rows in batch.detections]
        for kind, boxes in (("labels", labels), ("pred", found)):
            picture = draw_batch(batch.images, boxes, paths, self.names)
            write_image(self.folder / f"val_batch{batch.number}_{kind}.jpg", picture)


def count_confusions(confusion: ConfusionMatrix, batch: BatchResult) -> None:
    """Add the results of a batch to a confusion matrix."""
    for result in batch.results:
        confusion.process_batch(result.detections, result.labels)
