"""What any torch module can do for the explainer, by hooks and automatic differentiation.

A class for a model gives names, `forward` and the layers at a place, and everything works:

    class Points(WhiteBox):
        names = {0: "cat", 1: "dog"}

        def forward(self, images):  # (B, 3, h, w) in 0..1
            boxes_xywh, probabilities = self.model(images)
            return Predictions(boxes_xywh, None, probabilities)

        def layers_at(self, place):
            return Layers((("backbone.layer4",),))

    Explainer(Points(model), method="LayerCAM")

What a model can do better by itself it overrides, as `explainer.detectors.yolov5` does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from operator import is_
from types import MethodType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.detector import IMAGE, Detector, Layers, Rerun, Scores, Seen, Sight, Suppression
from explainer.detectors.predictions import Detection, Kept, Predictions, Recording, Target
from explainer.errors import UnreadableImageError, UsageError, unknown
from explainer.maps.heatmaps import Letterbox

# What is run gives.
Output = TypeVar("Output")
# A batch holds so many images at 640x640, more where inputs are smaller.
IMAGES_AT_ONCE = 16


class Letterboxing(Detector):
    """A detector whose images are fitted into its input, on grey."""

    def prepare(self, image_rgb: np.ndarray, input_size: tuple[int, int]) -> tuple[Tensor, Letterbox]:
        """Return an image as the network's input, (1, 3, h, w) in 0..1 on its device, and how it lies in there.

        image_rgb: uint8 (H, W, 3); input_size: (height, width) that the letterbox may fill, multiples of the stride.
        """
        boxed_rgb, letterbox = letterboxed(image_rgb, input_size, self.stride, self.rectangular)
        return as_input(boxed_rgb, self.device, self.dtype), letterbox

    def see(self, image_rgb: np.ndarray, sight: Sight) -> Seen:
        """Run the forward pass of an image, uint8 (H, W, 3), and keep what the sight asks for; of what `borrowed` gives."""
        image, letterbox = self.prepare(image_rgb, sight.input_size)
        return Seen(self, self.record(image, sight.layers, sight.with_graph), letterbox)

    @contextmanager
    def borrowed(self) -> Iterator[Detector]:
        """Give this detector, for the time of an explanation that computes as it does by itself."""
        with undisturbed(self.device):
            yield self


class WhiteBox(Letterboxing):
    """A detector whose layers can be read.

    model       the module; its parts are known by their dotted names
    modules     all of them, and
    parameters  all of theirs: going through the tree takes longer than looking at each
    passes      the modules whose forward pass, once each, is one of the whole network
    twins       those that wait for the next explanation
    """

    def __init__(self, model: nn.Module):
        self.model = writable(model)
        self.modules, self.parameters = tuple(self.model.modules()), tuple(self.model.parameters())
        self.passes: tuple[nn.Module, ...] = (self.model,)
        self.twins: list[Twin] = []

    def __getstate__(self) -> dict[str, object]:
        """Leave the twins out of copies and pickles."""
        return vars(self) | {"twins": []}

    @abstractmethod
    def forward(self, images: Tensor) -> Predictions:
        """Return the predictions (B, N), float32, for images (B, 3, h, w; 0..1), differentiable where gradients are on."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.parameters[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its inputs."""
        return self.parameters[0].dtype

    def detect(
        self, recording: Recording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections, most confident first, and their boxes (D, 4) xyxy in input pixels, unclipped.

        Each prediction stands for its best class, and overlapping ones of a class are suppressed.
        """
        from torchvision.ops import batched_nms, box_convert

        predictions = recording.predictions
        confidences, classes = predictions.confidences().max(dim=1)
        chosen = confidences > suppression.conf_thres
        if suppression.classes:
            chosen &= torch.isin(classes, classes.new_tensor(suppression.classes))
        rows = chosen.nonzero()[:, 0]
        boxes = box_convert(predictions.boxes_xywh[rows], "cxcywh", "xyxy")
        best = batched_nms(boxes, confidences[rows], classes[rows], suppression.iou_thres)[: suppression.max_det]
        rows = rows[best]
        kept = Kept(rows, confidences[rows], classes[rows], boxes[best])
        return kept.detections(recording, letterbox, self.names, self.strides), kept.boxes_xyxy

    @torch.no_grad()
    def predict(self, images: Tensor) -> Predictions:
        """Return the predictions for images (B, 3, h, w; 0..1), without gradients."""
        return self.forward(images)

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> Recording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `Recording` lists of these layers.

        With a graph the first recorded layers are its leaves: nothing below them is recorded.
        """
        image, activations, batch = self.watched(self.forward, image, layers, with_graph)
        graph = batch[0]
        predictions = graph.detach()
        return GraphRecording(image, predictions, activations, self.level_ends(predictions), graph=graph)

    def watched(
        self, run: Callable[[Tensor], Output], image: Tensor, layers: tuple[str, ...], with_graph: bool
    ) -> tuple[Tensor, dict[str, Tensor], Output]:
        """Return the image that was run, the activations of the layers by name, and what `run` gives for that image."""
        activations = {}
        with ExitStack() as stack, torch.set_grad_enabled(with_graph):
            if IMAGE in layers:
                image = activations[IMAGE] = image.detach().requires_grad_(with_graph)
            for name in layers:
                if name != IMAGE:
                    stack.enter_context(self.record_layer(name, activations, with_graph))
            output = run(image)
        missing = next((name for name in layers if name not in activations), None)
        if missing:
            raise UsageError(f"layer '{missing}' is not run in a forward pass; give another --layer")
        return image, activations, output

    def level_ends(self, predictions: Predictions) -> tuple[int, ...]:
        """Return for each level the index after its last prediction; all are of one level unless a model says more."""
        return (len(predictions.boxes_xywh),)

    def scores(self, recording: Recording, target: Target, *, at_head: bool = False) -> Scores:
        """Return the scores of a target, and how they depend on what was recorded."""
        return GraphScores(self, recording, target)

    def layers_called(self, requested: tuple[str | int, ...]) -> Layers:
        """Return the layers that a user names by their dotted names, with dots or underscores."""
        names = [name for name, _ in self.model.named_modules(remove_duplicate=False) if name]
        by_spelling = {name.replace(".", "_"): name for name in names} | {name: name for name in names}
        for entry in requested:
            if entry not in by_spelling:
                raise unknown("layer", entry, ("auto", *names))
        return Layers((tuple(dict.fromkeys(by_spelling[entry] for entry in requested)),) * len(self.strides))

    def layers_with_bias(self) -> tuple[str, ...]:
        """Return the image and the names of all layers that add a bias."""
        return (IMAGE, *(name for name, module in self.model.named_modules() if adds_bias(module)))

    def bias(self, layer: str) -> Tensor:
        """Return the bias (1, C, 1, 1) that a convolution or a normalisation adds to a multiple of its input."""
        return bias_of(self.model.get_submodule(layer)).reshape(1, -1, 1, 1)

    def randomisable(self) -> dict[str, list[nn.Module]]:
        """Return the parts whose weights a sanity check shuffles, by stage, from the output down to the input."""
        return {"all": [self.model]}

    def copy(self) -> WhiteBox:
        """Return a detector of the same kind around a copy of the model."""
        return type(self)(deepcopy(self.model))

    @contextmanager
    def borrowed(self) -> Iterator[WhiteBox]:
        """Give a detector for the time of an explanation: a twin of this one, which nobody else has meanwhile.

        Its modules are its own, in evaluation mode, with the model's weights, without gradients. So the model itself is
        left as it is, and other threads can use it, train it or have it explained at the same time.
        """
        with undisturbed(self.device):
            twin = self._waiting_twin() or self.twin()
            yield twin.detector
        # One that an error stopped halfway is left to itself.
        self.twins.append(twin)

    def _waiting_twin(self) -> Twin | None:
        """Return a twin of this detector and its model as they are now, if one waits."""
        while True:
            # Another thread may take the last one between two steps.
            try:
                twin = self.twins.pop()
            except IndexError:
                return None
            if twin.is_up_to_date():
                return twin

    def twin(self) -> Twin:
        """Return a new twin. A detector that holds modules elsewhere than in attributes, lists and dicts finds them anew."""
        inventory, adopted = Inventory.of(self), Adoption(self)
        lent = adopted[self]
        lent.modules, lent.parameters, lent.twins = tuple(lent.model.modules()), tuple(lent.model.parameters()), []
        return Twin(lent, inventory, tuple(adopted.parameters))

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
        alone = self.runs_by_itself(name)
        running = [True] if alone else []

        def act(module, args, output):
            return action(output) if running else None

        handles = [self.model.get_submodule(name).register_forward_hook(act)]
        if not alone:
            around = self._block_around(name)
            handles.append(around.register_forward_pre_hook(lambda module, args: running.append(True)))
            handles.append(around.register_forward_hook(lambda module, args, output: running.clear()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def runs_by_itself(self, layer: str) -> bool:
        """Return whether a layer is run by the model itself, not by a block that it is a part of."""
        return "." not in layer

    def _block_around(self, layer: str) -> nn.Module:
        """Return the innermost module around a layer that is run itself, which a list of modules is not."""
        name = layer.rpartition(".")[0]
        around = self.model.get_submodule(name)
        return self._block_around(name) if name and type(around) is nn.ModuleList else around


@dataclass(frozen=True, kw_only=True)
class GraphRecording(Recording):
    """A recording whose predictions are known with their graph, too."""

    graph: Predictions


class GraphScores(Scores):
    """Scores by automatic differentiation of the whole network, which is run as a whole where a part would do."""

    def __init__(self, detector: WhiteBox, recording: GraphRecording, target: Target):
        self.detector, self.recording, self.target = detector, recording, target
        self.values = self.baseline = target.of(recording.predictions)
        self.at_once = images_at_once(recording.image)

    @cached_property
    def differentiable(self) -> Tensor:
        """The scores (D,) with their graph."""
        with torch.enable_grad():
            return self.target.of(self.recording.graph)

    def gradients(self, index: int, layers: tuple[str, ...]) -> list[np.ndarray]:
        """Return the gradient (1, C, h, w), float32, of one score at each layer; zeros where it does not depend on it."""
        activations = [self.recording.activations[name] for name in layers]
        score = self.differentiable[index]
        gradients = torch.autograd.grad(score, activations, retain_graph=True, materialize_grads=True)
        return [gradient.float().cpu().numpy() for gradient in gradients]

    def curvatures(self, index: int, layers: tuple[str, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient of one score at each layer, and the product of its Hessian and the activations."""
        return curvatures(self.differentiable[index], [self.recording.activations[name] for name in layers])

    def rerun(self, layer: str) -> Rerun:
        """Return the network, to be run again with other activations in a layer's place."""

        @torch.no_grad()
        def run(activations: Tensor) -> Tensor:
            image = self.recording.image.expand(len(activations), -1, -1, -1)
            with self.detector.at_layer(layer, lambda output: activations):
                return self.target.of(self.detector.forward(image))

        return Rerun(self.recording.activations[layer].detach(), self.at_once, run)

    def of_images(self, images: Tensor) -> Tensor:
        """Return the scores (B, D) of other images (B, 3, h, w)."""
        return self.target.of(self.detector.predict(images))


def curvatures(score: Tensor, activations: list[Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the gradient g of a score at activations a, and the product H a with its Hessian, float32, for each of them."""
    gradients = torch.autograd.grad(score, activations, create_graph=True, materialize_grads=True)
    pairs = zip(gradients, activations, strict=True)
    products = [(gradient.detach(), hessian_vector_product(gradient, activation)) for gradient, activation in pairs]
    return [tuple(tensor.float().cpu().numpy() for tensor in pair) for pair in products]


def hessian_vector_product(gradient: Tensor, activation: Tensor) -> Tensor:
    """Return the product of the Hessian and the activation, of its shape, given the gradient with its graph."""
    if not gradient.requires_grad:
        return torch.zeros_like(gradient)
    (product,) = torch.autograd.grad(
        gradient, activation, activation.detach(), retain_graph=True, materialize_grads=True
    )
    return product


def letterboxed(
    image_rgb: np.ndarray, input_size: tuple[int, int], stride: int, rectangular: bool
) -> tuple[np.ndarray, Letterbox]:
    """Return an image, uint8 (H, W, 3), on the grey of a network's input, and how it lies in there.

    input_size: (height, width) that it may fill, multiples of the stride; where it is `rectangular` no more is filled than
    the image needs. UnreadableImageError for an image that is too narrow to be seen.
    """
    from utils.augmentations import letterbox

    check_wide_enough(image_rgb, max(input_size))
    height, width = image_rgb.shape[:2]
    boxed, _, (pad_x, pad_y) = letterbox(image_rgb, input_size, stride=stride, auto=rectangular)
    content = boxed.shape[0] - round(2 * pad_y), boxed.shape[1] - round(2 * pad_x)
    return boxed, Letterbox((height, width), boxed.shape[:2], content, round(pad_y - 0.1), round(pad_x - 0.1))


def check_wide_enough(image_rgb: np.ndarray, longest: int) -> None:
    """Raise UnreadableImageError for an image that nothing is left of when its longer side is made `longest` pixels."""
    height, width = image_rgb.shape[:2]
    if min(height / width, width / height) * longest < 0.5:
        raise UnreadableImageError(f"an image of {width}x{height} pixels is too narrow for an input of {longest}")


def as_input(image_rgb: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return an image, uint8 (h, w, 3), as (1, 3, h, w) in 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(image_rgb.transpose(2, 0, 1))[None])
    return pixels.to(device).to(dtype) / 255


def in_full(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in what is finer."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def images_at_once(image: Tensor) -> int:
    """Return how many images of this size (1, 3, h, w) a batch should hold."""
    height, width = image.shape[2:]
    return max(1, IMAGES_AT_ONCE * 640 * 640 // (height * width))


def usable_activation(name: str, output: object) -> Tensor:
    """Return a layer's output if a map can be read from it: a tensor (1, C, h, w)."""
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UsageError(
        f"layer '{name}' gives {shape}, and a map needs (1, channels, height, width); give another --layer"
    )


def adds_bias(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a normalisation with a bias for each channel."""
    return isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and module.bias is not None


def bias_of(module: nn.Module) -> Tensor:
    """Return the bias (C,) that a convolution, or a normalisation by fixed statistics, adds to a multiple of its input."""
    if isinstance(module, nn.BatchNorm2d):
        scale = module.weight / torch.sqrt(module.running_var + module.eps)
        return module.bias - module.running_mean * scale
    return module.bias


def writable(model: nn.Module) -> nn.Module:
    """Return the model, or a copy where its tensors were made under inference mode and so refuse gradients for good."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        with torch.inference_mode(False):
            return deepcopy(model)
    return model


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Compute as outside of what the caller may be in: inference mode, `no_grad`, `autocast`."""
    # The older versions of torch that do not tell have it for these.
    can_cast = getattr(torch.amp, "is_autocast_available", ("cpu", "cuda").__contains__)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in filter(can_cast, {"cpu", device.type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@dataclass(frozen=True)
class Inventory:
    """What a twin is made of, so that a later look tells whether that has changed.

    tables   the attributes of a detector and of its modules, and the tables among those: of modules, parameters, hooks ...
    content  what is in them, one after the other
    """

    tables: tuple[dict, ...]
    content: tuple[object, ...]

    @classmethod
    def of(cls, detector: WhiteBox) -> Inventory:
        """Return that of a detector as it is now."""
        attributes = [vars(owner) for owner in (detector, *modules_of(detector))]
        inner = [value for each in attributes for value in tuple(each.values()) if isinstance(value, dict)]
        tables = (*attributes, *inner)
        return cls(tables, content_of(tables))

    def is_unchanged(self) -> bool:
        """Return whether each table holds the same objects as it did."""
        now = content_of(self.tables)
        return len(now) == len(self.content) and all(map(is_, now, self.content))


def modules_of(detector: WhiteBox) -> tuple[nn.Module, ...]:
    """Return all modules that a detector holds: its model, what is around it, and their parts."""
    roots = [value for value in tuple(vars(detector).values()) if isinstance(value, nn.Module)]
    return tuple(dict.fromkeys(chain.from_iterable(root.modules() for root in roots)))


def content_of(tables: tuple[dict, ...]) -> tuple[object, ...]:
    """Return what is in some tables, one after the other."""
    return tuple(chain.from_iterable(map(tuple, map(dict.values, tables))))


@dataclass(frozen=True)
class Twin:
    """A detector like another, around modules of its own that share the other's weights.

    inventory   of what it was made of
    parameters  pairs: one of the model, and the one that stands for it, at the same place in memory
    """

    detector: WhiteBox
    inventory: Inventory
    parameters: tuple[tuple[nn.Parameter, nn.Parameter], ...]

    def is_up_to_date(self) -> bool:
        """Return whether a new one would be the same: nobody has moved, replaced or hooked anything since."""
        return self.inventory.is_unchanged() and all(a.data_ptr() == b.data_ptr() for a, b in self.parameters)


class Adoption:
    """A detector and its modules copied without their weights: what refers to one of them refers to its copy.

    Parameters are replaced by ones without gradients at the same place in memory, lists and dicts are copied, and so are
    methods, which belong to a module. All else, such as buffers and functions, is shared. Modules are in evaluation mode.

    parameters  pairs of a parameter and what it was replaced by
    """

    def __init__(self, detector: WhiteBox):
        self.parameters: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._copies: dict[int, object] = {}
        # TorchScript has no Python attributes that could be copied, and takes no hooks either.
        modules = [each for each in modules_of(detector) if not isinstance(each, torch.jit.ScriptModule)]
        for owner in (detector, *modules):
            self._copies[id(owner)] = object.__new__(type(owner))
        for parameter in chain.from_iterable(module.parameters(recurse=False) for module in modules):
            if id(parameter) not in self._copies:
                alike = self._copies[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
                self.parameters.append((parameter, alike))
        for owner in (detector, *modules):
            vars(self[owner]).update({name: self[value] for name, value in tuple(vars(owner).items())})
        for module in modules:
            self[module].training = False

    def __getitem__(self, value: object) -> object:
        """Return what stands for something."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self[value.__self__])
        if isinstance(value, partial):
            keywords = {name: self[each] for name, each in value.keywords.items()}
            return partial(self[value.func], *map(self.__getitem__, value.args), **keywords)
        if type(value) is tuple:
            return tuple(map(self.__getitem__, value))
        if isinstance(value, (dict, list)):
            return self._copied(value)
        return value

    def _copied(self, value: dict | list) -> dict | list:
        """Return a copy of a dict or a list, which may hold itself."""
        found = self._copies[id(value)] = copy(value)
        for key, each in value.copy().items() if isinstance(value, dict) else enumerate(tuple(value)):
            found[key] = self[each]
        return found
