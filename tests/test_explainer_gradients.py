"""Gradients are those of the score, whichever way they are taken."""

import pytest
import torch
from scenes import confident, confident_detector, picture
from tiny_models import tiny_segmenter
from torch import nn

from explainer.detecting import detect, prepare
from explainer.gradients import DenseHead, SparseHead, head_gradients, layer_gradients
from explainer.heads import CellHead, Target, WholeHead
from explainer.network import Network, borrowed
from explainer.scores import log_score_slopes, log_scores, match
from explainer.settings import Settings

ITEMS = [("class",), ("confidence",), ("class_confidence",), ("x_center", "width"), ("y_center", "height")]


class Case:
    """One recorded image with its detections."""

    def __init__(self, model, layers=("model.4",)):
        self.network = Network(model)
        with borrowed(self.network):
            image, letterbox = prepare(picture(), (96, 96), self.network)
            self.recording = self.network.record(image, layers, with_graph=True)
            self.image = image
        self.detections, boxes = detect(self.network, self.recording, letterbox, Settings(conf_thres=0.05))
        classes = torch.tensor([detection.class_index for detection in self.detections])
        self.matches = match(self.recording.raw, boxes, classes)
        self.target = Target(self.matches.rows, lambda predictions: log_scores(predictions, self.matches, ("class",)))


def agree(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("items", ITEMS, ids="+".join)
@pytest.mark.parametrize(
    "model",
    [confident_detector(), confident(tiny_segmenter()), nn.ModuleList([confident_detector(1), confident_detector(2)])],
    ids=["detector", "segmenter", "ensemble"],
)
@pytest.mark.parametrize("way", ["by the chain rule", "by autograd"])
def test_gradients_at_a_few_cells_equal_those_of_the_whole_head(model, items, way):
    case = Case(model, layers=())
    matches = case.matches
    assert len(case.detections) > 2

    def score(predictions):
        return log_scores(predictions, matches, items)

    slopes = {
        "by the chain rule": lambda predictions: log_score_slopes(predictions, matches, items),
        "by autograd": None,
    }[way]
    with borrowed(case.network):
        target, inputs = Target(matches.rows, score, slopes), case.recording.head_inputs
        sparse = SparseHead(CellHead(case.network, inputs, target), case.recording)
        dense = DenseHead(WholeHead(case.network, inputs, target), inputs)
        torch.testing.assert_close(sparse.scores, dense.scores, rtol=1e-4, atol=1e-5)
        for index in range(len(case.detections)):
            agree(sparse.at(index), dense.at(index))


def test_gradients_at_a_layer_equal_those_of_a_plain_backward_pass_through_the_network():
    case = Case(confident_detector())
    head = head_gradients(case.network, case.recording, case.target)
    assert isinstance(head, SparseHead)

    model, kept = confident_detector(), []
    model.model[4].register_forward_hook(lambda module, args, output: kept.append(output))
    raw = model(case.image)[0][0]
    scores = log_scores(raw[case.matches.rows], case.matches, ("class",))
    for index in range(len(case.detections)):
        (expected,) = torch.autograd.grad(scores[index], kept[0], retain_graph=True)
        (found,) = layer_gradients(case.recording, head.at(index), ("model.4",))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_head_that_is_built_differently_is_differentiated_as_a_whole():
    model = confident_detector()
    head = model.model[-1]
    head.m = nn.ModuleList([nn.Sequential(convolution, nn.Tanh()) for convolution in head.m])
    case = Case(model, layers=())
    with borrowed(case.network):
        assert isinstance(head_gradients(case.network, case.recording, case.target), DenseHead)


def test_a_head_that_decodes_differently_is_noticed():
    model = confident_detector()
    model.model[-1].register_forward_hook(lambda module, args, output: (output[0] * 1.01, *output[1:]))
    case = Case(model, layers=())
    with borrowed(case.network):
        assert isinstance(head_gradients(case.network, case.recording, case.target), DenseHead)


def test_the_gradient_is_zero_at_the_input_of_another_stride():
    case = Case(confident_detector(), layers=())
    head = head_gradients(case.network, case.recording, case.target)
    levels = {tuple(gradient is not None for gradient in head.at(index)) for index in range(len(case.detections))}
    assert levels <= {(True, False), (False, True), (True, True)}
    assert len(levels) > 1
