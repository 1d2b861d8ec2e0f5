"""Scores of ultralytics' cells are taken from windows around them: what comes out is what the whole network gives."""

import numpy as np
import pytest
import torch
from ultralytics_models import PICTURE, ultralytics_model

from explainer.detectors.detector import IMAGE
from explainer.detectors.local import LocalScores, PyramidScores
from explainer.detectors.predictions import Target
from explainer.detectors.weights import detector_of
from explainer.detectors.white_box import GraphScores, WhiteBox
from explainer.explain import Explainer
from explainer.methods.targets import Matches, classes_target, detections_target, log_scores, similarity_target

HEADS = [
    ("yolov3-tiny", False),
    ("yolov5n", False),
    ("yolov8n", False),
    ("yolov8n-p2", False),
    ("yolov9t", False),
    ("yolov10n", False),
    ("yolov10n", True),
    ("yolo11n", False),
    ("yolo12n", False),
    ("yolo26n", False),
    ("yolo26n", True),
]
every_head = pytest.mark.parametrize(("name", "end_to_end"), HEADS)


class Case:
    """The predictions at the first, a middle and the last cell of each level, recorded twice: as they are, and with a graph.

    by_windows  their scores as the detector takes them
    by_graph    the same scores by differentiation of the whole network
    """

    def __init__(self, name="yolov8n", end_to_end=False, *, items=("class",), several=False, with_graph=True):
        detector = detector_of(ultralytics_model(name, end_to_end=end_to_end).double(), (160, 160))
        sources = [detector.structure.name(source) for source in detector.structure.sources]
        self.layers = ("model.4", *sources)
        besides = () if with_graph else tuple(each for layer in self.layers for each in detector.needed_above(layer))
        with detector.borrowed() as self.lent:
            self.image, _ = self.lent.prepare(PICTURE, (160, 160))
            self.recording = self.lent.record(self.image, (*self.layers, *besides), with_graph)
            graph = WhiteBox.record(self.lent, self.image, self.layers, True)
        starts = (0, *self.recording.ends)
        rows = [row for a, b in zip(starts, self.recording.ends, strict=False) for row in (a, (a + b) // 2, b - 1)]
        self.rows = torch.tensor(rows)
        predictions = self.recording.predictions
        boxes = predictions.boxes_xywh[self.rows]
        self.boxes = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)
        self.classes = predictions.probabilities[self.rows].argmax(dim=1)
        self.target = detections_target(predictions, self.boxes, self.classes, items, self.rows)
        if several:
            self.target = mean_target(self.rows.view(len(sources), -1).T, self.classes[:3])
        self.by_windows = self.lent.scores(self.recording, self.target)
        self.by_graph = GraphScores(self.lent, graph, self.target)


def mean_target(rows, classes):
    """Return the scores of means of predictions (D, k)."""
    matches = Matches(rows, torch.full(rows.shape, 1 / rows.shape[1], dtype=torch.float64), classes)
    return Target(rows, lambda chosen: log_scores(chosen, matches, ("class",)))


def check_gradients(case):
    """Compare all scores, and their gradients at all recorded layers."""
    assert isinstance(case.by_windows, LocalScores)
    torch.testing.assert_close(case.by_windows.values, case.by_graph.values, atol=1e-8, rtol=1e-8)
    for index in range(len(case.target.rows)):
        pairs = zip(*(way.gradients(index, case.layers) for way in (case.by_windows, case.by_graph)), strict=True)
        for mine, theirs in pairs:
            np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=1e-5)
        assert any(each.any() for each in case.by_graph.gradients(index, case.layers))


@every_head
def test_gradients_are_those_of_the_whole_network_at_the_border_too(name, end_to_end):
    check_gradients(Case(name, end_to_end))


@pytest.mark.parametrize("items", [("x_center",), ("class_confidence", "width", "height")])
def test_gradients_of_boxes_are_those_of_the_whole_network(items):
    check_gradients(Case(items=items))
    check_gradients(Case("yolo26n", True, items=items))


def test_gradients_of_several_predictions_are_those_of_the_whole_network():
    case = Case(several=True)
    levels = [{case.recording.level_of(row) for row in rows} for rows in case.target.rows.tolist()]
    assert levels == [{0, 1, 2}] * 3
    check_gradients(case)


@every_head
def test_windows_are_as_wide_as_the_branches_look(name, end_to_end):
    detector = detector_of(ultralytics_model(name, end_to_end=end_to_end), (160, 160))
    level, side = 0, 15
    channels = next(
        module.in_channels for module in detector.head.cv2[level].modules() if isinstance(module, torch.nn.Conv2d)
    )
    radius, middle = detector.radius(level), side // 2
    maps = torch.randn(1, channels, side, side, requires_grad=True, generator=torch.Generator().manual_seed(0))
    with detector.borrowed() as lent:
        outputs = lent.head_at(level, maps)
    at_middle = sum(part.unflatten(1, (side, side))[0, middle, middle].sum() for part in outputs.values())
    seen = torch.autograd.grad(at_middle, maps)[0].abs().sum(dim=(0, 1)).nonzero()
    assert (seen - middle).abs().max() == radius == 2


def test_curvatures_are_those_of_the_whole_network():
    case = Case()
    for index in (0, 4):
        pairs = zip(*(way.curvatures(index, case.layers) for way in (case.by_windows, case.by_graph)), strict=True)
        for mine, theirs in pairs:
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)
        assert any(product.any() for _, product in case.by_windows.curvatures(index, case.layers))


@pytest.mark.parametrize(("name", "end_to_end"), [("yolov8n", False), ("yolo26n", True), ("yolo12n", False)])
def test_what_lies_above_a_layer_is_run_again_as_the_whole_network_runs_it(name, end_to_end):
    case = Case(name, end_to_end, with_graph=False)
    for layer in case.layers:
        again, whole = case.by_windows.rerun(layer), case.by_graph.rerun(layer)
        torch.testing.assert_close(again(again.activations)[0], case.by_windows.baseline)
        changed = torch.cat((again.activations * 0.9, again.activations.flip(1)))
        torch.testing.assert_close(again(changed), whole(changed), atol=1e-8, rtol=1e-8)
    others = torch.cat((case.image * 0.5, case.image.flip(3)))
    torch.testing.assert_close(case.by_windows.of_images(others), case.by_graph.of_images(others))


def test_scores_of_all_predictions_go_through_the_whole_head():
    case = Case()
    target = classes_target([[0], [1, 2]])
    scores, graph = case.lent.scores(case.recording, target), GraphScores(case.lent, case.by_graph.recording, target)
    assert isinstance(scores, PyramidScores)
    torch.testing.assert_close(scores.values, graph.values)
    for mine, theirs in zip(scores.gradients(1, case.layers), graph.gradients(1, case.layers), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=1e-5)
    similar = similarity_target(case.recording.predictions, case.boxes, case.classes, ("class",), case.rows)
    left = case.lent.scores(case.recording, similar).of_images(case.image)
    assert (left[0] >= case.recording.predictions.certainty[case.rows] - 1e-6).all()


def test_layers_of_the_head_are_read_through_the_graph():
    detector = detector_of(ultralytics_model(), (160, 160))
    with detector.borrowed() as lent:
        image, _ = lent.prepare(PICTURE, (160, 160))
        layers = (IMAGE, "model.22.cv3.0.1.conv")
        recording = lent.record(image, layers, True)
        row = recording.predictions.certainty[: recording.ends[0]].argmax()
        target = detections_target(recording.predictions, torch.zeros(1, 4), torch.tensor([0]), ("class",), row[None])
        gradients = lent.scores(recording, target).gradients(0, layers)
    assert all(each.any() for each in gradients)


def test_a_head_whose_windows_give_something_else_is_read_as_a_whole():
    model = ultralytics_model()

    def centred(layer, args, output):
        return output - output.mean(dim=(2, 3), keepdim=True)

    for branch in model.model[-1].cv3:
        branch[0].register_forward_hook(centred)
    detector = detector_of(model, (160, 160))
    with detector.borrowed() as lent:
        image, _ = lent.prepare(PICTURE, (160, 160))
        recording = lent.record(image, ("model.15",), True)
        rows = torch.tensor([5, 40])
        target = detections_target(recording.predictions, torch.zeros(2, 4), torch.tensor([0, 1]), ("class",), rows)
        assert isinstance(lent.scores(recording, target), PyramidScores)
    explanation = Explainer(model, imgsz=160, max_det=1)(PICTURE)
    assert explanation.heatmap.max() == pytest.approx(1)


def test_one_backward_pass_of_the_head_gives_the_gradients_of_all_scores(monkeypatch):
    case, calls, grad = Case(), [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **how: calls.append(1) or grad(*args, **how))
    for index in range(len(case.rows)):
        case.by_windows.head_gradient(index)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_windows_are_read_in_half_precision_too(dtype):
    detector = detector_of(ultralytics_model().to(dtype), (160, 160))
    with detector.borrowed() as lent:
        image, _ = lent.prepare(PICTURE, (160, 160))
        recording = lent.record(image, ("model.15",), True)
        rows = recording.predictions.certainty[: recording.ends[0]].topk(3).indices
        classes = recording.predictions.probabilities[rows].argmax(dim=1)
        target = detections_target(recording.predictions, torch.zeros(3, 4), classes, ("class",), rows)
        scores = lent.scores(recording, target)
        assert isinstance(scores, LocalScores)
        assert scores.gradients(0, ("model.15",))[0].any()
