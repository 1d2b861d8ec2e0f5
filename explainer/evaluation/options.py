"""What can be asked of an evaluation: names, defaults, help texts and checks, written once."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path

from explainer.errors import UsageError, unknown
from explainer.methods import FUSIONS, METHODS, canonical_method
from explainer.options import Settings, as_tuple, fraction, option, whole_number

ROOT = Path(__file__).resolve().parents[2]
DELETIONS = ("zero", "grey", "blur")
# The method that stands for no method at all; it is part of every evaluation.
RANDOM = "RandomCAM"
# In place of the names of all methods.
EVERY = "all"
# Targets that --backprop-array has no part in: the method knows what it explains.
ITS_OWN_QUESTION = ("finer", "similarity")


def as_in_settings(name: str):
    """Return the dataclass field of an option that is one of the explainer's settings, too."""
    entry = next(entry for entry in fields(Settings) if entry.name == name)
    return field(default=entry.default, metadata=entry.metadata)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One run of the command. Checked when built; names are stored in their canonical spelling."""

    weights: str | tuple = option(ROOT / "yolov5s.pt", "checkpoint, or several for an ensemble", nargs="+")
    data: str = option(
        ROOT / "data/coco128.yaml",
        "dataset YAML, or a folder, a .txt list or a single image; labels beside them are used",
    )
    method: str | tuple = option(
        ("GradCAM", "LayerCAM"),
        "what is evaluated, not case-sensitive: all, or " + ", ".join(METHODS),
        nargs="+",
        metavar="NAME",
    )
    layer: str | tuple = option(
        "auto",
        "where the methods read, each by itself: auto, -2, 13, a module name; with commas several that are fused: 4,13",
        nargs="+",
    )
    fuse: str | tuple = option(
        "auto", f"how fused layers become one map, each by itself: auto, {', '.join(FUSIONS)}", nargs="+"
    )
    backprop_array: str | tuple = as_in_settings("backprop_array")
    imgsz: int | tuple = as_in_settings("imgsz")
    conf_thres: float = as_in_settings("conf_thres")
    iou_thres: float = as_in_settings("iou_thres")
    masks: int | None = as_in_settings("masks")
    grid: int | None = as_in_settings("grid")
    mask_p: float = as_in_settings("mask_p")
    baseline: str = as_in_settings("baseline")
    fraction: float = option(1.0, "share of the images, drawn by seed", type=float)
    max_det_per_image: int = option(10, "detections of an image at most, drawn by seed", type=int)
    steps: int = option(20, "equal parts in which pixels are deleted and inserted", type=int)
    deletion: str = option("zero", f"what deleted pixels become: {', '.join(DELETIONS)}")
    half: bool = option(
        False,
        "masked passes in half precision, bfloat16 on a CPU: nearly twice as fast, and figures differ by about 0.005",
    )
    road: bool = option(False, "also ROAD, which imputes removed pixels (slow)")
    sanity: bool = option(False, "also compare with maps of shuffled weights, and of the second class (slow)")
    seed: int = option(0, "of all that is drawn at random", type=int)
    batch_size: int | None = option(None, "images in one pass (default: by device)", type=int)
    device: str = option("", "cuda device, such as 0, or cpu")
    project: str = option(ROOT / "runs/evaluate", "folder that holds the results of all runs")
    name: str = option("exp", "folder of this run below the project")
    exist_ok: bool = option(False, "write into an existing folder instead of a new one with a number")
    resume: str | None = option(None, "folder of a run that was stopped: go on with its options", metavar="FOLDER")
    nosave: bool = option(False, "tables alone: no plots, no pictures of the best and the worst")
    trust: bool = option(False, "unpickle the checkpoint fully; it can then run code: only for files you made yourself")

    def __post_init__(self):
        set_field = object.__setattr__  # the class is frozen; this is the one place that writes
        given = METHODS if as_tuple(self.method) == (EVERY,) else as_tuple(self.method)
        set_field(self, "method", tuple(dict.fromkeys(map(canonical_method, given))))
        set_field(self, "layer", tuple(dict.fromkeys(map(str, as_tuple(self.layer)))))
        set_field(self, "fuse", tuple(dict.fromkeys(as_tuple(self.fuse))))
        fraction("fraction", self.fraction)
        for entry in as_tuple(self.weights):
            if not isinstance(entry, (str, Path)):
                raise UsageError(
                    f"--weights takes paths, so that a run can be gone on with; given: {type(entry).__name__}"
                )
        for name, least in (("max-det-per-image", 1), ("steps", 2), ("seed", 0)):
            whole_number(name, getattr(self, name.replace("-", "_")), at_least=least)
        if self.batch_size is not None:
            whole_number("batch-size", self.batch_size, at_least=1)
        if self.deletion not in DELETIONS:
            raise unknown("--deletion", self.deletion, DELETIONS)
        if not self.method or not self.layer or not self.fuse:
            raise UsageError(
                "--method, --layer and --fuse need at least one name each; leave them out for the defaults"
            )
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
            backprop_array="class" if METHODS[method].target in ITS_OWN_QUESTION else self.backprop_array,
            imgsz=self.imgsz,
            conf_thres=self.conf_thres,
            iou_thres=self.iou_thres,
            masks=self.masks,
            grid=self.grid,
            mask_p=self.mask_p,
            baseline=self.baseline,
            seed=self.seed,
        )
