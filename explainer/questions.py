"""What a run asks about its images besides their detections: boxes that the user gives, or labels to judge by."""

from pathlib import Path

from explainer.errors import UsageError
from explainer.files.labels import Labels, Written, boxes_of, check_class, check_classes_of
from explainer.files.sources import Frame, Source
from utils.dataloaders import IMG_FORMATS
from utils.general import LOGGER


class Questions:
    """Given boxes hold for every image and frame of a run; labels belong to each by its file's name."""

    def __init__(self, boxes: tuple[Written, ...] | None, labels: str | Path | None):
        self.boxes = boxes
        self.labels = None if labels is None else Labels(labels)
        self._class_count: int | None = None

    def check_source(self, source: Source) -> None:
        """Read the labels of all images of a source: UsageError for a bad line, or where labels cannot belong to it."""
        if not self.labels:
            return
        if source.length is None:
            raise UsageError("--labels belongs to files, and the source is a stream or a screen; give --boxes instead")
        if self.labels.path.is_file() and source.length > 1:
            raise UsageError(
                f"--labels {self.labels.path} is one image's file, and the source has {source.length}; give the folder"
            )
        images = [path for path in source.files if path.suffix[1:].lower() in IMG_FORMATS]
        if not self.labels.check(images) and images:
            LOGGER.warning(
                f"WARNING ⚠️ --labels {self.labels.path} holds no file of any image, such as {images[0].stem}.txt: "
                "all that is detected counts as a false alarm"
            )

    def check_classes(self, names: dict[int, str], source: Source) -> None:
        """Raise UsageError for a box or a label of a class that the model lacks."""
        check_classes_of(self.boxes, names, "boxes")
        # Of several models the one with the fewest classes decides.
        self._class_count = min(len(names), self._class_count or len(names))
        if self.labels:
            self.labels.check(source.files, self._class_count)

    def about(self, frame: Frame) -> dict[str, list[Written] | tuple[Written, ...] | None]:
        """Return what is asked about one frame, as keywords of a call of the explainer."""
        if not self.labels:
            return {"boxes": self.boxes}
        labels = self.labels.of(frame.path, frame.number)
        for label in labels:
            check_class(label, self._class_count)
        return {"labels": boxes_of(labels, frame.image_rgb.shape[:2])}
