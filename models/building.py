"""Turn a model description into layers.

Every block that a YAML may name stands in `BLOCKS` beside its rule. A rule completes the block's arguments with what
the description leaves out (input channels, repeats) and says how many channels come out.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from models.common import (
    C3,
    C3SPP,
    C3TR,
    SPP,
    SPPF,
    Bottleneck,
    BottleneckCSP,
    C3Ghost,
    C3x,
    Concat,
    Contract,
    Conv,
    CrossConv,
    DWConv,
    DWConvTranspose2d,
    Expand,
    Focus,
    GhostBottleneck,
    GhostConv,
)
from models.experimental import MixConv2d, Sum
from models.parsing import make_divisible, parse_activation, resolve


@dataclass(frozen=True)
class Scale:
    """What one description says for all of its layers."""

    depth: float
    width: float
    divisor: int
    classes: int
    anchors: int | list[list[float]]

    @classmethod
    def of(cls, spec: dict) -> "Scale":
        """Read the scale of a model description."""
        return cls(
            depth=spec.get("depth_multiple", 1.0),
            width=spec.get("width_multiple", 1.0),
            divisor=spec.get("channel_multiple", 8),
            classes=spec["nc"],
            anchors=spec["anchors"],
        )

    @property
    def outputs(self) -> int:
        """Channels of a detection output; a block that has just as many is one, and its width stays."""
        per_cell = self.anchors if isinstance(self.anchors, int) else len(self.anchors[0]) // 2
        return per_cell * (self.classes + 5)

    def channels(self, count: int) -> int:
        """Return `count` channels of the full-width model at this width."""
        channels = make_divisible(count * self.width, self.divisor)
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(f"{channels} channels; give 1 to {MOST_CHANNELS}")
        return channels

    def repeats(self, count: int) -> int:
        """Return `count` repeats of the full-depth model at this depth."""
        return max(round(count * self.depth), 1) if count > 1 else count


@dataclass(frozen=True)
class Step:
    """A layer about to be built: arguments, channels of each input, repeats, channels it gives out."""

    args: list
    inputs: list[int]
    repeats: int
    outputs: int


# How often a layer may be repeated, and its channels: the largest YOLOv5 has 15 and 1,280.
MOST_REPEATS, MOST_CHANNELS = 1000, 100_000
# A rule gets a step whose outputs are those of its first input and returns the completed one.
Rule = Callable[[Step, Scale], Step]


def unchanged(step: Step, _scale: Scale) -> Step:
    """Poolings, upsampling, ...: arguments as written, as many channels out as in."""
    return step


def widened(step: Step, scale: Scale) -> Step:
    """Convolutions: [c2, ...] becomes [c1, scaled c2, ...]."""
    full, *rest = step.args
    c2 = full if full == scale.outputs else scale.channels(full)
    return replace(step, args=[step.inputs[0], c2, *rest], outputs=c2)


def repeated_inside(step: Step, scale: Scale) -> Step:
    """Blocks that repeat their own middle: [c2, ...] becomes [c1, scaled c2, repeats, ...]."""
    wide = widened(step, scale)
    return replace(wide, args=[*wide.args[:2], step.repeats, *wide.args[2:]], repeats=1)


def normalised(step: Step, _scale: Scale) -> Step:
    """BatchNorm: its only argument is the input's channels."""
    return replace(step, args=[step.inputs[0]])


def joined(step: Step, _scale: Scale) -> Step:
    """Concat: the channels of all inputs together."""
    return replace(step, outputs=sum(step.inputs))


def contracted(step: Step, _scale: Scale) -> Step:
    """Contract: [gain] makes gain² times the channels."""
    return replace(step, outputs=step.outputs * step.args[0] ** 2)


def expanded(step: Step, _scale: Scale) -> Step:
    """Expand: [gain] leaves 1/gain² of the channels."""
    return replace(step, outputs=step.outputs // step.args[0] ** 2)


def detecting(step: Step, _scale: Scale) -> Step:
    """Detect: [nc, anchors] becomes [nc, anchors of each level, channels of each level].

    A bare number of anchors per level stands for anchors that are yet to be fitted.
    """
    classes, anchors, *rest = step.args
    if isinstance(anchors, int):
        anchors = [list(range(2 * anchors))] * len(step.inputs)
    return replace(step, args=[classes, anchors, *rest, step.inputs])


def segmenting(step: Step, scale: Scale) -> Step:
    """Segment: [nc, anchors, masks, prototypes] as Detect, with the width of the prototypes scaled."""
    *rest, prototypes = step.args
    return detecting(replace(step, args=[*rest, scale.channels(prototypes)]), scale)


_WIDENED = (
    *(Conv, DWConv, DWConvTranspose2d, Focus, GhostConv, CrossConv, MixConv2d),
    *(Bottleneck, GhostBottleneck, SPP, SPPF, C3SPP),
)
_REPEATED_INSIDE = (BottleneckCSP, C3, C3x, C3TR, C3Ghost)

BLOCKS: dict[str, tuple[type[nn.Module], Rule]] = {
    **{block.__name__: (block, widened) for block in _WIDENED},
    **{block.__name__: (block, repeated_inside) for block in _REPEATED_INSIDE},
    "Concat": (Concat, joined),
    "Sum": (Sum, unchanged),
    "Contract": (Contract, contracted),
    "Expand": (Expand, expanded),
    **{
        f"nn.{name}": (block, unchanged)
        for name, block in vars(nn).items()
        if isinstance(block, type) and issubclass(block, nn.Module)
    },
    "nn.BatchNorm2d": (nn.BatchNorm2d, normalised),
    "nn.ConvTranspose2d": (nn.ConvTranspose2d, widened),
}


def build_layers(
    spec: dict, channels: int, heads: dict[str, tuple[type[nn.Module], Rule]]
) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a checked description (see models.parsing.load_spec) for images of `channels` channels.

    `heads` adds to `BLOCKS`. Each layer gets i (its index), f (where its input comes from, -1 is the layer before),
    type (dotted class name) and np (number of parameters). Returns (nn.Sequential, sorted indices of the layers whose
    output a later one needs). Raises ValueError for an entry that cannot be built.
    """
    blocks, scale = BLOCKS | heads, Scale.of(spec)
    layers: list[nn.Module] = []
    outputs: list[int] = []
    save: list[int] = []
    for i, entry in enumerate(spec["backbone"] + spec["head"]):
        source, repeats, name, args = _checked_entry(i, entry, blocks)
        block, rule = blocks[name]
        sources = [source] if isinstance(source, int) else source
        inputs = [_channels_of(i, f, outputs, channels) for f in sources]
        args = [resolve(a, {"nc": scale.classes, "anchors": scale.anchors}) for a in args]
        layer, made = _build_layer(i, block, rule, Step(args, inputs, scale.repeats(repeats), inputs[0]), scale)
        layer.i, layer.f, layer.type = i, source, f"{block.__module__}.{block.__qualname__}"
        layer.np = sum(p.numel() for p in layer.parameters())
        layers.append(layer)
        outputs.append(made)
        save.extend(f % i for f in sources if f != -1)
    model = nn.Sequential(*layers)
    if spec.get("activation"):
        set_activation(model, parse_activation(spec["activation"]))
    return model, sorted(save)


def set_activation(model: nn.Module, activation: nn.Module) -> None:
    """Give every Conv that has the default activation a copy of `activation`."""
    for module in model.modules():
        if isinstance(module, Conv) and isinstance(module.act, Conv.default_act):
            module.act = copy.deepcopy(activation)


def _checked_entry(i: int, entry: Any, blocks: dict) -> tuple[int | list[int], int, str, list]:
    """Return the four parts of entry `i`; ValueError where one is missing or the block is not known."""
    complete = isinstance(entry, list) and len(entry) == 4
    if not complete or not isinstance(entry[1], int) or not isinstance(entry[3], list):
        raise ValueError(f"layer {i} of the model file is {str(entry)[:80]}: write [from, number, module, [arguments]]")
    source, repeats, name, _ = entry
    if not 1 <= repeats <= MOST_REPEATS:
        raise ValueError(f"layer {i} of the model file is repeated {repeats} times; give 1 to {MOST_REPEATS}")
    if not isinstance(name, str) or name not in blocks:
        own = ", ".join(block for block in blocks if not block.startswith("nn."))
        raise ValueError(
            f"layer {i} of the model file names the unknown module '{str(name)[:60]}': choose {own}, or nn.<name>"
        )
    if not all(isinstance(f, int) for f in (source if isinstance(source, list) else [source])):
        raise ValueError(f"layer {i} of the model file reads from {source}: give layer numbers, -1 for the one before")
    if source == []:
        raise ValueError(f"layer {i} of the model file reads from no layer: give layer numbers, -1 for the one before")
    return tuple(entry)


def _channels_of(i: int, source: int, outputs: list[int], channels: int) -> int:
    """Return the channels that layer `i` reads from `source`; only the first layer sees the image."""
    if i == 0 and source == -1:
        return channels
    if not -len(outputs) <= source < len(outputs):
        raise ValueError(f"layer {i} of the model file reads from layer {source}, but only 0 to {i - 1} come before it")
    return outputs[source]


def _build_layer(i: int, block: type[nn.Module], rule: Rule, step: Step, scale: Scale) -> tuple[nn.Module, int]:
    """Return a layer and its number of output channels; ValueError where the arguments do not fit the block."""
    try:
        done = rule(step, scale)
        copies = [block(*done.args) for _ in range(done.repeats)]
    # What torch raises for sizes that it cannot make.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"layer {i} of the model file: {block.__name__} does not take {str(step.args)[:200]} ({reason})"
        ) from error
    return copies[0] if len(copies) == 1 else nn.Sequential(*copies), done.outputs
