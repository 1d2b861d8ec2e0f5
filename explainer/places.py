"""Where in a network a map can be read: rules on its structure, so that they hold for every family, size and head.

Each rule gives the indices of the numbered layers that the detections of each head input are read from, in the head's order.
"""

from collections.abc import Callable

from torch import nn

from explainer.network import head_sources, input_indices
from explainer.structure import ancestors, cell_sizes

Indices = list[tuple[int, ...]]


def at_head(model: nn.Module) -> Indices:
    """Return the head's own inputs: a detection's gradient is not zero at that of its own stride alone, in a few cells."""
    return [(source,) for source in head_sources(model)]


def at_neck(model: nn.Module) -> Indices:
    """Return the block that first fuses the neck's upsampled features with the backbone's, where the gradient is spread out.

    Where a stride does not depend on it (YOLOv3's coarsest, feature pyramids without a way back down) it is the end of the
    backbone.
    """
    sources = head_sources(model)
    candidates = [index for index in (first_fusion(model), backbone_end(model)) if index not in (None, *sources)]
    return [(next((c for c in candidates if c in ancestors(model, source)), source),) for source in sources]


def at_backbone(model: nn.Module) -> Indices:
    """Return the end of the backbone, or the head's input where that stride does not depend on it."""
    end = backbone_end(model)
    return [(end if end in ancestors(model, source) else source,) for source in head_sources(model)]


def at_coarsest(model: nn.Module) -> Indices:
    """Return the head's input of the largest stride, whatever a detection's own is."""
    sources, strides = head_sources(model), model.model[-1].stride.tolist()
    return [(sources[strides.index(max(strides))],)] * len(sources)


def at_neck_and_head(model: nn.Module) -> Indices:
    """Return both the neck's first block and the head's own input."""
    return [tuple(dict.fromkeys(neck + head)) for neck, head in zip(at_neck(model), at_head(model), strict=True)]


def at_fine_and_deep(model: nn.Module) -> Indices:
    """Return the finest layer that the neck takes from the backbone, then the deep ones, which end in the neck's first block.

    For detections whose cells are as large as those at the end of the backbone its last two layers are among them; of
    smaller objects they hold little.
    """
    end, sizes = backbone_end(model), cell_sizes(model)
    last_two = (*(index for index in input_indices(model, end) if index >= 0), end)
    return [
        tuple(dict.fromkeys((*first_skip(model), *(last_two if stride == sizes.get(end) else ()), *neck)))
        for neck, stride in zip(at_neck(model), model.model[-1].stride.tolist(), strict=True)
    ]


def first_fusion(model: nn.Module) -> int | None:
    """Return the index of the block that follows the first concatenation of the numbered layers, if there is one."""
    for index, layer in enumerate(model.model):
        if type(layer).__name__ == "Concat":
            return index + 1
    return None


def backbone_end(model: nn.Module) -> int:
    """Return the index of the last layer of the backbone."""
    return len(model.yaml["backbone"]) - 1


def first_skip(model: nn.Module) -> tuple[int, ...]:
    """Return the index of the first layer of the backbone that the neck reads besides its end; () where there is none."""
    end = backbone_end(model)
    neck = range(end + 1, len(model.model) - 1)
    return tuple(sorted({index for layer in neck for index in input_indices(model, layer) if index < end})[:1])


# By the names of `explainer.methods.PLACES`.
RULES: dict[str, Callable[[nn.Module], Indices]] = {
    "head": at_head,
    "neck": at_neck,
    "backbone": at_backbone,
    "coarsest": at_coarsest,
    "neck+head": at_neck_and_head,
    "fine+deep": at_fine_and_deep,
}
