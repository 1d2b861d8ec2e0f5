"""What can be asked of an evaluation: names, defaults, help texts and checks, written once."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import ClassVar

from explainer.detectors.weights import bundled_demo, with_suffix
from explainer.errors import UsageError, unknown
from explainer.maps.trivial import TRIVIAL
from explainer.methods.catalogue import FUSIONS, METHODS
from explainer.settings import (
    MAX_MEGAPIXELS,
    MAX_MEGAPIXELS_HELP,
    OnCluster,
    Settings,
    as_tuple,
    check_fraction,
    check_positive,
    check_whole_number,
    checked_methods,
    option,
)

ROOT = Path(__file__).resolve().parents[2]
DELETIONS = ("zero", "grey", "blur")
# The method that stands for no method at all; it is part of every evaluation.
RANDOM = "RandomCAM"
# What takes part in every evaluation, as methods and layers: what explains nothing, and must not win.
BASELINES_OF_ALL = ((RANDOM, "auto"), *((name, "") for name in TRIVIAL))
# In place of the names of all methods.
EVERY = "all"


def as_in_settings(name: str, *, group: str):
    """Return the dataclass field of an option that is one of the explainer's settings, too."""
    entry = next(entry for entry in fields(Settings) if entry.name == name)
    return field(default=entry.default, metadata={**entry.metadata, "group": group})


def asked_or_demo(weights, data, root: Path = ROOT) -> tuple:
    """Return the weights and the data to evaluate: of a command without both those of the demo, where the tree has one."""
    demo = bundled_demo(root)
    if weights is None and data is None and demo is not None:
        return demo
    return root / "yolov5s.pt" if weights is None else weights, root / "data/coco128.yaml" if data is None else data


@dataclass(frozen=True, kw_only=True)
class Evaluation(OnCluster):
    """One run of the command. Checked when built; names are stored in their canonical spelling."""

    GROUPS: ClassVar = ("model and data", "method", "measuring", "black box", "output", "cluster")

    weights: str | tuple | None = option(
        None,
        "checkpoint, or several for an ensemble; without it and --data the bundled demo, else yolov5s.pt",
        group="model and data",
        nargs="+",
        metavar="FILE",
    )
    arch: str | None = option(
        None,
        "what a file of weights alone belongs to: the name of a torchvision model, or file.py:function, which is run",
        group="model and data",
        metavar="NAME",
    )
    data: str | None = option(
        None,
        "dataset YAML, or a folder, a .txt list or a single image; labels beside them are used; without it and --weights "
        "the bundled demo, else data/coco128.yaml",
        group="model and data",
    )
    method: str | tuple = option(
        ("GradCAM", "LayerCAM"),
        f"what is evaluated, not case-sensitive: all, or {', '.join(METHODS)}",
        group="method",
        nargs="+",
        metavar="NAME",
    )
    layer: str | tuple = option(
        "auto",
        "where the methods read, each by itself: auto, -2, 13, a module name, or a place; with commas several that are "
        "fused: 4,13",
        group="method",
        nargs="+",
    )
    fuse: str | tuple = option(
        "auto",
        f"how fused layers become one map, each by itself: auto, {', '.join(FUSIONS)}",
        group="method",
        nargs="+",
        metavar="WAY",
    )
    backprop_array: str | tuple = as_in_settings("backprop_array", group="method")
    imgsz: int | tuple = as_in_settings("imgsz", group="model and data")
    conf_thres: float = as_in_settings("conf_thres", group="model and data")
    iou_thres: float = as_in_settings("iou_thres", group="model and data")
    masks: int | None = as_in_settings("masks", group="black box")
    grid: int | None = as_in_settings("grid", group="black box")
    mask_p: float = as_in_settings("mask_p", group="black box")
    baseline: str = as_in_settings("baseline", group="black box")
    fraction: float = option(
        1.0, "share of the images, drawn by seed", group="model and data", type=float, metavar="SHARE"
    )
    max_det_per_image: int = option(
        10, "detections of an image at most, drawn by seed", group="model and data", type=int, metavar="N"
    )
    max_megapixels: float = option(MAX_MEGAPIXELS, MAX_MEGAPIXELS_HELP, group="model and data", type=float, metavar="N")
    steps: int = option(
        20, "equal parts in which pixels are deleted and inserted", group="measuring", type=int, metavar="N"
    )
    deletion: str = option(
        "zero", f"what deleted pixels become: {', '.join(DELETIONS)}", group="measuring", metavar="NAME"
    )
    half: bool = option(
        False,
        "masked passes in half precision, bfloat16 on a CPU: nearly twice as fast, and figures differ by about 0.005",
        group="measuring",
    )
    road: bool = option(False, "also ROAD, which imputes removed pixels (slow)", group="measuring")
    sanity: bool = option(
        False, "also compare with maps of shuffled weights, and of the second class (slow)", group="measuring"
    )
    robustness: bool = option(
        False, "also how far maps move under small noise, flips and shifts by a few pixels (slow)", group="measuring"
    )
    seed: int = option(0, "of all that is drawn at random", group="measuring", type=int, metavar="N")
    batch_size: int | None = option(
        None, "images in one pass (default: by device)", group="measuring", type=int, metavar="N"
    )
    device: str = option("", "cuda device, such as 0, or cpu", group="model and data")
    project: str = option(
        ROOT / "runs/evaluate", "folder that holds the results of all runs", group="output", metavar="FOLDER"
    )
    name: str = option("exp", "folder of this run below the project", group="output")
    exist_ok: bool = option(False, "write into an existing folder instead of a new one with a number", group="output")
    resume: str | None = option(
        None, "folder of a run that was stopped: go on with its options", group="output", metavar="FOLDER"
    )
    nosave: bool = option(False, "tables alone: no plots, no pictures of the best and the worst", group="output")
    report: bool = option(
        False, "also a page with the tables and the pictures, report.html, to look through offline", group="output"
    )
    trust: bool = option(
        False,
        "unpickle the checkpoint fully; it can then run code: only for files you made yourself",
        group="model and data",
    )

    def __post_init__(self):
        set_field = object.__setattr__  # the class is frozen; this is the one place that writes
        if as_tuple(self.method) == (EVERY,):
            set_field(self, "method", tuple(METHODS))
        set_field(self, "method", checked_methods(self))
        set_field(self, "layer", tuple(dict.fromkeys(map(str, as_tuple(self.layer)))))
        set_field(self, "fuse", tuple(dict.fromkeys(as_tuple(self.fuse))))
        for name, value in zip(("weights", "data"), asked_or_demo(self.weights, self.data), strict=True):
            set_field(self, name, value)
        check_fraction("fraction", self.fraction)
        check_positive("max-megapixels", self.max_megapixels)
        for entry in as_tuple(self.weights):
            if not isinstance(entry, (str, Path)):
                raise UsageError(
                    f"--weights takes paths, so that a run can be gone on with; given: {type(entry).__name__}"
                )
        set_field(self, "weights", with_suffix(self.weights))
        for name, least in (("max-det-per-image", 1), ("steps", 2), ("seed", 0)):
            check_whole_number(name, getattr(self, name.replace("-", "_")), at_least=least)
        if self.batch_size is not None:
            check_whole_number("batch-size", self.batch_size, at_least=1)
        if self.deletion not in DELETIONS:
            raise unknown("--deletion", self.deletion, DELETIONS)
        if not self.method or not self.layer or not self.fuse:
            raise UsageError(
                "--method, --layer and --fuse need at least one name each; leave them out for the defaults"
            )
        self.check_cluster()
        list(self.settings())

    def settings(self) -> Iterator[tuple[str, Settings]]:
        """Yield the layers as tables name them, and the settings, of all that is evaluated; the random baseline first."""
        yield "auto", self._settings(RANDOM, "auto", "auto")
        for method in self.method:
            chooses = METHODS[method].chooses_layers
            for layer, fuse in product(self.layer, self.fuse) if chooses else [("auto", "auto")]:
                name = layer if fuse == "auto" else f"{layer} {fuse}"
                if (method, name) != (RANDOM, "auto"):
                    yield name, self._settings(method, layer, fuse)

    def _settings(self, method: str, layer: str, fuse: str) -> Settings:
        """Return the settings of one explainer."""
        return Settings(
            method=method,
            layer=tuple(layer.split(",")),
            fuse=fuse,
            # Some methods know what they explain.
            backprop_array="auto" if "backprop_array" in METHODS[method].refuses else self.backprop_array,
            imgsz=self.imgsz,
            conf_thres=self.conf_thres,
            iou_thres=self.iou_thres,
            masks=self.masks,
            grid=self.grid,
            mask_p=self.mask_p,
            baseline=self.baseline,
            seed=self.seed,
            # What is measured are explanations of detections.
            no_near_miss=True,
        )
