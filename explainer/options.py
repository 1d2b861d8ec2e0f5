"""What can be asked of the explainer: names, defaults, help texts and checks, written once.

The command line, `run()` and the notebook object all read these two classes.
"""

import argparse
import inspect
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path

from explainer.applicability import check_combination, check_given
from explainer.defaults import weights_and_source
from explainer.detectors.weights import model_names
from explainer.errors import UsageError, unknown
from explainer.files.labels import written_boxes
from explainer.items import ITEM_ALIASES, ITEMS, canonical_item
from explainer.methods import BASELINES, FUSIONS, METHODS, PLACES, canonical_method
from explainer.pictures.drawing import SELECTION, Style, canonical_colormap

ROOT = Path(__file__).resolve().parents[1]


def option(default, text: str, **argument):
    """Return a dataclass field that carries its own command-line argument; `argument` goes to `add_argument`."""
    return field(default=default, metadata={"help": text, **argument})


def as_tuple(value) -> tuple:
    """Return `value` as a tuple: one thing becomes a tuple of one, None an empty one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple, set, range)) else (value,)


def fraction(name: str, value: float) -> None:
    """Raise UsageError unless `value` lies in 0..1."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise UsageError(f"--{name} {value} is outside 0..1; try --{name} 0.25")


def whole_number(name: str, value: int, at_least: int) -> None:
    """Raise UsageError unless `value` is an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise UsageError(f"--{name} {value} is not a whole number of at least {at_least}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to be explained, and how. Checked when built; names are stored in their canonical spelling."""

    method: str = option(
        "GradCAM", "how the map is computed, not case-sensitive: " + ", ".join(METHODS), metavar="NAME"
    )
    layer: str | int | tuple = option(
        "auto",
        "auto (the best for the method), an index such as -2 or 17, several (their maps are averaged), module names such as "
        f"model.23.cv3.act, or a place: {'; '.join(f'{name}, {what}' for name, what in PLACES.items())}",
        nargs="+",
    )
    fuse: str = option(
        "auto", f"how the maps of several layers become one: {', '.join(FUSIONS)}, or auto: the method's own way"
    )
    backprop_array: str | tuple = option(
        "auto",
        f"what of a detection is explained: {', '.join(ITEMS)} ({', '.join(ITEM_ALIASES)} for short), or auto: the class, "
        + ", ".join(f"for {name} {' '.join(way.items)}" for name, way in METHODS.items() if way.items != ("class",)),
        nargs="+",
        metavar="ITEM",
    )
    class_names: str | tuple | None = option(None, "explain only these classes: cat dog", nargs="+", metavar="NAME")
    classes: int | tuple | None = option(None, "detect only these class indices: 0 15 16", nargs="+", type=int)
    backward_per_class: bool = option(False, "one map per class, each scaled to its own peak, and a picture of each")
    use_old_target_method: bool = option(
        False, "score = sum of all raw probabilities of the chosen classes, not the detections"
    )
    imgsz: int | tuple = option(640, "inference size in pixels: one side, or height and width", nargs="+", type=int)
    conf_thres: float = option(0.25, "confidence that a detection needs", type=float)
    iou_thres: float = option(0.45, "overlap above which non-maximum suppression drops a box", type=float)
    max_det: int = option(1000, "detections per image at most", type=int)
    eigen_smooth: bool = option(False, "less noise: the first principal component of a map's channels, not their sum")
    aug_smooth: bool = option(
        False, "less noise: the mean over six views, mirrored or not, darker or brighter (6x slower)"
    )
    keep_only_topk: float = option(100, "only the hottest so many percent of the pixels keep their value", type=float)
    renormalize: bool = option(False, "scale each detection's map inside its box to 0..1, and blank it outside")
    masks: int | None = option(None, "masked passes at most; black-box methods only (default: by method)", type=int)
    grid: int | None = option(None, "cells of a random mask, along the longer side (default: by method)", type=int)
    mask_p: float = option(0.5, "share of the picture that a random mask keeps, on average", type=float)
    baseline: str = option("grey", f"what a mask shows where it keeps nothing: {', '.join(BASELINES)}")
    seed: int = option(0, "seed of the random masks", type=int)
    signed: bool = option(False, "show also what speaks against: red for, blue against")
    scales: bool = option(False, "also a map of what comes from each scale of the head, side by side")

    def __post_init__(self):
        set_field = object.__setattr__  # the class is frozen; this is the one place that writes
        set_field(self, "method", canonical_method(self.method))
        set_field(self, "layer", tuple(self._layer(entry) for entry in as_tuple(self.layer)) or ("auto",))
        set_field(self, "backprop_array", self._items())
        set_field(self, "class_names", as_tuple(self.class_names))
        set_field(self, "classes", as_tuple(self.classes))
        set_field(self, "imgsz", self._height_and_width())
        fraction("conf-thres", self.conf_thres)
        fraction("iou-thres", self.iou_thres)
        whole_number("max-det", self.max_det, at_least=1)
        if not self.backprop_array:
            raise unknown("item", "", ITEMS)
        if self.fuse not in ("auto", *FUSIONS):
            raise unknown("fusion", self.fuse, ("auto", *FUSIONS))
        self._check_masks()
        alone = next((entry for entry in self.layer if entry in ("auto", *PLACES)), None)
        if len(self.layer) > 1 and alone:
            raise UsageError(f"--layer {alone} stands alone; given: {' '.join(map(str, self.layer))}")
        if not isinstance(self.keep_only_topk, Real) or not 0 < self.keep_only_topk <= 100:
            raise UsageError(f"--keep-only-topk {self.keep_only_topk} is no percentage; try --keep-only-topk 10")
        check_combination(self)

    def _check_masks(self) -> None:
        """Raise UsageError where the random masks cannot be as they were asked for."""
        for name, value, least in (("masks", self.masks, 1), ("grid", self.grid, 2), ("seed", self.seed, 0)):
            if value is not None:
                whole_number(name, value, at_least=least)
        if not isinstance(self.mask_p, Real) or not 0 < self.mask_p < 1:
            raise UsageError(f"--mask-p {self.mask_p} does not lie between 0 and 1; try --mask-p 0.5")
        if self.baseline not in BASELINES:
            raise unknown("baseline", self.baseline, BASELINES)

    def _items(self) -> tuple[str, ...]:
        """Return what of a detection is explained, each item once."""
        given = as_tuple(self.backprop_array)
        return METHODS[self.method].items if given == ("auto",) else tuple(dict.fromkeys(map(canonical_item, given)))

    @staticmethod
    def _layer(entry: str | int) -> str | int:
        """Return an index as an integer and a name as it is."""
        if isinstance(entry, Integral) and not isinstance(entry, bool):
            return int(entry)
        if not isinstance(entry, str) or not entry.strip():
            raise UsageError(f"--layer {entry!r} is neither an index, a module name nor auto; try --layer -2")
        name = entry.strip()
        return int(name) if name.lstrip("+-").isdecimal() else name

    def _height_and_width(self) -> tuple[int, int]:
        """Return `imgsz` as (height, width)."""
        sides = as_tuple(self.imgsz)
        if len(sides) not in (1, 2):
            raise UsageError(f"--imgsz takes one side, or height and width; given: {' '.join(map(str, sides))}")
        for side in sides:
            whole_number("imgsz", side, at_least=32)
        return sides * 2 if len(sides) == 1 else sides


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """One run of the command: the settings, where pictures come from and where results go."""

    method: str | tuple = option(
        Settings.method,
        "how the map is computed, not case-sensitive; several are shown side by side: " + ", ".join(METHODS),
        nargs="+",
        metavar="NAME",
    )
    each_layer: bool = option(False, "a map of each layer that --layer names, side by side, not their average")
    weights: str | tuple | None = option(
        None,
        "checkpoint, or several for an ensemble; without it and --source the bundled demo, else yolov5s.pt",
        nargs="+",
    )
    compare: tuple | None = option(None, "checkpoints to compare, in place of --weights: a.pt b.pt", nargs="+")
    source: str | None = option(
        None,
        "image, video, folder, glob, list.txt, URL, stream, webcam index or screen; without it and --weights the bundled "
        "demo, else data/images where that is there",
    )
    data: str | None = option(None, "dataset YAML that names the classes, where the checkpoint does not")
    device: str = option("", "cuda device, such as 0, or cpu")
    view_img: bool = option(False, "show the pictures in a window")
    nosave: bool = option(False, "write no pictures; the table is still written")
    project: str = option(ROOT / "runs/explain", "folder that holds the results of all runs")
    name: str = option("exp", "folder of this run below the project")
    exist_ok: bool = option(False, "write into an existing folder instead of a new one with a number")
    line_thickness: int = option(3, "line width of boxes in pixels", type=int)
    hide_labels: bool = option(False, "boxes without labels")
    hide_conf: bool = option(False, "labels without confidences")
    half: bool = option(False, "run the network in half precision (GPU only)")
    dnn: bool = option(False, "OpenCV's DNN for ONNX files")
    vid_stride: int = option(1, "explain every n-th frame of a video", type=int)
    crop: bool = option(False, "blank the evidence out: pixels that keep-only-topk keeps become the image's mean")
    trust: bool = option(False, "unpickle the checkpoint fully; it can then run code: only for files you made yourself")
    per_detection: bool = option(False, "also a picture of each detection's own map, and a contact sheet of the image")
    save_npz: bool = option(False, "also the maps as arrays (float16), with boxes and names")
    boxes: tuple | None = option(
        None,
        "explain this box instead of the detections, detected or not; in pixels of the image, repeatable",
        nargs=5,
        action="append",
        metavar=("X1", "Y1", "X2", "Y2", "CLASS"),
    )
    labels: str | None = option(
        None, "folder of YOLO label files, or one: tells hits from false alarms, and explains what was missed"
    )
    colormap: str = option(
        Style.colormap,
        f"colours of the map, a name of matplotlib's or OpenCV's: {', '.join(SELECTION)}, ...",
        metavar="NAME",
    )
    alpha: float = option(Style.alpha, "opacity of the colours where the map is hottest, 0..1", type=float)
    suspects: int = option(0, "list and show so many detections whose evidence lies most outside their box", type=int)
    verbose: bool = option(False, "one log line per detection")

    def __post_init__(self):
        self._check_settings()
        self._check_compared()
        self._fill_in_weights_and_source()
        object.__setattr__(self, "colormap", canonical_colormap(self.colormap))
        fraction("alpha", self.alpha)
        whole_number("vid-stride", self.vid_stride, at_least=1)
        whole_number("line-thickness", self.line_thickness, at_least=0)
        whole_number("suspects", self.suspects, at_least=0)
        object.__setattr__(self, "boxes", written_boxes(self.boxes, "boxes"))
        check_given(self, self.boxes, self.labels)
        if self.signed and self.crop:
            raise UsageError("--crop blanks out what speaks for, and shows no colours; leave it or --signed out")

    def _check_settings(self) -> None:
        """Check the settings with each method and each layer by itself."""
        methods = tuple(dict.fromkeys(way.method for way in self.variants))
        object.__setattr__(self, "method", methods[0])
        super().__post_init__()
        object.__setattr__(self, "method", methods if len(methods) > 1 else methods[0])

    def _check_compared(self) -> None:
        """Store the models to compare as a tuple; UsageError for one alone, or one twice, or other weights besides."""
        if self.compare is None:
            return
        models = as_tuple(self.compare)
        if len(models) < 2:
            given = " ".join(map(str, models)) or "none"
            raise UsageError(f"--compare takes two checkpoints or more, such as best.pt last.pt; given: {given}")
        if self.weights != type(self).weights:
            raise UsageError("--compare names the checkpoints itself; leave --weights out")
        model_names(models)
        object.__setattr__(self, "compare", models)

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


def variants(settings: dict, each_layer: bool) -> list[Settings]:
    """Return the settings of each map: one entry for each method and, with `each_layer`, for each layer by itself.

    settings: keywords of Settings, of which method may be several. UsageError as Settings raises it.
    """
    methods = tuple(dict.fromkeys(map(canonical_method, as_tuple(settings.get("method", Settings.method)))))
    layers = tuple(dict.fromkeys(as_tuple(settings.get("layer", Settings.layer))))
    if not methods:
        raise unknown("method", "", METHODS)
    if each_layer and len(layers) < 2:
        raise UsageError("--each-layer shows several layers side by side; name them: --layer 17 20 23 --each-layer")
    if each_layer and settings.get("fuse", "auto") != "auto":
        raise UsageError(f"--each-layer shows each layer by itself; leave it or --fuse {settings['fuse']} out")
    ways = [(method, layer) for method in methods for layer in (layers if each_layer else [layers])]
    return [Settings(**settings | {"method": method, "layer": layer}) for method, layer in ways]


def build_options(given: dict, kind: type = Options):
    """Return the options of a command by `given` names and values; an unknown name is a UsageError listing the known ones."""
    known = [entry.name for entry in fields(kind)]
    for name in given:
        if name not in known:
            raise unknown("option", name, known)
    return kind(**given)


def build_parser(description: str, kind: type = Options) -> argparse.ArgumentParser:
    """Return the parser of a command: one argument for each option, with its default."""
    parser = argparse.ArgumentParser(description=description)
    for entry in fields(kind):
        spellings = dict.fromkeys((f"--{entry.name.replace('_', '-')}", f"--{entry.name}"))
        argument = dict(entry.metadata)
        if entry.default is False:
            argument["action"] = "store_true"
        else:
            argument["default"] = entry.default
            argument["help"] += "" if entry.default is None else f" (default: {entry.default})"
        parser.add_argument(*spellings, **argument)
    return parser


def keyword_signature(kind: type = Options) -> inspect.Signature:
    """Return the signature of a function that takes every option of a command by keyword."""
    return inspect.Signature(
        inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=entry.type)
        for entry in fields(kind)
        if entry.default is not MISSING
    )
