"""A part of the network run again: from the image up, or only what lies above a layer.

What did not change is taken from the recording of the first pass, once for the whole batch.
"""

from contextlib import AbstractContextManager

from torch import Tensor, nn

from explainer.network import Network, Recording, head_sources, input_indices
from explainer.structure import ancestors, dependents

# The index of what the first layer reads: the image.
IMAGE_INDEX = -1


class Above:
    """What lies above a layer, run again with other activations in that layer's place.

    Only layers that depend on it, and that one of the head inputs `levels` depends on in turn, are run.
    """

    def __init__(self, network: Network, recording: Recording, name: str, levels: list[int]):
        self.network, self.recording, self.name = network, recording, name
        self.prefix, self.index = network.member_of(name)
        self.member = network.members[self.prefix]
        self.inner = not network.is_numbered(name)
        wanted = [network.levels[level].source for level in levels]
        self.order = layers_above(self.member, self.index, self._indices_of(wanted))
        self.last_call = self._count_calls() if self.inner else 0

    @staticmethod
    def reads(network: Network, name: str) -> list[str]:
        """Return the names of the layers whose outputs must be recorded so that what lies above can be run again."""
        prefix, index = network.member_of(name)
        member = network.members[prefix]
        again = layers_above(member, index, head_sources(member))
        start = [index] if network.is_numbered(name) else input_indices(member, index)
        read = {source for layer in again for source in input_indices(member, layer)} | {*start}
        return [f"{prefix}model.{source}" for source in sorted(read - {*again, IMAGE_INDEX})]

    def head_inputs(self, activations: Tensor) -> list[Tensor]:
        """Return the head's inputs (B or 1, C, h, w) for activations (B, C, h, w) in the layer's place."""
        outputs = {self.index: self._block_output(activations) if self.inner else activations}
        for index in self.order:
            outputs[index] = self.member.model[index](self._inputs(index, outputs, len(activations)))
        inputs = list(self.recording.head_inputs)
        for index, output in outputs.items():
            for level, entry in enumerate(self.network.levels):
                if entry.source == f"{self.prefix}model.{index}":
                    inputs[level] = output
        return inputs

    def _indices_of(self, names: list[str]) -> list[int]:
        """Return the indices of those of the named numbered layers that belong to the layer's own model."""
        found = [self.network.member_of(name) for name in names]
        return [index for prefix, index in found if prefix == self.prefix]

    def _inputs(self, index: int, outputs: dict[int, Tensor], batch: int) -> Tensor | list[Tensor]:
        """Return what a numbered layer reads: outputs of this run, or recorded ones for the whole batch."""
        read = [
            outputs[source] if source in outputs else self._recorded(source).expand(batch, -1, -1, -1)
            for source in input_indices(self.member, index)
        ]
        return read if isinstance(self.member.model[index].f, (list, tuple)) else read[0]

    def _recorded(self, index: int) -> Tensor:
        if index == IMAGE_INDEX:
            return self.recording.image
        return self.recording.activations[f"{self.prefix}model.{index}"].detach()

    def _block_output(self, activations: Tensor) -> Tensor:
        """Return the output of the numbered layer that holds the layer, with other activations inside."""
        calls = []

        def replace(output: object) -> Tensor | None:
            calls.append(1)
            return activations.clone() if len(calls) == self.last_call else None

        return self._run_block(len(activations), self.network.at_layer(self.name, replace))

    def _count_calls(self) -> int:
        """Return how often the block that holds the layer calls it; the last call is the one that was recorded."""
        calls = []
        self._run_block(1, self.network.at_layer(self.name, lambda output: calls.append(1)))
        return len(calls)

    def _run_block(self, batch: int, watched: AbstractContextManager) -> Tensor:
        with watched:
            return self.member.model[self.index](self._inputs(self.index, {}, batch))


def layers_above(member: nn.Module, index: int, wanted: list[int]) -> list[int]:
    """Return the layers that depend on the one at `index` and that one of the wanted layers depends on, in running order."""
    needed = {found for source in wanted for found in ancestors(member, source)}
    return sorted(dependents(member, index) & needed)


def head_inputs_of(network: Network, images: Tensor, levels: list[int]) -> list[Tensor | None]:
    """Return the head's inputs (B, C, h, w) for images (B, 3, h, w); those not in `levels` may be left out, as None."""
    found = []
    for member in network.members.values():
        sources = head_sources(member)
        mine = [level - len(found) for level in levels if 0 <= level - len(found) < len(sources)]
        outputs = {IMAGE_INDEX: images}
        for index in sorted({index for level in mine for index in ancestors(member, sources[level])}):
            layer, read = member.model[index], input_indices(member, index)
            inputs = [outputs[source] for source in read]
            outputs[index] = layer(inputs if isinstance(layer.f, (list, tuple)) else inputs[0])
        found += [outputs.get(source) for source in sources]
    return found
