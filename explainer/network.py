"""A YOLOv5 network as the explainer sees it: its parts by name, one recorded forward pass, and nothing left behind."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from explainer.errors import UsageError
from utils.general import check_img_size

# The network's input, by the name that it has among the recorded layers.
IMAGE = "image"
# What stands in the place of a layer's name where the predictions are read and no layer is.
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class Recording:
    """What one forward pass of one image leaves for the explanation.

    image        the network's input (1, 3, h, w), 0..1
    raw          (N, 5 + classes) float32 predictions x, y, w, h (input pixels), objectness, class probabilities
    head_inputs  the tensors (1, C, h, w) that the Detect head read, one for each stride
    activations  the outputs (1, C, h, w) of the recorded layers by name; with a graph from them to `head_inputs`
                 when the recording was made with one
    """

    image: Tensor
    raw: Tensor
    head_inputs: tuple[Tensor, ...]
    activations: dict[str, Tensor]


@dataclass(frozen=True)
class Level:
    """One input of a Detect head: the `index`-th of `head`, fed by the layer called `source`, `stride` pixels per cell."""

    head: nn.Module
    index: int
    source: str
    stride: int


class Network:
    """The detection models found inside what the caller holds: DetectionModel, Ensemble, DetectMultiBackend or AutoShape.

    members  the detection models by the prefix of their layers' names: one under "", those of an ensemble under "0.", "1."
    levels   the inputs of their heads, in the order of the raw predictions
    head_is_plain  whether single cells were seen to decode to what the heads predict
    rectangular    whether it takes inputs of any height and width
    channels_last  whether it may be given the channels of a pixel side by side in memory
    """

    rectangular = True

    def __init__(self, model: nn.Module):
        self.model = writable(find_detection_model(model))
        self.members = {"": self.model}
        if isinstance(self.model, nn.ModuleList):
            self.members = {f"{index}.": member for index, member in enumerate(self.model)}
        self.head_is_plain, self.channels_last = False, True
        # Going through the tree of modules takes longer than looking at each of them.
        self.modules, self.parameters = tuple(self.model.modules()), tuple(self.model.parameters())
        self.grids = [Grids() for _ in self.members]
        self.levels = [level for prefix, member in self.members.items() for level in head_levels(prefix, member)]

    @property
    def heads(self) -> list[nn.Module]:
        """The Detect or Segment module of each member."""
        return [member.model[-1] for member in self.members.values()]

    @property
    def stride(self) -> int:
        """The largest stride: an input's height and width are multiples of it."""
        return max(level.stride for level in self.levels)

    @property
    def names(self) -> dict[int, str]:
        """The class names by index."""
        names = next(iter(self.members.values())).names
        return dict(names) if isinstance(names, dict) else dict(enumerate(names))

    @property
    def columns(self) -> int:
        """The columns of a raw prediction: x, y, w, h, objectness and one for each class."""
        return 5 + self.heads[0].nc

    @property
    def weight(self) -> Tensor:
        """One parameter, which knows the device and the precision."""
        return self.parameters[0]

    def input_size(self, imgsz: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of an input: multiples of the stride."""
        return tuple(check_img_size(list(imgsz), s=self.stride))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the raw predictions (B, N, 5 + classes), float32, of images (B, 3, h, w; 0..1)."""
        return self.raw_predictions(self._run(images))

    def _run(self, images: Tensor) -> list:
        """Return what the members make of images, given in the order of memory that suits them.

        On a CPU convolutions are faster with the channels of a pixel side by side. A block that asks for the other order by
        `view` fails; then the network keeps to that one.
        """
        if self.channels_last and self.weight.device.type == "cpu":
            try:
                return self._run_members(images.contiguous(memory_format=torch.channels_last))
            except RuntimeError as error:
                if "view" not in str(error):
                    raise
                self.channels_last = False
        return self._run_members(images)

    def _run_members(self, images: Tensor) -> list:
        """Return the output of each member."""
        return [member(images) for member in self.members.values()]

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of `image` (1, 3, h, w; 0..1) and keep what `Recording` lists.

        With a graph the first recorded layers are its leaves: nothing below them is recorded. The head itself stays out of
        the graph; its gradient is taken on the few predictions that matter. Without a graph, a layer that feeds the head
        is recorded as the head's input itself.
        """
        sources = {} if with_graph else {level.source: index for index, level in enumerate(self.levels)}
        read, activations = {}, {}
        if IMAGE in layers:
            image = activations[IMAGE] = image.detach().requires_grad_(with_graph)

        def keep_head_inputs(head, args):
            read[head] = tuple(args[0])
            return ([tensor.detach() for tensor in args[0]], *args[1:])

        with ExitStack() as stack, torch.set_grad_enabled(with_graph):
            for head in self.heads:
                stack.callback(head.register_forward_pre_hook(keep_head_inputs).remove)
            for name in layers:
                if name not in sources and name != IMAGE:
                    stack.enter_context(self.record_layer(name, activations, with_graph))
            outputs = self._run(image)
        head_inputs = tuple(tensor for head in self.heads for tensor in read[head])
        activations |= {name: head_inputs[sources[name]] for name in layers if name in sources}
        return Recording(image, self.raw_predictions(outputs)[0].detach(), head_inputs, activations)

    def raw_predictions(self, outputs: list) -> Tensor:
        """Return the raw predictions (B, N, 5 + classes), float32, of the members' or their heads' outputs for B images."""
        predictions = [output[0][:, :, : self.columns].float() for output in outputs]
        return predictions[0] if len(predictions) == 1 else torch.cat(predictions, dim=1)

    def member_of(self, layer: str) -> tuple[str, int]:
        """Return the prefix of the model that a layer belongs to, and the index of its numbered layer."""
        prefix = next(prefix for prefix in self.members if layer.startswith(f"{prefix}model."))
        return prefix, int(layer.removeprefix(f"{prefix}model.").split(".")[0])

    def _block_around(self, layer: str) -> nn.Module:
        """Return the innermost module around a layer that is run itself, which a list of modules is not."""
        around = self.model.get_submodule(layer.rpartition(".")[0])
        return self._block_around(layer.rpartition(".")[0]) if type(around) is nn.ModuleList else around

    def is_numbered(self, layer: str) -> bool:
        """Return whether a layer is one of the numbered ones itself, not a part of one."""
        return layer.rpartition(".")[0] in {f"{prefix}model" for prefix in self.members}

    def record_layer(self, name: str, activations: dict[str, Tensor], with_graph: bool) -> AbstractContextManager[None]:
        """Keep the output of the layer called `name` in `activations`; of several calls the last one counts."""

        def keep(output: object) -> Tensor:
            kept = usable_activation(name, output)
            if with_graph and not kept.requires_grad:
                kept = kept.detach().requires_grad_()
            activations[name] = kept
            # The network goes on with a copy: the next module may write in place.
            return kept.clone()

        return self.at_layer(name, keep)

    @contextmanager
    def at_layer(self, name: str, action: Callable[[object], object]) -> Iterator[None]:
        """Pass each output of the layer called `name` through `action` for the time of the context.

        One activation module can serve many blocks under many names, so a call inside a block counts only while the block
        that the name puts it in is running.
        """
        numbered = self.is_numbered(name)
        parent = self._block_around(name)
        running = [True] if numbered else []

        def act(module, args, output):
            return action(output) if running else None

        handles = [self.model.get_submodule(name).register_forward_hook(act)]
        if not numbered:
            handles.append(parent.register_forward_pre_hook(lambda module, args: running.append(True)))
            handles.append(parent.register_forward_hook(lambda module, args, output: running.clear()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def usable_activation(name: str, output: object) -> Tensor:
    """Return a layer's output if a map can be read from it: a tensor (1, C, h, w)."""
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UsageError(f"layer '{name}' gives {shape}, and a map needs (1, channels, height, width); try --layer auto")


def find_detection_model(model: nn.Module) -> nn.Module:
    """Return the model with numbered layers that end in a Detect head, or the ensemble of such models, unwrapped."""
    inner = model
    while isinstance(inner, nn.Module):
        members = list(inner) if isinstance(inner, nn.ModuleList) else [inner]
        if members and all(ends_in_detect_head(member) for member in members):
            return inner
        inner = getattr(inner, "model", None)
    raise UsageError(
        f"{type(model).__name__} holds no YOLOv5 detection model whose gradients can be read; "
        "give a .pt checkpoint, or a DetectionModel, DetectMultiBackend or AutoShape made from one"
    )


def ends_in_detect_head(model: nn.Module) -> bool:
    """Return whether a model consists of numbered layers, the last of which predicts boxes at anchors."""
    layers = getattr(model, "model", None)
    return isinstance(layers, nn.Sequential) and len(layers) > 0 and hasattr(layers[-1], "anchors")


def head_levels(prefix: str, member: nn.Module) -> list[Level]:
    """Return the inputs of one detection model's head, in the head's order."""
    head = member.model[-1]
    return [
        Level(head, index, f"{prefix}model.{source}", int(stride))
        for index, (source, stride) in enumerate(zip(head_sources(member), head.stride.tolist(), strict=True))
    ]


def head_sources(member: nn.Module) -> list[int]:
    """Return the indices of the layers that feed the head, one for each stride."""
    return input_indices(member, len(member.model) - 1)


def input_indices(member: nn.Module, index: int) -> list[int]:
    """Return the indices of the layers that a numbered layer reads; -1 is the image."""
    origin = member.model[index].f
    steps = origin if isinstance(origin, (list, tuple)) else [origin]
    return [index + step if step < 0 else step for step in steps]


def writable(model: nn.Module) -> nn.Module:
    """Return the model, or a copy where its tensors were made under inference mode and so refuse gradients for good."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        with torch.inference_mode(False):
            return deepcopy(model)
    return model


@contextmanager
def borrowed(network: Network) -> Iterator[None]:
    """Use the model for an explanation and give it back as it was, also after an error.

    Inside: evaluation mode, parameters without gradients, inference mode off, heads that do not write in place. The
    heads' cached grids are rebuilt, since those of an earlier pass under inference mode refuse gradients.
    """
    training = [module for module in network.modules if module.training]
    trainable = [parameter for parameter in network.parameters if parameter.requires_grad]
    kept = [(head, grids, head_state(head)) for head, grids in zip(network.heads, network.grids, strict=True)]
    with torch.inference_mode(False):
        try:
            set_training(training, trainable, False)
            for head, grids, state in kept:
                vars(head).update(grids.of(head, state) | {"inplace": False})
            yield
        finally:
            set_training(training, trainable, True)
            for head, _, state in kept:
                vars(head).update(state)


class Grids:
    """The grids that a head caches, kept from one explanation to the next.

    Those that the head holds itself may stem from a pass under inference mode, and refuse gradients.
    """

    def __init__(self):
        self.kind, self.lists = None, {}

    def of(self, head: nn.Module, state: dict[str, object]) -> dict[str, list[Tensor]]:
        """Return lists for the head to fill, by name; empty ones if it has moved or changed its precision since."""
        kind = head.stride.device, next(head.parameters()).dtype
        if kind != self.kind:
            # A list for each name: the head fills them in place.
            empty = torch.empty(0, device=head.stride.device)
            names = [name for name, value in state.items() if isinstance(value, list)]
            self.kind, self.lists = kind, {name: [empty] * len(head.stride) for name in names}
        return self.lists


def set_training(modules: list[nn.Module], parameters: list[nn.Parameter], on: bool) -> None:
    """Switch the training mode of modules and the gradients of parameters on or off."""
    for module in modules:
        module.training = on
    for parameter in parameters:
        parameter.requires_grad_(on)


def head_state(head: nn.Module) -> dict[str, object]:
    """Return what a forward pass for an explanation changes in a head."""
    return {name: head.__dict__[name] for name in ("inplace", "grid", "anchor_grid") if name in head.__dict__}
