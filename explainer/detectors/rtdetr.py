"""RT-DETR, as the ultralytics package has it: a head that decodes queries.

This module imports nothing of that package: a model brings its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from explainer.detectors.detector import Layers, Place, Rerun, Scores
from explainer.detectors.layers import RULES, Structure
from explainer.detectors.predictions import Predictions, Recording, Target
from explainer.detectors.ultralytics import Candidates, Ultralytics, surest_pairs
from explainer.detectors.white_box import GraphRecording, GraphScores, Twin, as_input, check_wide_enough, in_full
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox, Stretched


class RTDETR(Ultralytics):
    """A model whose head decodes queries: the tokens, cells of its inputs, that its encoder is surest of.

    https://arxiv.org/abs/2304.08069. A prediction is a query, which stands at the rank of its token. So that it stays the
    same when its score is asked of another image, or of other activations, the tokens of the recorded pass are decoded then.

    tokens  (queries,) those of the first image of the last pass, by rank
    fixed   those that are decoded whatever the encoder says, None where it is asked
    """

    called = "RT-DETR, whose queries look at all scales,"
    cells_across = 5
    # It is trained on squares that images are stretched to.
    rectangular = False
    end_to_end = True

    def __init__(self, model: nn.Module):
        self.tokens: Tensor | None = None
        self.fixed: Tensor | None = None
        super().__init__(model)

    def prepare(self, image_rgb: np.ndarray, input_size: tuple[int, int]) -> tuple[Tensor, Letterbox]:
        """Return an image as the network's input, (1, 3, h, w) in 0..1, and how it lies in there: stretched, without padding.

        image_rgb: uint8 (H, W, 3); input_size: (height, width), multiples of the stride.
        """
        check_wide_enough(image_rgb, max(input_size))
        filled = cv2.resize(image_rgb, input_size[::-1])
        return as_input(filled, self.device, self.dtype), Stretched(image_rgb.shape[:2], input_size, input_size, 0, 0)

    def _strides(self) -> tuple[int | None, ...]:
        """Return one level: a query looks at cells of all inputs."""
        return (None,)

    def of_features(self, features: list[Tensor], input_size: tuple[int, int]) -> Predictions:
        """Return the predictions (B, N) that the head makes of its inputs (B, C, h, w), for an image of this size."""
        handle = self.head.enc_score_head.register_forward_hook(lambda module, args, scores: self._choose(scores))
        try:
            boxes, logits, *_ = self.head(features)[1]
        finally:
            handle.remove()
        height, width = input_size
        boxes_xywh = in_full(boxes[-1]) * torch.tensor([width, height, width, height], device=boxes.device)
        return Predictions(boxes_xywh, None, in_full(logits[-1]).sigmoid())

    def _choose(self, scores: Tensor) -> Tensor:
        """Return the encoder's scores (B, tokens, classes) of which the head decodes the highest, and remember which."""
        if self.fixed is None:
            best = scores[0].detach().amax(dim=1)
            self.tokens = best.topk(min(self.head.num_queries, len(best))).indices
            return scores
        ranks = torch.arange(len(self.fixed), 0, -1, device=scores.device)
        higher = (scores.detach().amax() + ranks).to(scores.dtype)
        return scores.index_copy(1, self.fixed, higher[:, None].expand(len(scores), -1, scores.shape[2]))

    @contextmanager
    def decoding(self, tokens: Tensor) -> Iterator[None]:
        """Decode these tokens (queries,), for the time of the context."""
        self.fixed = tokens
        try:
            yield
        finally:
            self.fixed = None

    def level_ends(self, predictions: Predictions) -> tuple[int, ...]:
        """Return the number of predictions: all are of one level."""
        return (len(predictions.boxes_xywh),)

    def candidates(self, predictions: Predictions, threshold: float) -> Candidates:
        """Return what may become a detection: of all queries and classes as many as there are queries."""
        return surest_pairs(predictions.probabilities, self.head.num_queries)

    def _parts_of_head(self) -> tuple[nn.Module, ...]:
        """Return the head itself."""
        return (self.head,)

    def reads_windows(self, layers: tuple[str, ...]) -> bool:
        """Return False: a query looks at cells anywhere."""
        return False

    def needed_above(self, layer: str) -> tuple[str, ...]:
        """Return nothing: the whole network is run again."""
        return ()

    def record(self, image: Tensor, layers: tuple[str, ...], with_graph: bool) -> QueryRecording:
        """Run one forward pass of an image (1, 3, h, w; 0..1) and keep what `QueryRecording` lists of these layers."""
        recording = super().record(image, layers, with_graph)
        return QueryRecording(**vars(recording), tokens=self.tokens)

    def scores(self, recording: Recording, target: Target, *, at_head: bool = False) -> Scores:
        """Return the scores of a target, and how they depend on what was recorded."""
        return QueryScores(self, recording, target)

    def layers_at(self, place: Place) -> Layers:
        """Return the layers at a place, of all inputs of the head together: a query looks at each of them."""
        sizes = self.cell_sizes(self.structure)
        structure = Structure(self.model, strides=[sizes[source] for source in self.structure.sources])
        indices = dict.fromkeys(chain.from_iterable(RULES[place](structure, lambda: sizes)))
        return Layers((tuple(map(structure.name, indices)),))

    def layers_called(self, requested: tuple[str | int, ...]) -> Layers:
        """Return the layers that a user names, by index or by name; UsageError lists what there is."""
        return Layers(super().layers_called(requested).by_level[:1])

    def layers_with_bias(self) -> tuple[str, ...]:
        """Refuse: most of what the decoder adds to a score are biases of tokens, not of places."""
        raise UsageError(
            "FullGrad adds up the biases of convolutions, and RT-DETR decodes its scores by a transformer, whose biases "
            "have no place in the image; take another --method"
        )

    def twin(self) -> Twin:
        """Return a new twin, whose head makes anchors of its own: those of the model may stem from inference mode."""
        twin = super().twin()
        vars(twin.detector.head).update(shapes=[])
        return twin


@dataclass(frozen=True, kw_only=True)
class QueryRecording(GraphRecording):
    """A recording that knows which tokens were decoded, (queries,) by rank."""

    tokens: Tensor


class QueryScores(GraphScores):
    """Scores of queries: where single ones count, the same tokens are decoded again."""

    def rerun(self, layer: str) -> Rerun:
        """Return the network, to be run again with other activations in a layer's place."""
        whole = super().rerun(layer)

        def run(activations: Tensor) -> Tensor:
            with self._same_queries():
                return whole.run(activations)

        return replace(whole, run=run)

    def of_images(self, images: Tensor) -> Tensor:
        """Return the scores (B, D) of other images (B, 3, h, w)."""
        with self._same_queries():
            return super().of_images(images)

    def curvatures(self, index: int, layers: tuple[str, ...]) -> list:
        """Refuse: torch cannot differentiate twice how a query samples the inputs of the head."""
        raise UsageError(
            "torch cannot differentiate RT-DETR twice, which this method needs; take another --method, such as GradCAM"
        )

    def _same_queries(self) -> AbstractContextManager[None]:
        """Decode the tokens that were recorded, unless the scores compare all predictions."""
        return nullcontext() if self.target.rows is None else self.detector.decoding(self.recording.tokens)
