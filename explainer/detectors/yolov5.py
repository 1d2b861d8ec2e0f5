"""YOLOv5, YOLOv3 in its form, and ensembles of them: models with numbered layers, the last of which predicts at anchors.

A raw prediction is a row of columns x, y, w, h, objectness, p_0, p_1, ...: centre and size in pixels of the input, then
probabilities in 0..1. Its gradient through the head is that of a few cells, so the head stays out of the recorded graph
(`explainer.detectors.head`), and only what lies above a layer is run again (`explainer.detectors.layers`).
"""

from contextlib import ExitStack
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from explainer.checkpoints.repair import names_by_index
from explainer.detectors.detector import IMAGE, Suppression
from explainer.detectors.head import CellScores, HeadRecording, HeadScores, WholeScores
from explainer.detectors.layers import Structure
from explainer.detectors.numbered import Numbered
from explainer.detectors.predictions import Detection, Kept, Predictions, Target
from explainer.detectors.prototypes import MaskRecording, MaskScores, Prototypes, has_prototypes
from explainer.detectors.white_box import Twin, adds_bias
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox


class YOLOv5(Numbered):
    """The detection models found inside what the caller holds: DetectionModel, Ensemble, DetectMultiBackend or AutoShape.

    passes         the models that its structures are those of, and
    heads          their heads
    levels         the inputs of the heads, in the order of the predictions
    columns        of a raw prediction: x, y, w, h, objectness and one for each class
    channels_last  whether it may be given the channels of a pixel side by side in memory
    """

    def __init__(self, model: nn.Module):
        super().__init__(find_detection_model(model))
        self._find_structures()
        self.strides = tuple(level.stride for level in self.levels)
        self.stride, self.columns = max(self.strides), 5 + self.heads[0].nc
        self.names = names_by_index(getattr(self.passes[0], "names", None), self.heads[0].nc)
        # Several heads have coefficients, but no prototypes that fit them all.
        self.predicts_masks = len(self.heads) == 1 and has_prototypes(self.heads[0])
        self.channels_last = True
        # Whether single cells decode to what the heads predict: seen at the first pass, never where they are built otherwise.
        self._cells_are_exact = None if all(level.is_plain() for level in self.levels) else False
        self._in_heads = tuple(f"{structure.head_name}." for structure in self.structures)

    def _find_structures(self) -> None:
        """Look at the layers of each model."""
        members = list(self.model) if isinstance(self.model, nn.ModuleList) else None
        numbered = [("", self.model)] if members is None else [(f"{i}.", member) for i, member in enumerate(members)]
        self.structures = [Structure(member, prefix) for prefix, member in numbered]
        self.heads = [structure.head for structure in self.structures]
        self.passes = tuple(structure.model for structure in self.structures)
        self.levels = [level for structure in self.structures for level in structure.levels()]

    def forward(self, images: Tensor) -> Predictions:
        """Return the predictions (B, N), float32, for images (B, 3, h, w; 0..1)."""
        return Predictions.of_columns(self.raw(self._run(images)))

    def raw(self, outputs: list) -> Tensor:
        """Return the raw predictions (B, N, columns), float32, of the models' or their heads' outputs for B images."""
        predictions = [output[0][:, :, : self.columns].float() for output in outputs]
        return predictions[0] if len(predictions) == 1 else torch.cat(predictions, dim=1)

    def _run(self, images: Tensor) -> list:
        """Return what the models make of images, given in the order of memory that suits them.

        On a CPU convolutions are faster with the channels of a pixel side by side. A block that asks for the other order by
        `view` fails; then the network keeps to that one.
        """
        if self.channels_last and images.device.type == "cpu":
            try:
                channels_last = images.contiguous(memory_format=torch.channels_last)
                return [model(channels_last) for model in self.passes]
            except RuntimeError as error:
                if "view" not in str(error):
                    raise
                self.channels_last = False
        return [model(images) for model in self.passes]

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> HeadRecording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `HeadRecording` lists of these layers.

        With a graph the first recorded layers are its leaves: nothing below them is recorded. The head itself stays out of
        the graph; its gradient is taken on the few predictions that matter. Without a graph, a layer that feeds the head
        is recorded as the head's input itself.
        """
        sources = {} if with_graph else {level.source: index for index, level in enumerate(self.levels)}
        in_head = tuple(name for name in layers if name.startswith(self._in_heads))
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
                if name not in (IMAGE, *sources, *in_head):
                    stack.enter_context(self.record_layer(name, activations, with_graph))
            outputs = self._run(image)
        inputs = tuple(tensor for head in self.heads for tensor in read[head])
        activations |= {name: inputs[sources[name]] for name in layers if name in sources}
        raw, cells = self.raw(outputs)[0].detach(), (tensor.shape[2] * tensor.shape[3] for tensor in inputs)
        ends = tuple(accumulate(level.head.na * count for level, count in zip(self.levels, cells, strict=True)))
        predictions = Predictions.of_columns(raw)
        recording = HeadRecording(image, predictions, activations, ends, raw=raw, head_inputs=inputs, in_head=in_head)
        if not self.predicts_masks:
            return recording
        return MaskRecording(**vars(recording), prototypes=self.prototypes(*outputs))

    def prototypes(self, output: tuple) -> Prototypes:
        """Return what the masks of the first image are made of, given what the model or its head returned."""
        predictions, maps, *_ = output
        return Prototypes(predictions[0, :, self.columns :].detach().float(), maps[0].detach().float())

    def masks(
        self, recording: HeadRecording, letterbox: Letterbox, detections: list[Detection]
    ) -> list[np.ndarray | None]:
        """Return which pixels of the image each detection covers: bool (H, W), None where the model does not say."""
        from torchvision.ops import box_convert

        if not self.predicts_masks:
            return super().masks(recording, letterbox, detections)
        rows = [found.row for found in detections]
        boxes = box_convert(recording.predictions.boxes_xywh[rows], "cxcywh", "xyxy").cpu().numpy()
        return [
            recording.prototypes.mask(found.row, box, letterbox) if found.was_predicted else None
            for found, box in zip(detections, boxes, strict=True)
        ]

    def scores(self, recording: HeadRecording, target: Target, *, at_head: bool = False) -> HeadScores:
        """Return the scores of a target by the cheapest way from the head's inputs to them.

        Where the cells decoded alone do not give the predictions that the network gave, the head is no plain YOLOv5 head and
        its own forward pass is run. That is looked at until it held once: how a head decodes does not change.
        """
        if target.reads_masks and self.predicts_masks:
            return MaskScores(self, recording, target, at_head=at_head)
        if target.rows is None or recording.in_head or self._cells_are_exact is False:
            return WholeScores(self, recording, target, at_head=at_head)
        scores = CellScores(self, recording, target, at_head=at_head)
        if self._cells_are_exact is None and not scores.is_exact():
            return WholeScores(self, recording, target, at_head=at_head)
        self._cells_are_exact = True
        return scores

    def detect(
        self, recording: HeadRecording, letterbox: Letterbox, suppression: Suppression
    ) -> tuple[list[Detection], Tensor]:
        """Return the detections of YOLOv5's non-maximum suppression and their boxes (D, 4) in input pixels, unclipped."""
        kept = suppressed(recording.raw, suppression)
        return kept.detections(recording, letterbox, self.names, self.strides), kept.boxes_xyxy

    def layers_with_bias(self) -> tuple[str, ...]:
        """Return the image and the names of all layers that add a bias: of the heads, the convolutions that predict."""
        below = [
            name
            for name, module in self.model.named_modules()
            if adds_bias(module) and not name.startswith(self._in_heads)
        ]
        return (IMAGE, *below, *(level.output for level in self.levels if adds_bias(level.convolution)))

    def twin(self) -> Twin:
        """Return a new twin, with structures around its own modules and heads that do not write in place.

        Its heads make grids of their own: those of the model may stem from a pass under inference mode, which refuse
        gradients, and another thread may be replacing them.
        """
        twin = super().twin()
        twin.detector._find_structures()
        for head in twin.detector.heads:
            empty = torch.empty(0, device=head.stride.device)
            lists = [name for name in ("grid", "anchor_grid") if isinstance(vars(head).get(name), list)]
            # A list for each name: the head fills them in place.
            vars(head).update({"inplace": False} | {name: [empty] * len(head.stride) for name in lists})
        return twin


def suppressed(raw: Tensor, suppression: Suppression) -> Kept:
    """Return what YOLOv5's non-maximum suppression keeps of raw predictions (N, 5 + classes).

    Two columns ride along with them, their index and a one; suppression multiplies both by the objectness, so that their
    quotient is the index.
    """
    from utils.general import non_max_suppression

    candidates = (raw[:, 4] > suppression.conf_thres).nonzero()
    marked = torch.cat((raw[candidates[:, 0]], candidates, torch.ones_like(candidates)), dim=1)
    (kept,) = non_max_suppression(
        marked[None],
        suppression.conf_thres,
        suppression.iou_thres,
        classes=list(suppression.classes) or None,
        max_det=suppression.max_det,
        nm=2,
    )
    rows = (kept[:, 6] / kept[:, 7]).round().long()
    return Kept(rows, kept[:, 4], kept[:, 5].int(), kept[:, :4])


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
