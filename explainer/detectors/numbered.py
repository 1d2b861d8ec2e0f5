"""Detectors whose model is a row of numbered layers, the last of which is the head: what YOLOv5 and its successors share.

Where a map can be read are rules on the structure of these layers (`explainer.detectors.layers`).
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from explainer.detectors.detector import HEAD, Layers, Place
from explainer.detectors.layers import RULES, Above, Structure, head_inputs_of, needed_above
from explainer.detectors.predictions import Recording
from explainer.detectors.white_box import WhiteBox


class Numbered(WhiteBox):
    """A detector with numbered layers.

    structures    one for each model that it consists of, several in an ensemble
    cells_across  of the largest stride, in the black image that sizes of cells are measured on
    """

    structures: list[Structure]
    cells_across = 2

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place; at the head they stand for what the head alone makes of them."""
        by_level = [
            tuple(structure.name(index) for index in indices)
            for structure in self.structures
            for indices in RULES[place](structure, lambda structure=structure: self.cell_sizes(structure))
        ]
        return Layers(tuple(by_level), at_head=place == HEAD)

    def layers_called(self, requested: tuple[str | int, ...]) -> Layers:
        """Return the layers that a user names, by index or by name; UsageError lists what there is."""
        by_level = []
        for structure in self.structures:
            names = tuple(dict.fromkeys(structure.called(entry) for entry in requested))
            by_level += [names] * len(structure.sources)
        return Layers(tuple(by_level))

    @torch.no_grad()
    def cell_sizes(self, structure: Structure) -> dict[int, float]:
        """Return the input's pixels per cell of each numbered layer that gives a map, seen in one pass of a black image."""
        side, sizes = self.cells_across * self.stride, {}

        def look(index: int):
            def measure(layer, args, output):
                if isinstance(output, Tensor) and output.ndim == 4:
                    sizes[index] = side / output.shape[3]

            return measure

        with ExitStack() as stack, self.borrowed() as lent:
            for index, layer in enumerate(lent.structures[self.structures.index(structure)].layers):
                stack.callback(layer.register_forward_hook(look(index)).remove)
            lent.predict(torch.zeros(1, 3, side, side, device=lent.device, dtype=lent.dtype))
        return sizes

    def needed_above(self, layer: str) -> tuple[str, ...]:
        """Return the names of the layers to record, so that what lies above a layer can be run again."""
        structure, index = self.structure_of(layer)
        return needed_above(structure, index, self.runs_by_itself(layer))

    def above(self, recording: Recording, layer: str, levels: list[int]) -> Callable[[Tensor], list[Tensor]]:
        """Return how the heads' inputs of some levels follow from other activations (B, C, h, w) of a layer."""
        return Above(self, recording, layer, levels).head_inputs

    def head_inputs(self, images: Tensor, levels: list[int]) -> list[Tensor | None]:
        """Return the heads' inputs (B, C, h, w) for images (B, 3, h, w); those not in `levels` may be None."""
        return head_inputs_of(self, images, levels)

    def structure_of(self, layer: str) -> tuple[Structure, int]:
        """Return the model that a layer belongs to, and the index of its numbered layer."""
        structure = next(each for each in self.structures if layer.startswith(f"{each.prefix}model."))
        return structure, int(layer.removeprefix(f"{structure.prefix}model.").split(".")[0])

    def runs_by_itself(self, layer: str) -> bool:
        """Return whether a layer is one of the numbered ones itself, not a part of one."""
        return layer.rpartition(".")[0] in {f"{structure.prefix}model" for structure in self.structures}

    def randomisable(self) -> dict[str, list[nn.Module]]:
        """Return the parts whose weights a sanity check shuffles, by stage: the head, then the neck, then the backbone."""
        stages = {"head": [], "neck": [], "all": []}
        for structure in self.structures:
            neck, head = structure.backbone_end + 1, len(structure.layers) - 1
            stages["head"] += structure.layers[head:]
            stages["neck"] += structure.layers[neck:head]
            stages["all"] += structure.layers[:neck]
        return stages
