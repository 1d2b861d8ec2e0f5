"""AblationCAM and ScoreCAM give what one full forward pass for each channel gives."""

import numpy as np
import pytest
import torch
from plain_scores import fixed_score
from scenes import confident, confident_detector, picture
from tiny_detectors import tiny_segmenter
from torch import nn
from torch.nn import functional

from explainer.detectors.yolov5 import YOLOv5
from explainer.explain import Explainer
from explainer.methods.evidence import Masking, channels_of, spotlights, without_each
from explainer.methods.targets import detections_target
from explainer.settings import Settings

# The network's input is the picture itself.
PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255


class Replaced:
    """Runs a detector as a whole with other activations at one place."""

    def __init__(self, detector, place, head_input=None):
        self.detector, self.seen, self.replacement = detector, None, None
        if head_input is None:
            place.register_forward_hook(lambda module, args, output: self.exchange(output))
        else:
            place.register_forward_pre_hook(lambda module, args: (self.exchange_one(args[0], head_input),))

    def exchange(self, output):
        self.seen = output.detach().clone()
        return self.seen if self.replacement is None else self.replacement

    def exchange_one(self, inputs, index):
        return [self.exchange(tensor) if i == index else tensor for i, tensor in enumerate(inputs)]

    def raw(self, image=IMAGE, replacement=None):
        self.replacement = replacement
        with torch.no_grad():
            return self.detector(image)[0][0]


def ablated_map(run, found):
    """Return the map of one detection by its definition: a full forward pass for every channel."""
    clean = run.raw()
    activations, score = run.seen, fixed_score(found, clean)
    total = torch.zeros(activations.shape[2:])
    for channel in range(activations.shape[1]):
        without = activations.clone()
        without[:, channel] = 0
        total += (score(clean) - score(run.raw(replacement=without))) * activations[0, channel]
    return total.numpy()


def masked_map(run, found):
    """Return the map of one detection by ScoreCAM's definition: the picture through every channel."""
    clean = run.raw()
    activations, score = run.seen, fixed_score(found, clean)
    maps = functional.interpolate(activations, IMAGE.shape[2:], mode="bilinear", align_corners=True)[0]
    masks = [(one - one.min()) / (one.max() - one.min() + 1e-8) for one in maps]
    scores = torch.stack([score(run.raw(IMAGE * mask)) for mask in masks])
    return (scores.softmax(0)[:, None, None] * activations[0]).sum(0).numpy()


MAPS = {"AblationCAM": ablated_map, "ScoreCAM": masked_map}


def normalised(cam):
    return cam / max(np.abs(cam).max(), 1e-12)


def compare(method, run, entries):
    assert entries
    for entry in entries[:4]:
        expected = MAPS[method](run, entry.detection)
        np.testing.assert_allclose(normalised(entry.cams[0]), normalised(expected), atol=1e-3)


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("layer", [1, 2, 4, 5, 7, "model.7.cv3.act", "model.2.m.0.cv1"])
def test_every_channel_s_pass_is_that_of_the_whole_network(method, layer):
    detector = confident_detector()
    # In stock YOLOv5 all blocks of all models share one activation.
    detector.model[7].cv3.act = nn.SiLU()
    entries = Explainer(detector, method=method, layer=layer, **SETTINGS)(PICTURE).detections
    name = f"model.{layer}" if isinstance(layer, int) else layer
    compare(method, Replaced(detector, detector.get_submodule(name)), entries)


def test_of_several_calls_of_a_module_the_last_one_is_ablated():
    detector, calls = confident_detector(), []
    entries = Explainer(detector, method="AblationCAM", layer="model.4.m", **SETTINGS)(PICTURE).detections
    run = Replaced(detector, nn.Identity())

    def last_of_three(module, args, output):
        calls.append(1)
        return run.exchange(output) if len(calls) % 3 == 0 else None

    detector.model[4].m.register_forward_hook(last_of_three)
    compare("AblationCAM", run, entries)


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("level", [0, 1])
def test_at_the_head_s_own_input_the_head_alone_counts(method, level):
    detector = confident_detector()
    entries = Explainer(detector, method=method, **SETTINGS)(PICTURE).detections
    entries = [entry for entry in entries if entry.detection.level == level]
    compare(method, Replaced(detector, detector.model[-1], level), entries)


@pytest.mark.parametrize("method", MAPS)
def test_a_head_that_is_built_differently_is_run_as_a_whole(method):
    detector = confident_detector()
    head = detector.model[-1]
    head.m = nn.ModuleList([nn.Sequential(convolution, nn.Tanh()) for convolution in head.m])
    entries = Explainer(detector, method=method, layer=4, **SETTINGS)(PICTURE).detections
    compare(method, Replaced(detector, detector.model[4]), entries)


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("layer", ["auto", 4])
def test_ensembles_and_segmenters_are_explained(method, layer):
    for model in (confident(tiny_segmenter()), nn.ModuleList([confident_detector(1), confident_detector(2)])):
        entries = Explainer(model, method=method, layer=layer, **SETTINGS)(PICTURE).detections
        assert any(cam.any() for entry in entries for cam in entry.cams)


def test_the_channels_of_one_member_of_an_ensemble_leave_the_other_alone():
    members = nn.ModuleList([confident_detector(1), confident_detector(2)])
    explanation = Explainer(members, method="AblationCAM", layer=4, **SETTINGS)(PICTURE)
    for entry in explanation.detections:
        assert entry.layers[0].startswith("0." if entry.detection.level < 2 else "1.")
    assert explanation.heatmap.any()


@pytest.mark.parametrize("method", MAPS)
def test_the_combined_map_adds_up_the_weights_of_the_detections(method):
    explanation = Explainer(confident_detector(), method=method, layer=4, together="sum", **SETTINGS)(PICTURE)
    total = np.maximum(sum(entry.cams[0] for entry in explanation.detections), 0)
    expected = explanation.detections[0].letterbox.to_image(total)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(explanation.heatmap, expected, atol=5e-4)


@pytest.mark.parametrize("method", MAPS)
def test_all_detections_share_the_passes(method):
    few, many = [], []
    for passes, max_det in ((few, 1), (many, 100)):
        detector = confident_detector()
        detector.model[7].register_forward_hook(lambda *args, passes=passes: passes.append(1))
        explanation = Explainer(detector, method=method, layer=4, max_det=max_det, **SETTINGS)(PICTURE)
    assert len(explanation.detections) > 3
    assert len(few) == len(many)


@pytest.mark.parametrize("method", MAPS)
def test_the_sum_of_all_class_probabilities_is_explained(method):
    assert Explainer(confident_detector(), method=method, use_old_target_method=True, **SETTINGS)(PICTURE).heatmap.any()


def test_a_stride_that_does_not_change_with_the_layer_gets_a_reason():
    reason = "a stride-8 detection does not change with layer model.7; try --layer auto"
    assert reason in Explainer(confident_detector(), method="AblationCAM", layer=7, **SETTINGS)(PICTURE).notes


def test_channels_come_in_batches_and_each_is_taken_away_once():
    activations = torch.arange(1.0, 11).view(1, 5, 1, 2)
    assert [part.tolist() for part in channels_of(activations, 2)] == [[0, 1], [2, 3], [4]]
    ablated = without_each(activations, torch.tensor([3, 4]))
    assert ablated.shape == (2, 5, 1, 2)
    for copy, channel in zip(ablated, (3, 4), strict=True):
        assert not copy[channel].any()
        kept = [index for index in range(5) if index != channel]
        assert torch.equal(copy[kept], activations[0, kept])


def test_without_each_works_on_the_cells_of_a_head_too():
    assert without_each(torch.ones(1, 3, 4), torch.tensor([1])).tolist() == [[[1] * 4, [0] * 4, [1] * 4]]


def test_spotlights_are_maps_between_zero_and_one_at_the_size_of_the_image():
    masks = spotlights(torch.tensor([[[[0.0, 4], [2, 8]], [[-5, 5], [5, 5]]]]), torch.zeros(1, 3, 4, 4))
    assert masks.shape == (2, 1, 4, 4)
    assert masks[0, 0, 0, 0] == 0
    assert masks[0, 0, 3, 3] == pytest.approx(1)


def test_the_weights_of_score_cam_are_shares():
    with YOLOv5(confident_detector()).borrowed() as detector:
        recording = detector.record(IMAGE, ("model.4",), with_graph=False)
        boxes, classes = torch.tensor([[10.0, 5, 60, 50], [70, 40, 96, 64]]), torch.tensor([1, 2])
        target = detections_target(recording.predictions, boxes, classes, ("class",))
        weights = Masking(detector, recording, target, Settings(method="ScoreCAM")).weights("model.4")
    assert weights.shape == (16, 2)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2))
