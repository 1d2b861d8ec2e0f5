"""From the options of a run to what it needs: checked first, then opened, the models last.

A run that was stopped goes on in the same folder: what it had finished is kept.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path

from explainer.command.options import Options
from explainer.detectors.predictions import NOT_FOUND
from explainer.detectors.torchvision_models import FUNCTION, is_state
from explainer.detectors.weights import check_there, check_weights, model_names, open_model
from explainer.errors import UsageError
from explainer.files.labels import Labels, Written, boxes_of, check_class, check_classes_of
from explainer.files.results import (
    OPTIONS,
    TABLE_OF_ANSWERS,
    Finished,
    as_utf8,
    check_writable,
    finished_files,
    new_folder,
    plain,
    write_options,
)
from explainer.files.sources import Frame, Source, holds_files, read_yaml
from explainer.settings import as_tuple, check_layers_there, check_whole_number
from utils.dataloaders import IMG_FORMATS
from utils.general import LOGGER

# What may be asked for when a run goes on: it changes nothing that is there. To trust is no option that a file can give.
FREE = ("resume", "report", "suspects", "verbose", "view_img", "trust", "ray", "workers", "gpus_per_worker")
# Paths, which are kept as absolute ones.
PATHS = ("weights", "compare", "source", "data", "labels")
# In the file of options: where the table of the run begins, in bytes; above are rows of earlier runs in the same folder.
BEGIN = "table_begins_at"


@dataclass(frozen=True)
class Job:
    """What a run works with: where pictures come from, what is asked about them, what answers, and where results go.

    known      boxes of its pictures that are known before a model looks
    explainer  an Explainer or a Comparer
    options    those of the run; where it goes on, of the one that was stopped
    finished   what is there already where it goes on; the source then holds the rest
    again      what of that the page or the suspects need once more, None for nothing
    gone       files that they need, and that the source no longer holds
    not_again  how many finished images, and frames, they do without
    """

    source: Source
    known: "KnownBoxes"
    explainer: object
    folder: Path
    options: Options
    finished: Sequence[Finished] = ()
    again: Source | None = None
    gone: Sequence[Path] = ()
    not_again: int = 0


@dataclass(frozen=True)
class Stopped:
    """A run to go on with: its folder, where its table begins, in bytes, and what it has finished."""

    folder: Path
    begin: int
    finished: list[Finished] = field(default_factory=list)

    def cut_table(self) -> None:
        """Cut off the rows of the file that was in work; OSError if that cannot be done."""
        table = self.folder / TABLE_OF_ANSWERS
        if table.exists():
            os.truncate(table, self.finished[-1].end if self.finished else min(self.begin, table.stat().st_size))


def open_run(options: Options) -> Job:
    """Return what a run needs; UsageError for what cannot work, before any model is loaded where that is possible."""
    options, stopped = (options, None) if options.resume is None else stopped_run(options)
    check_models(options)
    known = KnownBoxes(options.boxes, options.labels)
    if options.view_img:
        check_display()
    source = Source(options.source, options.vid_stride, options.max_megapixels)
    known.check_source(source)
    check_writable(stopped.folder if stopped else Path(options.project) / options.name)
    explainer = open_explainer(options)
    for detector in explainer.detectors:
        known.check_classes(detector.names, source.files)
    if stopped:
        return going_on(stopped, Job(source, known, explainer, stopped.folder, options, stopped.finished))
    folder = new_folder(options.project, options.name, options.exist_ok)
    table = folder / TABLE_OF_ANSWERS
    keep_options(folder, options, table.stat().st_size if table.exists() else 0)
    return Job(source, known, explainer, folder, options)


def check_models(options: Options) -> None:
    """Raise UsageError for weights that are not there, or that cannot have the layers that are asked for."""
    for weights in options.compare or (options.weights,):
        entries = check_weights(weights, arch_of(weights, options))
        check_layers_there(entries, [way.method for way in options.variants])
    check_there(options.compare or ())


def stopped_run(options: Options) -> tuple[Options, Stopped]:
    """Return the options of the run to go on with, and what it left; UsageError as of `stopped_options`."""
    options, begin = stopped_options(options)
    folder = Path(options.resume)
    return options, Stopped(folder, begin, finished_files(folder / TABLE_OF_ANSWERS, begin))


def stopped_options(options: Options) -> tuple[Options, int]:
    """Return the options of the run to go on with, and where its table begins.

    UsageError where there is none, or other options are asked for, or its pictures were those of a stream.
    """
    folder = Path(options.resume)
    if not (folder / OPTIONS).is_file():
        raise UsageError(
            f"--resume '{folder}' holds no {OPTIONS}; give the folder of a run that was stopped, of checkpoints in files"
        )
    kept, begin = kept_run(folder / OPTIONS)
    usual, given = Options(resume=options.resume), with_absolute_paths(options)
    names = [entry.name for entry in fields(Options) if entry.name not in FREE]
    asked = {name: getattr(given, name) for name in names if getattr(given, name) != getattr(usual, name)}
    others = [name for name, value in asked.items() if plain(as_tuple(value)) != plain(as_tuple(getattr(kept, name)))]
    if others:
        raise UsageError(f"--resume goes on with the options of '{folder}'; leave --{others[0].replace('_', '-')} out")
    if not holds_files(kept.source):
        raise UsageError(
            f"--resume '{folder}': the source was '{kept.source}', a stream or a screen, which does not come again; "
            "start a new run"
        )
    if options.ray and not kept.ray:
        raise UsageError(f"--resume '{folder}': that run was not on a cluster, and goes on as it was; leave --ray out")
    free = {name: getattr(options, name) or getattr(kept, name) for name in FREE if name not in ("resume", "trust")}
    return replace(kept, **free, trust=options.trust, resume=options.resume), begin


def kept_run(path: Path) -> tuple[Options, int]:
    """Return the options that a run kept, and where its table begins; UsageError, naming the file, where it is damaged."""
    content = read_yaml(path)
    try:
        values = dict(content)
        begin = values.pop(BEGIN, None)
        check_whole_number(BEGIN, begin, at_least=0)
        return Options(**values), begin
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"'{path}' holds no options of a run ({' '.join(str(error).split())}); explain anew, without --resume"
        ) from error


def keep_options(folder: Path, options: Options, begin: int) -> None:
    """Write the options of a run whose table begins at a byte; of models that were already loaded nothing can be kept."""
    if all(isinstance(entry, (str, Path)) for entry in as_tuple(options.compare or options.weights)):
        kept = with_absolute_paths(options)
        write_options(folder, {entry.name: getattr(kept, entry.name) for entry in fields(kept)} | {BEGIN: begin})
    else:
        (folder / OPTIONS).unlink(missing_ok=True)


def with_absolute_paths(options: Options) -> Options:
    """Return options that mean the same in another working folder."""
    written = FUNCTION.fullmatch(options.arch or "")
    arch = f"{os.path.abspath(written['file'])}:{written['function']}" if written else options.arch
    return replace(options, arch=arch, **{name: absolute(name, getattr(options, name)) for name in PATHS})


def absolute(name: str, value: object) -> object:
    """Return the value of an option that names files, or None, as absolute paths; names of what is not there stay."""
    if isinstance(value, (tuple, list)):
        return tuple(absolute(name, entry) for entry in value)
    pattern = name == "source" and value is not None and holds_files(value) and "://" not in str(value)
    is_path = isinstance(value, (str, Path)) and (pattern or os.path.exists(value))
    return os.path.abspath(value) if is_path else value


def going_on(stopped: Stopped, job: Job) -> Job:
    """Return the job with the files that a stopped run has not finished, and cut its table to those that it has."""
    options, files = job.options, job.source.files
    rest, places = split_files(files, stopped.finished)
    for number, same in places.items():
        stopped.finished[number].times = len(same)
    wanted = needed_again(stopped.finished, options)
    again = [place for number in wanted for place in places.get(number, ())]
    gone = [stopped.finished[number].path for number in wanted if number not in places]
    source_again = None
    if again:
        source_again = Source(options.source, options.vid_stride, options.max_megapixels)
        source_again.keep(again)
    job.source.keep(rest)
    LOGGER.info(f"Going on in {stopped.folder}: {len(stopped.finished)} finished files are kept, {len(rest)} are to do")
    keep_options(stopped.folder, options, stopped.begin)
    stopped.cut_table()
    without = set(range(len(stopped.finished))).difference(wanted)
    not_again = sum(stopped.finished[number].frames or 1 for number in without)
    return replace(job, again=source_again, gone=gone, not_again=not_again)


def split_files(files: Sequence[Path], finished: Sequence[Finished]) -> tuple[list[int], dict[int, list[int]]]:
    """Return which files of a source are to do, and for each finished one which files of the source it is.

    A file that a list names twice is finished as often as its rows say; twice in a row counts as once.
    """
    numbers = defaultdict(deque)
    for number, done in enumerate(finished):
        numbers[str(done.path)].append(number)
    rest, places = [], {}
    for path, group in groupby(range(len(files)), key=lambda place: as_utf8(str(files[place]))):
        if numbers[path]:
            places[numbers[path].popleft()] = list(group)
        else:
            rest += group
    return rest, places


def needed_again(finished: Sequence[Finished], options: Options) -> list[int]:
    """Return which finished files are to be looked at again: those on the page, and those of the most suspect detections."""
    wanted = set(on_page(finished)) if options.report else set()
    energies = [
        (energy, number)
        for number, done in enumerate(finished)
        for outcome, energy in done.energies
        if outcome not in NOT_FOUND
    ]
    if options.suspects and energies:
        # The table has rounded them: equal ones may differ.
        limit = sorted(energies)[: options.suspects][-1][0]
        wanted |= {number for energy, number in energies if energy <= limit}
    return sorted(wanted)


def on_page(finished: Sequence[Finished]) -> Iterator[int]:
    """Yield which finished files have a place on the page: those that begin before it is full."""
    from explainer.pictures.report import MOST_IMAGES

    before = 0
    for number, done in enumerate(finished):
        if before >= MOST_IMAGES:
            return
        yield number
        before += done.frames or 1


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
        models = [open_model(entry, arch=arch_of(entry, options), **how) for entry in options.compare]
        names = model_names(options.compare)
        return Comparer(models, names=names, each_layer=options.each_layer, **options.settings)
    model, ways = open_model(options.weights, arch=options.arch, **how), options.variants
    if len(ways) > 1:
        return Comparer(model, each_layer=options.each_layer, **options.settings)
    return Explainer(model, **vars(ways[0]))


def arch_of(weights, options: Options) -> str | None:
    """Return the architecture of some weights; of several that are compared, --arch is that of the .pth files."""
    return options.arch if not options.compare or is_state(weights) else None


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

    def check_classes(self, names: dict[int, str], files: Sequence[Path]) -> None:
        """Raise UsageError for a box, or a label of one of the files, of a class that the model lacks."""
        check_classes_of(self.boxes, names, "boxes")
        # Of several models the one with the fewest classes decides.
        self._class_count = min(len(names), self._class_count or len(names))
        if self.labels:
            self.labels.check(files, self._class_count)

    def about(self, frame: Frame) -> dict[str, list[Written] | tuple[Written, ...] | None]:
        """Return what is asked about one frame, as keywords of a call of the explainer."""
        if not self.labels:
            return {"boxes": self.boxes}
        labels = self.labels.of(frame.path, frame.number)
        for label in labels:
            check_class(label, self._class_count)
        return {"labels": boxes_of(labels, frame.image_rgb.shape[:2])}
