"""Read a model YAML: find it, check it, and give its words their meaning without running any of them."""

import ast
import copy
import math
from numbers import Real
from pathlib import Path
from typing import Any

from torch import nn

from utils.autoanchor import checked_anchors
from utils.base.texts import read_yaml

MODELS = Path(__file__).resolve().parent
REQUIRED = ("nc", "anchors", "backbone", "head")
# The least and the most of each number, and whether it is a whole one.
NUMBERS = {
    "nc": (1, 100_000, True),
    "ch": (1, 1000, True),
    "depth_multiple": (0.01, 10, False),
    "width_multiple": (0.01, 10, False),
    "channel_multiple": (1, 1000, True),
}
# Of an argument that is a literal or an activation, in characters: Python's parser can end the process over longer ones.
LONGEST_ARGUMENT = 200
# attention needs three inputs, so it is no activation although torch files it there
ACTIVATIONS = {
    name: getattr(nn, name)
    for name in (*nn.modules.activation.__all__, "Identity")
    if name != "MultiheadAttention" and hasattr(nn, name)
}


def find_yaml(cfg: str | Path) -> Path:
    """Return the path of a model YAML: `cfg` itself, or the file of that name below models/.

    Raises FileNotFoundError, listing the known ones.
    """
    if Path(cfg).is_file():
        return Path(cfg)
    known = {path.name: path for path in sorted(MODELS.rglob("*.yaml"))}
    if Path(cfg).name not in known:
        raise FileNotFoundError(f"no model file '{cfg}': give a path, or one of {', '.join(known)}")
    return known[Path(cfg).name]


def load_spec(cfg: str | Path | dict) -> dict:
    """Return a model description as a dict of its own: read from a YAML file, or copied from a dict.

    Raises ValueError for a file that is no YAML mapping, lacks one of `REQUIRED`, or has a value that makes no model.
    """
    if isinstance(cfg, dict):
        name, spec = "the model dict", copy.deepcopy(cfg)
    else:
        path = find_yaml(cfg)
        name = str(path)
        spec = read_yaml(path)
    if not isinstance(spec, dict):
        raise ValueError(f"{name} holds no 'key: value' lines: a model file needs {', '.join(REQUIRED)}")
    missing = [key for key in REQUIRED if key not in spec]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}: a model file needs {', '.join(REQUIRED)}")
    check_spec(name, spec)
    return spec


def check_spec(name: str, spec: dict) -> None:
    """Raise ValueError, naming the file, for a number out of bounds, anchors that are none, or layers that are no list."""
    for key in NUMBERS.keys() & spec.keys():
        least, most, is_whole = NUMBERS[key]
        value = spec[key]
        is_number = isinstance(value, int if is_whole else Real) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or not math.isfinite(value):
            kind = "whole number" if is_whole else "number"
            raise ValueError(f"{name}: {key} is {str(value)[:60]}; give a {kind} from {least} to {most}")
    spec["anchors"] = checked_anchors(name, spec["anchors"])
    for key in ("backbone", "head"):
        if not isinstance(spec[key], list):
            raise ValueError(f"{name}: {key} is {str(spec[key])[:60]}; give a list of layers")


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Return `channels` rounded up to a multiple of `divisor`."""
    return int(-(-channels // divisor) * divisor)


def resolve(argument: Any, words: dict[str, Any]) -> Any:
    """Return what an argument of a YAML entry means.

    Strings: a key of `words` ("nc", "anchors"), a literal ("None", "False", "1e-3"), a torch.nn activation
    ("nn.SiLU()"), or else the plain text ("nearest"). Everything that is not a string is itself.
    """
    if not isinstance(argument, str):
        return argument
    if argument in words:
        return words[argument]
    if argument.startswith(("nn.", "torch.nn.")):
        return parse_activation(argument)
    if len(argument) > LONGEST_ARGUMENT:
        return argument
    try:
        return ast.literal_eval(argument)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return argument


def parse_activation(text: str) -> nn.Module:
    """Build the activation that e.g. "nn.LeakyReLU(0.1)" describes; its arguments may only be literals.

    Raises ValueError for anything but a call of one of `ACTIVATIONS`.
    """
    try:
        if len(str(text)) > LONGEST_ARGUMENT:
            raise ValueError("too long")
        call = ast.parse(str(text).strip(), mode="eval").body
        name = ast.unparse(call.func).removeprefix("torch.").removeprefix("nn.")
        positional = [ast.literal_eval(node) for node in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return ACTIVATIONS[name](*positional, **named)
    except (AttributeError, KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        known = ", ".join(f"nn.{name}" for name in ACTIVATIONS)
        message = (
            f"'{str(text)[:60]}' is no activation: write e.g. nn.LeakyReLU(0.1), with plain numbers, and one of {known}"
        )
        raise ValueError(message) from error
