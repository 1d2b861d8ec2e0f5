"""What lies above a layer gives, run again, what the whole network gives."""

import pytest
import torch
from scenes import confident_detector, picture
from torch import nn

from explainer.detectors.layers import head_inputs_of
from explainer.detectors.predictions import Target
from explainer.detectors.yolov5 import YOLOv5

PICTURE = picture(64, 96)
LAYERS = [*(f"model.{index}" for index in range(8)), "model.7.cv3.act", "model.2.m.0.cv1", "model.4.m"]
# The confidence of the predictions of one cell of each stride, in all classes.
ROWS = torch.tensor([[30], [800]])


def target():
    return Target(ROWS, lambda predictions: predictions.confidences().sum(dim=(-2, -1)))


def recorded(detector, layer):
    """Return a recording, without a graph, of a layer and what is needed to run what lies above it again."""
    image, _ = detector.prepare(PICTURE, (64, 96))
    return detector.record(image, tuple(dict.fromkeys((layer, *detector.needed_above(layer)))), with_graph=False)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_rerun_that_changes_nothing_gives_the_scores_of_the_whole_network(layer):
    with YOLOv5(confident_detector()).borrowed() as detector:
        recording = recorded(detector, layer)
        scores = detector.scores(recording, target())
        again = scores.rerun(layer)
        expected = target().of(recording.predictions)
        torch.testing.assert_close(scores.baseline, expected, rtol=1e-4, atol=1e-6)
        found = again(again.activations.repeat(3, 1, 1, 1))
    assert found.shape == (3, 2)
    torch.testing.assert_close(found, expected.expand(3, 2), rtol=1e-4, atol=1e-6)


def test_only_what_depends_on_the_layer_is_run_again():
    calls = []
    with YOLOv5(confident_detector()).borrowed() as detector:
        scores = detector.scores(recorded(detector, "model.4"), target())
        for index, layer in enumerate(detector.model.model):
            layer.register_forward_hook(lambda *_, index=index: calls.append(index))
        again = scores.rerun("model.4")
        again(again.activations)
    assert calls == [5, 6, 7]


def test_what_is_read_besides_the_layer_is_recorded():
    detector = YOLOv5(confident_detector())
    assert detector.needed_above("model.4") == ("model.2", "model.4")
    assert detector.needed_above("model.7") == ("model.7",)
    # A part of a block is run with the block: what the block reads is needed, not what it gives.
    assert detector.needed_above("model.7.cv3") == ("model.6",)


def test_scores_of_other_images_are_those_of_a_pass_through_the_network():
    detector = YOLOv5(nn.ModuleList([confident_detector(1), confident_detector(2)]))
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with detector.borrowed() as detector:
        scores = detector.scores(recorded(detector, "0.model.4"), target())
        expected = target().of(detector.predict(images))
        torch.testing.assert_close(scores.of_images(images), expected, rtol=1e-4, atol=1e-6)


def test_head_inputs_that_do_not_count_are_left_out():
    detector = YOLOv5(nn.ModuleList([confident_detector(1), confident_detector(2)]))
    with detector.borrowed() as detector, torch.no_grad():
        found = head_inputs_of(detector, torch.rand(2, 3, 64, 96), [1])
    # The input of stride 4 depends on that of stride 8, and not the other way round.
    assert [None if tensor is None else tuple(tensor.shape) for tensor in found] == [None, (2, 16, 8, 12), None, None]
