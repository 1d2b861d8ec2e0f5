"""Gradients are those of the score, whichever way they are taken."""

import numpy as np
import pytest
import torch
from scenes import confident, confident_detector, picture
from tiny_detectors import tiny_segmenter
from torch import nn

from explainer.detectors.detector import Suppression
from explainer.detectors.head import CellScores, WholeScores, divmod_tensor, same_batch
from explainer.detectors.predictions import Predictions, Target
from explainer.detectors.yolov5 import YOLOv5
from explainer.methods.targets import log_scores, log_scores_with_slopes, match

ITEMS = [("class",), ("confidence",), ("class_confidence",), ("x_center", "width"), ("y_center", "height")]


class Case:
    """One recorded image with its detections."""

    def __init__(self, model, layers=("model.4",)):
        with YOLOv5(model).borrowed() as self.detector:
            self.image, letterbox = self.detector.prepare(picture(), (96, 96))
            self.recording = self.detector.record(self.image, layers, with_graph=True)
        self.detections, boxes = self.detector.detect(self.recording, letterbox, Suppression(conf_thres=0.05))
        classes = torch.tensor([detection.class_index for detection in self.detections])
        self.matches = match(self.recording.predictions, boxes, classes)
        self.target = Target(self.matches.rows, lambda predictions: log_scores(predictions, self.matches, ("class",)))

    def scores(self):
        """Return the scores by the way that the detector chooses."""
        with self.detector.borrowed():
            return self.detector.scores(self.recording, self.target)


def agree(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def differently_built():
    """Return a detector whose head predicts by a convolution and something that follows it."""
    model = confident_detector()
    head = model.model[-1]
    head.m = nn.ModuleList([nn.Sequential(convolution, nn.Tanh()) for convolution in head.m])
    return model


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

    with_slopes = {
        "by the chain rule": lambda predictions: log_scores_with_slopes(predictions, matches, items),
        "by autograd": None,
    }[way]
    target = Target(matches.rows, lambda predictions: log_scores(predictions, matches, items), with_slopes)
    with case.detector.borrowed():
        sparse = CellScores(case.detector, case.recording, target)
        dense = WholeScores(case.detector, case.recording, target)
        torch.testing.assert_close(sparse.values, dense.values, rtol=1e-4, atol=1e-5)
        for index in range(len(case.detections)):
            agree(sparse.head_gradient(index), dense.head_gradient(index))


def test_gradients_at_a_layer_equal_those_of_a_plain_backward_pass_through_the_network():
    case = Case(confident_detector())
    scores = case.scores()
    assert isinstance(scores, CellScores)

    model, kept = confident_detector(), []
    model.model[4].register_forward_hook(lambda module, args, output: kept.append(output))
    predictions = Predictions.of_columns(model(case.image)[0][0])
    plain = log_scores(predictions.at(case.matches.rows), case.matches, ("class",))
    for index in range(len(case.detections)):
        (expected,) = torch.autograd.grad(plain[index], kept[0], retain_graph=True)
        (found,) = scores.gradients(index, ("model.4",))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_a_head_that_is_built_differently_is_differentiated_as_a_whole():
    assert isinstance(Case(differently_built(), layers=()).scores(), WholeScores)


def test_a_head_that_decodes_differently_is_noticed():
    model = confident_detector()
    model.model[-1].register_forward_hook(lambda module, args, output: (output[0] * 1.01, *output[1:]))
    assert isinstance(Case(model, layers=()).scores(), WholeScores)


def test_a_score_of_all_predictions_is_taken_through_the_whole_head():
    case = Case(confident_detector(), layers=())
    case.target = Target(None, lambda predictions: predictions.probabilities.sum(dim=(-2, -1))[..., None])
    assert isinstance(case.scores(), WholeScores)


def test_the_gradient_is_zero_at_the_input_of_another_stride():
    case = Case(confident_detector(), layers=())
    scores = case.scores()
    levels = {
        tuple(gradient is not None for gradient in scores.head_gradient(index)) for index in range(len(case.detections))
    }
    assert levels <= {(True, False), (False, True), (True, True)}
    assert len(levels) > 1


def test_the_scores_at_the_cells_are_those_of_the_recorded_predictions():
    case = Case(confident_detector(), layers=())
    scores = case.scores()
    expected = case.target.of(case.recording.predictions)
    torch.testing.assert_close(scores.values, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.baseline, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [confident_detector, differently_built], ids=["cells", "whole head"])
def test_curvatures_are_gradients_and_products_with_the_hessian(model):
    case = Case(model(), layers=("model.7", "model.4"))
    scores = case.scores()
    with case.detector.borrowed():
        for index in range(3):
            pairs = scores.curvatures(index, ("model.4",))
            for (gradient, product), expected in zip(pairs, scores.gradients(index, ("model.4",)), strict=True):
                np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)
                assert product.shape == expected.shape
                assert np.isfinite(product).all()


def test_quotients_and_remainders_are_those_of_numbers():
    quotient, remainder = divmod_tensor(torch.tensor([0, 7, 9]), torch.tensor([4, 4, 3]))
    assert (quotient.tolist(), remainder.tolist()) == ([0, 1, 3], [0, 3, 0])


def test_inputs_that_a_batch_shares_are_repeated_without_a_copy():
    one, several = torch.rand(1, 2), torch.rand(3, 2)
    shared, own = same_batch([one, several])
    assert shared.shape == own.shape == (3, 2)
    assert shared.data_ptr() == one.data_ptr()
