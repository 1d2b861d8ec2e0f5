"""What is explained and how: names, defaults, help texts and checks, written once, and which combinations make sense.

The command line, `run()` and `Explainer` all read `Settings`. A setting that the method has no use for is a `UsageError`
with the reason in one line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral, Real

from explainer.detectors.detector import MADE_FROM, PLACES, Suppression
from explainer.detectors.predictions import ITEM_ALIASES, ITEMS, canonical_item
from explainer.detectors.weights import is_exported
from explainer.errors import UsageError, unknown
from explainer.methods.black_box import BASELINES
from explainer.methods.catalogue import BEST, FUSIONS, METHODS, NOT_APPLICABLE, canonical_method, predictions_alone

# How the maps of several detections become one.
TOGETHER = ("each", "sum")

# An image of that size takes 600 MB as it is read, and a multiple while it is explained.
MAX_MEGAPIXELS = 200.0
MAX_MEGAPIXELS_HELP = "skip images that claim more million pixels than this"


# In place of the address of a cluster: one of this machine.
LOCAL = "local"


def option(default, text: str, *, group: str, **argument):
    """Return a dataclass field that carries its own command-line argument; `argument` goes to `add_argument`.

    group: the heading that --help lists it under.
    """
    return field(default=default, metadata={"help": text, "group": group, **argument})


def as_tuple(value) -> tuple:
    """Return `value` as a tuple: one thing becomes a tuple of one, None an empty one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple, set, range)) else (value,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to be explained, and how. Checked when built; names are stored in their canonical spelling."""

    method: str = option(
        "GradCAM",
        f"how the map is computed, not case-sensitive: best (now {BEST}), {', '.join(METHODS)}",
        group="method",
        metavar="NAME",
    )
    layer: str | int | tuple = option(
        "auto",
        "auto (the best for the method), an index such as -2 or 17, a module name such as model.23.cv3.act, several of "
        f"these (their maps are averaged), or one of the places listed below: {', '.join(PLACES)}",
        group="method",
        nargs="+",
    )
    fuse: str = option(
        "auto",
        f"how the maps of several layers become one: {', '.join(FUSIONS)}, or auto: the method's own way",
        group="method",
        metavar="WAY",
    )
    backprop_array: str | tuple = option(
        "auto",
        f"what of a detection is explained: {', '.join(ITEMS)} ({', '.join(ITEM_ALIASES)} for short), or auto: the class, "
        + ", ".join(f"for {name} {' '.join(way.items)}" for name, way in METHODS.items() if way.items != ("class",)),
        group="question",
        nargs="+",
        metavar="ITEM",
    )
    class_names: str | tuple | None = option(
        None, "explain only these classes: cat dog", group="question", nargs="+", metavar="NAME"
    )
    classes: int | tuple | None = option(
        None, "detect only these class indices: 0 15 16", group="question", nargs="+", type=int, metavar="INDEX"
    )
    backward_per_class: bool = option(
        False, "one map per class, each scaled to its own peak, and a picture of each", group="question"
    )
    use_old_target_method: bool = option(
        False, "score = sum of all raw probabilities of the chosen classes, not the detections", group="question"
    )
    imgsz: int | tuple | None = option(
        None,
        "inference size in pixels: one side, or height and width; without it the model's own, 640 for a YOLO",
        group="model and source",
        nargs="+",
        type=int,
        metavar="PIXELS",
    )
    conf_thres: float = option(
        0.25, "confidence that a detection needs, 0..1", group="model and source", type=float, metavar="SHARE"
    )
    iou_thres: float = option(
        0.45,
        "overlap above which non-maximum suppression drops a box, 0..1",
        group="model and source",
        type=float,
        metavar="SHARE",
    )
    max_det: int = option(1000, "detections per image at most", group="model and source", type=int, metavar="N")
    eigen_smooth: bool = option(
        False, "less noise: the first principal component of a map's channels, not their sum", group="method"
    )
    aug_smooth: bool = option(
        False, "less noise: the mean over six views, mirrored or not, darker or brighter (6x slower)", group="method"
    )
    keep_only_topk: float = option(
        100,
        "only the hottest so many percent of the pixels keep their value",
        group="picture",
        type=float,
        metavar="PERCENT",
    )
    renormalize: bool = option(
        False, "scale each detection's map inside its box to 0..1, and blank it outside", group="picture"
    )
    masks: int | None = option(
        None, "masked passes at most (default: by method)", group="black box", type=int, metavar="N"
    )
    grid: int | None = option(
        None,
        "cells of a random mask, along the longer side (default: by method)",
        group="black box",
        type=int,
        metavar="N",
    )
    mask_p: float = option(
        0.5, "share of the picture that a random mask keeps, on average", group="black box", type=float, metavar="SHARE"
    )
    baseline: str = option(
        "grey",
        f"what a mask shows where it keeps nothing: {', '.join(BASELINES)}",
        group="black box",
        metavar="NAME",
    )
    seed: int = option(0, "seed of the random masks", group="black box", type=int, metavar="N")
    together: str = option(
        "each",
        "several detections in one picture: each scaled to its own peak, or sum, where some shadow the others",
        group="picture",
        metavar="WAY",
    )
    no_near_miss: bool = option(
        False,
        "where nothing is detected explain nothing; else it is the best prediction below the threshold, drawn dashed",
        group="question",
    )
    signed: bool = option(False, "show also what speaks against: red for, blue against", group="question")
    scales: bool = option(False, "also a map of what comes from each scale of the head, side by side", group="question")

    def __post_init__(self):
        set_field = object.__setattr__  # the class is frozen; this is the one place that writes
        set_field(self, "method", canonical_method(self.method, lambda known: advice_for(known, self)))
        set_field(self, "layer", tuple(self._layer(entry) for entry in as_tuple(self.layer)) or ("auto",))
        set_field(self, "backprop_array", self._items())
        set_field(self, "class_names", as_tuple(self.class_names))
        set_field(self, "classes", as_tuple(self.classes))
        set_field(self, "imgsz", self._height_and_width())
        check_fraction("conf-thres", self.conf_thres)
        check_fraction("iou-thres", self.iou_thres)
        check_whole_number("max-det", self.max_det, at_least=1)
        if not self.backprop_array:
            raise unknown("item", "", ITEMS)
        if self.together not in TOGETHER:
            raise unknown("--together", self.together, TOGETHER)
        if self.fuse not in ("auto", *FUSIONS):
            raise unknown("fusion", self.fuse, ("auto", *FUSIONS))
        self._check_masks()
        alone = next((entry for entry in self.layer if entry in ("auto", *PLACES)), None)
        if len(self.layer) > 1 and alone:
            raise UsageError(f"--layer {alone} stands alone; given: {' '.join(map(str, self.layer))}")
        if not isinstance(self.keep_only_topk, Real) or not 0 < self.keep_only_topk <= 100:
            raise UsageError(f"--keep-only-topk {self.keep_only_topk} is no percentage; try --keep-only-topk 10")
        check_combination(self)

    @cached_property
    def suppression(self) -> Suppression:
        """What becomes a detection."""
        return Suppression(
            conf_thres=self.conf_thres, iou_thres=self.iou_thres, max_det=self.max_det, classes=self.classes
        )

    def _check_masks(self) -> None:
        """Raise UsageError where the random masks cannot be as they were asked for."""
        for name, value, least in (("masks", self.masks, 1), ("grid", self.grid, 2), ("seed", self.seed, 0)):
            if value is not None:
                check_whole_number(name, value, at_least=least)
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

    def _height_and_width(self) -> tuple[int, int] | None:
        """Return `imgsz` as (height, width), None for the model's own."""
        if self.imgsz is None:
            return None
        sides = as_tuple(self.imgsz)
        if len(sides) not in (1, 2):
            raise UsageError(f"--imgsz takes one side, or height and width; given: {' '.join(map(str, sides))}")
        for side in sides:
            check_whole_number("imgsz", side, at_least=32)
        return sides * 2 if len(sides) == 1 else sides


@dataclass(frozen=True, kw_only=True)
class OnCluster:
    """Whether a run is spread over the processes of a Ray cluster, and over how many."""

    ray: str | None = option(
        None,
        "spread the images over the processes of a Ray cluster: without an address one that is started on this machine, "
        "for this run",
        group="cluster",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
    )
    workers: int | None = option(
        None,
        "processes of the cluster (default: one for each GPU, else for each core)",
        group="cluster",
        type=int,
        metavar="N",
    )
    gpus_per_worker: float | None = option(
        None,
        "share of a GPU that each takes (default: 1 where there are any)",
        group="cluster",
        type=float,
        metavar="SHARE",
    )

    def check_cluster(self) -> None:
        """Raise UsageError for what cannot be asked of a cluster."""
        given = {
            name: getattr(self, name) for name in ("workers", "gpus_per_worker") if getattr(self, name) is not None
        }
        if given and not self.ray and not getattr(self, "resume", None):
            raise UsageError(f"{as_typed(*next(iter(given.items())))} is for a cluster; add --ray")
        if self.workers is not None:
            check_whole_number("workers", self.workers, at_least=1)
        if self.gpus_per_worker is not None and not (
            isinstance(self.gpus_per_worker, Real) and self.gpus_per_worker >= 0
        ):
            raise UsageError(
                f"--gpus-per-worker {self.gpus_per_worker} is no share of a GPU; try --gpus-per-worker 0.5"
            )


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


def check_fraction(name: str, value: float) -> None:
    """Raise UsageError unless `value` lies in 0..1."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise UsageError(f"--{name} {value} is outside 0..1; try --{name} 0.25")


def check_positive(name: str, value: float) -> None:
    """Raise UsageError unless `value` is a number above 0."""
    if not isinstance(value, Real) or not value > 0:
        raise UsageError(f"--{name} {value} is no number above 0")


def check_whole_number(name: str, value: int, at_least: int) -> None:
    """Raise UsageError unless `value` is an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise UsageError(f"--{name} {value} is not a whole number of at least {at_least}")


def check_combination(settings: Settings) -> None:
    """Raise UsageError where the method of some Settings cannot do what other settings ask for."""
    name, method = settings.method, METHODS[settings.method]
    usual = {"layer": ("auto",), "fuse": "auto", "backprop_array": method.items}
    for option_name, reason in method.refuses.items():
        given = getattr(settings, option_name)
        if given != usual.get(option_name, False):
            raise UsageError(f"{name} {reason}; leave {as_typed(option_name, given)} out")
    if method.project and settings.eigen_smooth:
        raise UsageError(
            f"--eigen-smooth does not apply to {name}, which has a way of its own to make a map of channels; leave it out"
        )
    if settings.signed:
        check_sign(settings)
    if settings.signed and settings.renormalize:
        raise UsageError("--renormalize scales what speaks for inside each box; leave it or --signed out")


def as_typed(name: str, value: object) -> str:
    """Return an option as it is typed, with its value unless it is a flag."""
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {' '.join(map(str, as_tuple(value)))}"


def check_sign(settings) -> None:
    """Raise UsageError where a map does not tell what speaks against from what speaks for."""
    name, method = settings.method, METHODS[settings.method]
    if method.no_sign:
        known = ", ".join(known for known, entry in METHODS.items() if not entry.no_sign)
        raise UsageError(
            f"--signed does not apply to {name}: {method.no_sign}; methods whose maps have a sign: {known}"
        )
    if settings.eigen_smooth:
        raise UsageError(
            "--eigen-smooth shows a principal component, whose sign is arbitrary; leave it or --signed out"
        )
    if FUSIONS.get(settings.fuse):
        raise UsageError(f"--fuse {settings.fuse} takes what speaks for, without what speaks against; leave it out")
    if settings.aug_smooth:
        raise UsageError("--aug-smooth averages what speaks for, without what speaks against; leave it or --signed out")


def check_given(settings, boxes, labels) -> None:
    """Raise UsageError where boxes or labels, None where there are none, contradict each other or the settings."""
    given = [name for name, entries in (("boxes", boxes), ("labels", labels)) if entries is not None]
    if len(given) == 2:
        raise UsageError(
            "--boxes explains the given boxes alone, --labels judges the detections; leave one of them out"
        )
    if given and settings.use_old_target_method:
        raise UsageError(
            f"--use-old-target-method explains the sum of all predictions, not single boxes; leave it or --{given[0]} out"
        )
    if boxes is not None and (settings.class_names or settings.classes):
        chosen = "class-names" if settings.class_names else "classes"
        raise UsageError(f"--boxes says the class of each box itself; leave --{chosen} out")


def checked_methods(options) -> tuple[str, ...]:
    """Return the methods of some options, each once and as the table spells it.

    UsageError for one that is unknown or cannot apply; it says what takes its place where the other options allow that.
    """
    names = as_tuple(options.method)
    return tuple(dict.fromkeys(canonical_method(name, lambda known: advice_for(known, options)) for name in names))


def advice_for(name: str, options) -> str:
    """Return what to try in place of a method that cannot apply: nothing where that is set already, or does not suit."""
    setting, value = NOT_APPLICABLE[name].instead
    others = tuple(other for other in as_tuple(options.method) if str(other).lower() != name.lower())
    if setting == "method":
        is_set = value.lower() in (str(other).lower() for other in others)
        changed = {"method": (*others, value) if others else value}
    else:
        is_set = getattr(options, setting, value) == value
        changed = {"method": others or type(options).method, setting: value}
    return "" if is_set or not suits(options, changed) else f"; try {as_typed(setting, value)}"


def suits(options, changed: dict[str, object]) -> bool:
    """Return whether options can be changed so: settings that go together, and methods that the weights have layers for."""
    try:
        tried = replace(options, **changed)
        weights = getattr(tried, "compare", None) or getattr(tried, "weights", None)
        check_layers_there(as_tuple(weights), as_tuple(tried.method))
    except UsageError:
        return False
    return True


def check_layers_there(weights: tuple, methods: Iterable[str]) -> None:
    """Raise UsageError where weights are an exported model, which gives predictions alone, and a method reads layers."""
    for entry in filter(is_exported, weights):
        for method in methods:
            if METHODS[method].reads_layers:
                what = f"weights '{entry}' is no .pt checkpoint: an exported model"
                raise UsageError(predictions_alone(what, method, MADE_FROM))
