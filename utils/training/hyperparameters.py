"""Hyperparameters of training: read from a YAML and checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from utils.base.checks import check_yaml
from utils.base.logger import LOGGER
from utils.base.paths import ROOT
from utils.base.texts import read_yaml

DEFAULT = ROOT / "data/hyps/hyp.scratch-low.yaml"
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste")
# Files of earlier versions may not have these.
OPTIONAL = {"label_smoothing": 0.0, "anchors": None}
POSITIVE = ("lr0", "anchor_t")
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
    unknown = sorted(map(str, content.keys() - defaults.keys() - OPTIONAL.keys()))
    if unknown:
        raise ValueError(f"{source}: {unknown[0]} is unknown; known are {', '.join([*defaults, *OPTIONAL])}")
    missing = [name for name in defaults if name not in content]
    if missing:
        LOGGER.info(f"{source} lacks {', '.join(missing)}; taking those of {DEFAULT.name}")
    values = {name: _number(source, name, content.get(name, value)) for name, value in defaults.items()}
    _check(source, values)
    return values | {name: content[name] for name in OPTIONAL if content.get(name) is not None}


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'name: value' lines; see {DEFAULT}")
    return content


def _number(source: str, name: str, value: Any) -> float:
    try:
        # YAML reads 1e-3, without a point, as text.
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: {name} is {str(value)[:60]!r}; give a number") from error


def _check(source: str, values: dict[str, float]) -> None:
    for name in PROBABILITIES:
        if not 0 <= values[name] <= 1:
            raise ValueError(f"{source}: {name} is {values[name]}; give a probability from 0 to 1")
    for name, value in values.items():
        if not 0 <= value < math.inf or (name in POSITIVE and value == 0):
            raise ValueError(f"{source}: {name} is {value}; give a number above 0")


def scaled_to_model(hyp: dict[str, float], *, levels: int, classes: int, imgsz: int) -> dict[str, float]:
    """Return hyperparameters whose loss gains are fitted to a head of `levels`, its classes and the image size."""
    share = GAIN_LEVELS / levels
    return hyp | {
        "box": hyp["box"] * share,
        "cls": hyp["cls"] * classes / GAIN_CLASSES * share,
        "obj": hyp["obj"] * (imgsz / GAIN_PIXELS) ** 2 * share,
    }
