"""The numbered layers of a YOLO model: their names, where a map can be read, and running a part of them again.

A layer is known by its dotted name in the model, such as `model.17` or `model.23.cv3.act`. The places are rules on the
structure, not lists of indices, so that they hold for every family, size and head. Each rule gives the indices of the layers
that the detections of each head input are read from, in the head's order. Of what is run again, all that did not change is
taken from the recording of the first pass, once for the whole batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from explainer.detectors.detector import BACKBONE, COARSEST, FINE_AND_DEEP, HEAD, NECK, NECK_AND_HEAD, PLACES, Place
from explainer.detectors.predictions import Recording
from explainer.detectors.white_box import WhiteBox
from explainer.errors import UsageError, unknown

Indices = list[tuple[int, ...]]
# The index of what the first layer reads: the image.
IMAGE_INDEX = -1


@dataclass(frozen=True)
class Level:
    """One input of a Detect head: the `index`-th of `head`, `stride` pixels per cell.

    source       the name of the layer that feeds it
    output       the name of the layer that predicts from it, and
    convolution  that layer itself
    """

    head: nn.Module
    index: int
    stride: int
    source: str
    output: str
    convolution: nn.Module

    def is_plain(self) -> bool:
        """Return whether the head predicts from this input by one 1x1 convolution with the outputs of all anchors."""
        plain = self.convolution
        outputs = self.head.na * self.head.no
        return isinstance(plain, nn.Conv2d) and plain.kernel_size == (1, 1) and plain.out_channels == outputs


class Structure:
    """The numbered layers of one detection model.

    prefix   what stands before `model.` in the names of its layers: "" or, in an ensemble, "0.", "1."
    sources  the indices of the layers that feed the head, one for each stride
    strides  pixels of the input per cell of each of them, for a head that does not know
    """

    def __init__(self, model: nn.Module, prefix: str = "", strides: list[float] | None = None):
        self.model, self.prefix, self._strides = model, prefix, strides
        self.layers, self.head = model.model, model.model[-1]
        self.sources = self.inputs(len(self.layers) - 1)

    @property
    def head_name(self) -> str:
        """The dotted name of the head in the whole network."""
        return self.name(len(self.layers) - 1)

    @property
    def strides(self) -> list[float]:
        """Pixels of the input per cell of each head input."""
        return self.head.stride.tolist() if self._strides is None else self._strides

    def levels(self) -> list[Level]:
        """Return the inputs of the head, in the head's order."""
        sources = zip(self.sources, self.strides, strict=True)
        return [
            Level(self.head, i, int(stride), self.name(source), f"{self.head_name}.m.{i}", self.head.m[i])
            for i, (source, stride) in enumerate(sources)
        ]

    def name(self, index: int) -> str:
        """Return the dotted name of a numbered layer in the whole network."""
        return f"{self.prefix}model.{index}"

    def inputs(self, index: int) -> list[int]:
        """Return the indices of the layers that a numbered layer reads; -1 is the image."""
        origin = self.layers[index].f
        steps = origin if isinstance(origin, (list, tuple)) else [origin]
        return [index + step if step < 0 else step for step in steps]

    def run(self, index: int, read: list) -> object:
        """Return the output of a numbered layer for what its inputs hold."""
        layer = self.layers[index]
        return layer(read if isinstance(layer.f, (list, tuple)) else read[0])

    def ancestors(self, index: int) -> set[int]:
        """Return the indices of all layers that the layer at `index` depends on, itself included."""
        found, todo = set(), [index]
        while todo:
            current = todo.pop()
            if current < 0 or current in found:
                continue
            found.add(current)
            todo += self.inputs(current)
        return found

    def dependents(self, index: int) -> set[int]:
        """Return the indices of all layers that depend on the layer at `index`, itself not included."""
        found = {index}
        for later in range(index + 1, len(self.layers)):
            if found.intersection(self.inputs(later)):
                found.add(later)
        return found - {index}

    def above(self, index: int, wanted: list[int]) -> list[int]:
        """Return the layers that depend on one and that one of the wanted layers depends on, in running order."""
        needed = {found for source in wanted for found in self.ancestors(source)}
        return sorted(self.dependents(index) & needed)

    @cached_property
    def backbone_end(self) -> int:
        """The index of the last layer of the backbone."""
        return len(self.model.yaml["backbone"]) - 1

    @cached_property
    def first_fusion(self) -> int | None:
        """The index of the block that follows the first concatenation of the numbered layers, if there is one."""
        for index, layer in enumerate(self.layers):
            if type(layer).__name__ == "Concat":
                return index + 1
        return None

    @cached_property
    def first_skip(self) -> tuple[int, ...]:
        """The index of the first layer of the backbone that the neck reads besides its end; () where there is none."""
        neck = range(self.backbone_end + 1, len(self.layers) - 1)
        found = {index for layer in neck for index in self.inputs(layer) if index < self.backbone_end}
        return tuple(sorted(found)[:1])

    def called(self, entry: int | str) -> str:
        """Return the dotted name of the layer given as an index, a dotted name or a name with underscores."""
        if isinstance(entry, int):
            return self._indexed(entry)
        names = [name for name, _ in self.model.named_modules(remove_duplicate=False) if name.startswith("model.")]
        by_spelling = {name.replace(".", "_"): name for name in names} | {name: name for name in names}
        if entry not in by_spelling:
            raise unknown("layer", entry, self._usable)
        name = by_spelling[entry]
        if int(name.split(".")[1]) == len(self.layers) - 1:
            raise self._head_refused(entry)
        return self.prefix + name

    def _indexed(self, index: int) -> str:
        """Return the name of a numbered layer; negative indices count from the head, as in a Python list."""
        count = len(self.layers)
        if not -count <= index < count:
            raise unknown("layer", index, self._usable)
        if index % count == count - 1:
            raise self._head_refused(index)
        return self.name(index % count)

    @property
    def _usable(self) -> tuple[str, ...]:
        """How a layer below the head can be named, for a message."""
        count = len(self.layers)
        return "auto", *PLACES, f"0..{count - 2}", f"-{count}..-2", f"module names such as model.{count - 2}"

    def _head_refused(self, entry: int | str) -> UsageError:
        """Return the error for a layer that is the head itself, or a part of it."""
        sources = " ".join(map(str, self.sources))
        return UsageError(
            f"layer '{entry}' is the {type(self.head).__name__} head itself, which has no map; "
            f"its inputs are --layer {sources}"
        )


# The input's pixels per cell of each numbered layer that gives a map.
CellSizes = Callable[[], dict[int, float]]


def at_head(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return the head's own inputs: a detection's gradient is not zero at that of its own stride alone, in a few cells."""
    return [(source,) for source in structure.sources]


def at_neck(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return the block that first fuses the neck's upsampled features with the backbone's, where the gradient is spread out.

    Where a stride does not depend on it (YOLOv3's coarsest, feature pyramids without a way back down) it is the end of the
    backbone.
    """
    sources = structure.sources
    candidates = [i for i in (structure.first_fusion, structure.backbone_end) if i not in (None, *sources)]
    return [(next((c for c in candidates if c in structure.ancestors(source)), source),) for source in sources]


def at_backbone(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return the end of the backbone, or the head's input where that stride does not depend on it."""
    end = structure.backbone_end
    return [(end if end in structure.ancestors(source) else source,) for source in structure.sources]


def at_coarsest(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return the head's input of the largest stride, whatever a detection's own is."""
    sources, strides = structure.sources, structure.strides
    return [(sources[strides.index(max(strides))],)] * len(sources)


def at_neck_and_head(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return both the neck's first block and the head's own input."""
    pairs = zip(at_neck(structure, cell_sizes), at_head(structure, cell_sizes), strict=True)
    return [tuple(dict.fromkeys(neck + head)) for neck, head in pairs]


def at_fine_and_deep(structure: Structure, cell_sizes: CellSizes) -> Indices:
    """Return the finest layer that the neck takes from the backbone, then the deep ones, which end in the neck's first block.

    For detections whose cells are as large as those at the end of the backbone its last two layers are among them; of
    smaller objects they hold little.
    """
    end, sizes = structure.backbone_end, cell_sizes()
    last_two = (*(index for index in structure.inputs(end) if index >= 0), end)
    return [
        tuple(dict.fromkeys((*structure.first_skip, *(last_two if stride == sizes.get(end) else ()), *neck)))
        for neck, stride in zip(at_neck(structure, cell_sizes), structure.strides, strict=True)
    ]


RULES: dict[Place, Callable[[Structure, CellSizes], Indices]] = {
    HEAD: at_head,
    NECK: at_neck,
    BACKBONE: at_backbone,
    COARSEST: at_coarsest,
    NECK_AND_HEAD: at_neck_and_head,
    FINE_AND_DEEP: at_fine_and_deep,
}


class Above:
    """What lies above a layer, run again with other activations in that layer's place.

    Only layers that depend on it, and that one of the head inputs `levels` depends on in turn, are run.
    detector: a `Numbered` one, which knows the structure that a layer is part of.
    """

    def __init__(self, detector: WhiteBox, recording: Recording, name: str, levels: list[int]):
        self.detector, self.recording, self.name = detector, recording, name
        self.structure, self.index = detector.structure_of(name)
        self.inner = not detector.runs_by_itself(name)
        self.sources = [each.name(source) for each in detector.structures for source in each.sources]
        names = [self.sources[level] for level in levels]
        wanted = [index for index in range(len(self.structure.layers)) if self.structure.name(index) in names]
        self.order = self.structure.above(self.index, wanted)
        self.last_call = self._count_calls() if self.inner else 0

    def head_inputs(self, activations: Tensor) -> list[Tensor]:
        """Return the head's inputs (B or 1, C, h, w) for activations (B, C, h, w) in the layer's place."""
        outputs = {self.index: self._block_output(activations) if self.inner else activations}
        for index in self.order:
            outputs[index] = self.structure.run(index, self._read(index, outputs, len(activations)))
        by_name = {self.structure.name(index): output for index, output in outputs.items()}
        pairs = zip(self.sources, self.recording.head_inputs, strict=True)
        return [by_name.get(source, recorded) for source, recorded in pairs]

    def _read(self, index: int, outputs: dict[int, Tensor], batch: int) -> list[Tensor]:
        """Return what a numbered layer reads: outputs of this run, or recorded ones for the whole batch."""
        return [
            outputs[source] if source in outputs else self._recorded(source).expand(batch, -1, -1, -1)
            for source in self.structure.inputs(index)
        ]

    def _recorded(self, index: int) -> Tensor:
        """Return the recorded output of a numbered layer, or the image."""
        if index == IMAGE_INDEX:
            return self.recording.image
        return self.recording.activations[self.structure.name(index)].detach()

    def _block_output(self, activations: Tensor) -> Tensor:
        """Return the output of the numbered layer that holds the layer, with other activations inside."""
        calls = []

        def replace(output: object) -> Tensor | None:
            calls.append(1)
            return activations.clone() if len(calls) == self.last_call else None

        return self._run_block(len(activations), self.detector.at_layer(self.name, replace))

    def _count_calls(self) -> int:
        """Return how often the block that holds the layer calls it; the last call is the one that was recorded."""
        calls = []
        self._run_block(1, self.detector.at_layer(self.name, lambda output: calls.append(1)))
        return len(calls)

    def _run_block(self, batch: int, watched: AbstractContextManager) -> Tensor:
        """Return the output of the numbered layer that holds the layer, for recorded inputs."""
        with watched:
            return self.structure.run(self.index, self._read(self.index, {}, batch))


def needed_above(structure: Structure, index: int, alone: bool) -> tuple[str, ...]:
    """Return the names of the layers whose outputs must be recorded so that what lies above one can be run again.

    alone: whether it is the numbered layer itself, not a part of it, which is run again as a whole.
    """
    again = structure.above(index, structure.sources)
    start = [index] if alone else structure.inputs(index)
    read = {source for layer in again for source in structure.inputs(layer)} | {*start}
    return tuple(structure.name(source) for source in sorted(read - {*again, IMAGE_INDEX}))


def head_inputs_of(detector: WhiteBox, images: Tensor, levels: list[int]) -> list[Tensor | None]:
    """Return the head's inputs (B, C, h, w) for images (B, 3, h, w); those not in `levels` may be left out, as None."""
    found = []
    for structure in detector.structures:
        sources = structure.sources
        mine = [level - len(found) for level in levels if 0 <= level - len(found) < len(sources)]
        outputs = {IMAGE_INDEX: images}
        for index in sorted({index for level in mine for index in structure.ancestors(sources[level])}):
            outputs[index] = structure.run(index, [outputs[source] for source in structure.inputs(index)])
        found += [outputs.get(source) for source in sources]
    return found
