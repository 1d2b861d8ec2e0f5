"""What can be asked of a command: names, defaults, help texts and checks, written once.

The command line and `run()` read the same class: `Options`, or that of another command. Each of its fields is an option and
carries what --help says about it, under which heading.
"""

import argparse
import inspect
import textwrap
from collections.abc import Mapping
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import ClassVar

from explainer.detectors.detector import PLACES
from explainer.detectors.weights import bundled_demo, model_names, with_suffix
from explainer.errors import UsageError, unknown
from explainer.files.labels import written_boxes
from explainer.methods.catalogue import BEST, METHODS
from explainer.pictures.drawing import SELECTION, TONES, Style, canonical_colormap
from explainer.settings import (
    MAX_MEGAPIXELS,
    MAX_MEGAPIXELS_HELP,
    OnCluster,
    Settings,
    as_tuple,
    check_fraction,
    check_given,
    check_positive,
    check_whole_number,
    checked_methods,
    option,
    variants,
)

ROOT = Path(__file__).resolve().parents[2]
# Of lines that argparse does not wrap, in characters.
HELP_WIDTH = 78
BOTH_SPELLINGS = "Options may be written with underscores, too: --conf_thres is --conf-thres."


@dataclass(frozen=True, kw_only=True)
class Options(OnCluster, Settings):
    """One run of the command: the settings, where pictures come from and where results go."""

    GROUPS: ClassVar = ("model and source", "question", "method", "picture", "output", "cluster", "black box")

    method: str | tuple = option(
        Settings.method,
        f"how the map is computed, not case-sensitive; several are shown side by side: best (now {BEST}), "
        f"{', '.join(METHODS)}",
        group="method",
        nargs="+",
        metavar="NAME",
    )
    each_layer: bool = option(
        False, "a map of each layer that --layer names, side by side, not their average", group="method"
    )
    weights: str | tuple | None = option(
        None,
        "checkpoint, or several for an ensemble; without it and --source the bundled demo, else yolov5s.pt",
        group="model and source",
        nargs="+",
        metavar="FILE",
    )
    arch: str | None = option(
        None,
        "what a file of weights alone belongs to: the name of a torchvision model, or file.py:function, which is run",
        group="model and source",
        metavar="NAME",
    )
    compare: tuple | None = option(
        None,
        "checkpoints to compare, in place of --weights: a.pt b.pt",
        group="model and source",
        nargs="+",
        metavar="FILE",
    )
    source: str | None = option(
        None,
        "image, video, folder, glob, list.txt, URL, stream, webcam index or screen; without it and --weights the bundled "
        "demo, else data/images where that is there",
        group="model and source",
    )
    data: str | None = option(
        None,
        "dataset YAML that names the classes, where the checkpoint does not",
        group="model and source",
        metavar="FILE",
    )
    device: str = option("", "cuda device, such as 0, or cpu", group="model and source")
    view_img: bool = option(False, "show the pictures in a window", group="output")
    nosave: bool = option(False, "write no pictures; the table is still written", group="output")
    project: str = option(
        ROOT / "runs/explain", "folder that holds the results of all runs", group="output", metavar="FOLDER"
    )
    name: str = option("exp", "folder of this run below the project", group="output")
    exist_ok: bool = option(False, "write into an existing folder instead of a new one with a number", group="output")
    resume: str | None = option(
        None, "folder of a run that was stopped: go on with its options", group="output", metavar="FOLDER"
    )
    line_thickness: int | str = option(
        Style.line_thickness,
        "line width of boxes in pixels, or auto: by the picture's size",
        group="picture",
        metavar="PIXELS",
    )
    hide_labels: bool = option(False, "boxes without labels", group="picture")
    hide_conf: bool = option(False, "labels without confidences", group="picture")
    half: bool = option(False, "run the network in half precision (GPU only)", group="model and source")
    dnn: bool = option(False, "OpenCV's DNN for ONNX files", group="model and source")
    vid_stride: int = option(1, "explain every n-th frame of a video", group="model and source", type=int, metavar="N")
    max_megapixels: float = option(
        MAX_MEGAPIXELS, MAX_MEGAPIXELS_HELP, group="model and source", type=float, metavar="N"
    )
    crop: bool = option(
        False,
        "blank the evidence out: pixels that --keep-only-topk keeps become the image's mean",
        group="picture",
    )
    trust: bool = option(
        False,
        "unpickle the checkpoint fully; it can then run code: only for files you made yourself",
        group="model and source",
    )
    per_detection: bool = option(
        False, "also a picture of each detection's own map, and a contact sheet of the image", group="output"
    )
    save_npz: bool = option(False, "also the maps as arrays (float16), with boxes and names", group="output")
    report: bool = option(
        False, "also a page with all images and the table, report.html, to look through offline", group="output"
    )
    boxes: tuple | None = option(
        None,
        "explain this box instead of the detections, detected or not; in pixels of the image, repeatable",
        group="question",
        nargs=5,
        action="append",
        metavar=("X1", "Y1", "X2", "Y2", "CLASS"),
    )
    labels: str | None = option(
        None,
        "folder of YOLO label files, or one: tells hits from false alarms, and explains what was missed",
        group="question",
        metavar="FOLDER",
    )
    colormap: str = option(
        Style.colormap,
        f"colours of the map, a name of matplotlib's or OpenCV's: {', '.join(SELECTION)}, ...",
        group="picture",
        metavar="NAME",
    )
    tone: str = option(
        Style.tone,
        "what the colours follow: evidence, how much of it lies where it is as hot; the root of the map; or linear",
        group="picture",
        metavar="NAME",
    )
    alpha: float = option(
        Style.alpha,
        "opacity of the colours where the map is hottest, 0..1",
        group="picture",
        type=float,
        metavar="SHARE",
    )
    suspects: int = option(
        0,
        "list and show so many detections whose evidence lies most outside their box",
        group="output",
        type=int,
        metavar="N",
    )
    verbose: bool = option(False, "one log line per detection", group="output")

    def __post_init__(self):
        self._check_settings()
        self._check_compared()
        if self.resume is None:
            self._fill_in_weights_and_source()
        object.__setattr__(self, "colormap", canonical_colormap(self.colormap))
        check_fraction("alpha", self.alpha)
        if self.tone not in TONES:
            raise unknown("tone", self.tone, TONES)
        check_whole_number("vid-stride", self.vid_stride, at_least=1)
        check_positive("max-megapixels", self.max_megapixels)
        object.__setattr__(self, "line_thickness", pixels_or_auto("line-thickness", self.line_thickness))
        check_whole_number("suspects", self.suspects, at_least=0)
        object.__setattr__(self, "boxes", written_boxes(self.boxes, "boxes"))
        check_given(self, self.boxes, self.labels)
        self.check_cluster()
        self._check_spread()
        if self.signed and self.crop:
            raise UsageError("--crop blanks out what speaks for, and shows no colours; leave it or --signed out")

    def _check_settings(self) -> None:
        """Check the settings with each method and each layer by itself."""
        checked_methods(self)
        methods = tuple(dict.fromkeys(way.method for way in self.variants))
        object.__setattr__(self, "method", methods[0])
        super().__post_init__()
        object.__setattr__(self, "method", methods if len(methods) > 1 else methods[0])

    def _check_compared(self) -> None:
        """Store the models to compare as a tuple; UsageError for one alone, or one twice, or other weights besides."""
        if self.compare is None:
            return
        models = with_suffix(as_tuple(self.compare))
        if len(models) < 2:
            given = " ".join(map(str, models)) or "none"
            raise UsageError(f"--compare takes two checkpoints or more, such as best.pt last.pt; given: {given}")
        if self.weights != type(self).weights:
            raise UsageError("--compare names the checkpoints itself; leave --weights out")
        model_names(models)
        object.__setattr__(self, "compare", models)

    def _check_spread(self) -> None:
        """Raise UsageError for what a run on a cluster cannot do."""
        if not self.ray:
            return
        if self.view_img:
            raise UsageError("--view-img shows what this process explains, and --ray has others do it; leave it out")
        loaded = [entry for entry in as_tuple(self.compare or self.weights) if not isinstance(entry, (str, Path))]
        if loaded:
            raise UsageError(
                f"--ray sends files of weights to other processes, and given is a {type(loaded[0]).__name__}; save it first"
            )

    def _fill_in_weights_and_source(self) -> None:
        """Store the weights and the source that stand for those that are not given."""
        weights, source = weights_and_source(self.compare or self.weights, self.source)
        object.__setattr__(self, "weights", weights if self.compare is None else None)
        object.__setattr__(self, "source", source)

    @property
    def variants(self) -> list[Settings]:
        """What is explained and how: one entry for each method and, where asked for, each layer."""
        return variants(self.settings, self.each_layer)

    @property
    def settings(self) -> dict:
        """The part that says what is explained and how, as keywords of Settings; method may be several."""
        return {entry.name: getattr(self, entry.name) for entry in fields(Settings)}

    @property
    def style(self) -> Style:
        """How pictures are drawn."""
        return Style(**{entry.name: getattr(self, entry.name) for entry in fields(Style)})


def pixels_or_auto(name: str, given: int | str) -> int | str:
    """Return a number of pixels, which may be given as text, or auto; UsageError for anything else."""
    if given == "auto":
        return given
    pixels = int(given) if isinstance(given, str) and given.isdecimal() else given
    if not isinstance(pixels, Integral) or isinstance(pixels, bool) or pixels < 0:
        raise UsageError(f"--{name} {given} is neither auto nor a whole number of pixels; try --{name} 2")
    return pixels


def weights_and_source(weights, source, root: Path = ROOT) -> tuple:
    """Return weights and source as given, with defaults for those that are None.

    Without either it is the demo below `root`, where that is bundled: a small model and scenes drawn for it. Else the
    weights are yolov5s.pt, and the source is data/images, or the demo's scenes in a tree without such a folder.
    """
    demo, photos = bundled_demo(root), root / "data/images"
    if demo and weights is None and source is None:
        return demo
    if source is None:
        source = demo[1] if demo and not photos.is_dir() else photos
    return root / "yolov5s.pt" if weights is None else with_suffix(weights), source


def build_options(given: dict, kind: type = Options):
    """Return the options of a command by `given` names and values; an unknown name is a UsageError listing the known ones."""
    known = [entry.name for entry in fields(kind)]
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    return kind(**given)


class NarrowHelp(argparse.RawDescriptionHelpFormatter):
    """Help that leaves descriptions as they are, and lists one spelling of each option."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = copy(action)
        shown.option_strings = [spelling for spelling in action.option_strings if "_" not in spelling]
        return super()._format_action_invocation(shown)


def build_parser(description: str, kind: type = Options) -> argparse.ArgumentParser:
    """Return the parser of a command: one argument for each option, with its default, under the heading of its group.

    In a group the options of the command itself come first, then the settings.
    """
    places = table_of("places that --layer knows:", {place.name: place.about for place in PLACES.values()})
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description=description,
        epilog=f"{places}\n\n{BOTH_SPELLINGS}",
        formatter_class=NarrowHelp,
    )
    groups = {title: parser.add_argument_group(title) for title in kind.GROUPS}
    own = inspect.get_annotations(kind)
    for entry in sorted(fields(kind), key=lambda entry: entry.name not in own):
        add_option(groups[entry.metadata["group"]], entry)
    return parser


def add_option(group, entry: Field) -> None:
    """Add the argument of one field to a group of a parser; it may be spelt with underscores, too."""
    spellings = dict.fromkeys((f"--{entry.name.replace('_', '-')}", f"--{entry.name}"))
    argument = {name: value for name, value in entry.metadata.items() if name != "group"}
    if entry.default is False:
        argument["action"] = "store_true"
    else:
        argument["default"] = entry.default
        argument["help"] += default_text(entry.default)
    group.add_argument(*spellings, **argument)


def default_text(default: object) -> str:
    """Return how the help of an option ends, given its default: nothing where that says nothing."""
    if default in (None, ""):
        return ""
    if isinstance(default, Path):
        default = default.relative_to(ROOT)
    return f" (default: {' '.join(map(str, as_tuple(default)))})"


def table_of(title: str, entries: Mapping[str, str]) -> str:
    """Return a title and entries by name as lines of text, for the end of a help."""
    width = max(map(len, entries)) + 4
    lines = [
        textwrap.fill(f"  {name:{width - 2}}{text}", HELP_WIDTH, subsequent_indent=" " * width)
        for name, text in entries.items()
    ]
    return "\n".join((title, *lines))


def keyword_signature(kind: type = Options) -> inspect.Signature:
    """Return the signature of a function that takes every option of a command by keyword."""
    return inspect.Signature(
        inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=entry.type)
        for entry in fields(kind)
        if entry.default is not MISSING
    )
