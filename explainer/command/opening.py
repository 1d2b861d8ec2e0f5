"""From the options of a run to what it needs: checked first, then opened, the models last."""

from dataclasses import dataclass
from pathlib import Path

from explainer.command.options import Options
from explainer.detectors.weights import check_there, check_weights, model_names, open_model
from explainer.errors import UsageError
from explainer.files.labels import Labels, Written, boxes_of, check_class, check_classes_of
from explainer.files.results import check_writable, new_folder
from explainer.files.sources import Frame, Source
from explainer.settings import check_layers_there
from utils.dataloaders import IMG_FORMATS
from utils.general import LOGGER


@dataclass(frozen=True)
class Job:
    """What a run works with: where pictures come from, what is asked about them, what answers, and where results go.

    known      boxes of its pictures that are known before a model looks
    explainer  an Explainer or a Comparer
    """

    source: Source
    known: "KnownBoxes"
    explainer: object
    folder: Path


def open_run(options: Options) -> Job:
    """Return what a run needs; UsageError for what cannot work, before any model is loaded where that is possible."""
    for weights in options.compare or (options.weights,):
        check_layers_there(check_weights(weights), [way.method for way in options.variants])
    check_there(options.compare or ())
    known = KnownBoxes(options.boxes, options.labels)
    if options.view_img:
        check_display()
    source = Source(options.source, options.vid_stride, options.max_megapixels)
    known.check_source(source)
    check_writable(Path(options.project) / options.name)
    explainer = open_explainer(options)
    for detector in explainer.detectors:
        known.check_classes(detector.names, source)
    return Job(source, known, explainer, new_folder(options.project, options.name, options.exist_ok))


def check_display() -> None:
    """Raise UsageError where no window can be opened."""
    from utils.general import check_imshow

    if not check_imshow(warn=False):
        raise UsageError("--view-img needs a display and an OpenCV with windows; leave it out, the pictures are saved")


def open_explainer(options: Options):
    """Return an Explainer, or where several methods, layers or models are asked for a Comparer, with its models loaded."""
    from explainer.comparing import Comparer
    from explainer.explain import Explainer

    how = {name: getattr(options, name) for name in ("device", "half", "data", "trust", "dnn")}
    if options.compare:
        models = [open_model(entry, **how) for entry in options.compare]
        names = model_names(options.compare)
        return Comparer(models, names=names, each_layer=options.each_layer, **options.settings)
    model, ways = open_model(options.weights, **how), options.variants
    if len(ways) > 1:
        return Comparer(model, each_layer=options.each_layer, **options.settings)
    return Explainer(model, **vars(ways[0]))


class KnownBoxes:
    """What is known of a run's pictures before the model looks: boxes that the user gives, or labels to judge by.

    Given boxes hold for every image and frame; labels belong to each by its file's name.
    """

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
