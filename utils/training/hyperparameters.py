"""Hyperparameters of training: read from a YAML and checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from utils.autoanchor import checked_anchors
from utils.base.checks import check_yaml
from utils.base.logger import LOGGER
from utils.base.paths import ROOT
from utils.base.texts import read_yaml

DEFAULT = ROOT / "data/hyps/hyp.scratch-low.yaml"
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste")
# Files of earlier versions may not have these.
OPTIONAL = ("label_smoothing", "anchors")
# Beyond these nothing is learnt, or numbers overflow; YOLOv5's files, and evolution, stay far below.
MOST = {
    **dict.fromkeys(PROBABILITIES, 1.0),
    **dict.fromkeys(("lr0", "lrf", "warmup_bias_lr", "fl_gamma"), 10.0),
    **dict.fromkeys(("momentum", "warmup_momentum"), 0.9999),
    **dict.fromkeys(("weight_decay", "hsv_h", "hsv_s", "hsv_v", "translate", "scale"), 1.0),
    **dict.fromkeys(("box", "cls", "cls_pw", "obj", "obj_pw", "anchor_t", "warmup_epochs"), 1000.0),
    "iou_t": math.inf,
    "degrees": 180.0,
    "shear": 89.0,
    "perspective": 0.01,
}
# Where not 0. An object is learnt with an anchor from which it differs by less than anchor_t times.
LEAST = {"lr0": 1e-9, "anchor_t": 1.01}
# What a loss gain is meant for.
GAIN_LEVELS, GAIN_CLASSES, GAIN_PIXELS = 3, 80, 640


def load_hyp(hyp: str | Path | dict) -> dict[str, float]:
    """Return checked hyperparameters; what a file does not name is as in the default file.

    Raises:
        ValueError: for a file that is none, an unknown name, or a value that makes no sense.
    """
    content = dict(hyp) if isinstance(hyp, dict) else _read(Path(check_yaml(hyp)))
    source = "the hyperparameters" if isinstance(hyp, dict) else str(hyp)
    defaults = _read(DEFAULT)
    unknown = sorted(map(str, content.keys() - defaults.keys() - set(OPTIONAL)))
    if unknown:
        raise ValueError(f"{source}: {unknown[0]} is unknown; known are {', '.join([*defaults, *OPTIONAL])}")
    missing = [name for name in defaults if name not in content]
    if missing:
        LOGGER.info(f"{source} lacks {', '.join(missing)}; taking those of {DEFAULT.name}")
    values = {name: _number(source, name, content.get(name, value)) for name, value in defaults.items()}
    _check(source, values)
    return values | _optional(source, content)


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'name: value' lines; see {DEFAULT}")
    return content


def _number(source: str, name: str, value: Any) -> float:
    try:
        # YAML reads 1e-3, without a point, as text, and yes as a truth, which counts as 1.
        number = None if isinstance(value, bool) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(f"{source}: {name} is {str(value)[:60]!r}; give a number")
    return number


def _optional(source: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return what content says of those in `OPTIONAL`, checked: anchors of 0 are those of the model."""
    smoothing = _number(source, "label_smoothing", content.get("label_smoothing") or 0.0)
    if not 0 <= smoothing < 1:
        raise ValueError(f"{source}: label_smoothing is {smoothing}; give 0 to 1, such as 0.1")
    found = {"label_smoothing": smoothing} if "label_smoothing" in content else {}
    anchors = content.get("anchors")
    is_none = anchors is None or (anchors == 0 and not isinstance(anchors, bool))
    return found if is_none else found | {"anchors": checked_anchors(source, anchors)}


def _check(source: str, values: dict[str, float]) -> None:
    for name, value in values.items():
        least, most = LEAST.get(name, 0.0), MOST[name]
        if not least <= value <= most or math.isinf(value):
            raise ValueError(f"{source}: {name} is {value}; give a number from {least:g} to {most:g}")


def scaled_to_model(hyp: dict[str, float], *, levels: int, classes: int, imgsz: int) -> dict[str, float]:
    """Return hyperparameters whose loss gains are fitted to a head of `levels`, its classes and the image size."""
    share = GAIN_LEVELS / levels
    return hyp | {
        "box": hyp["box"] * share,
        "cls": hyp["cls"] * classes / GAIN_CLASSES * share,
        "obj": hyp["obj"] * (imgsz / GAIN_PIXELS) ** 2 * share,
    }
