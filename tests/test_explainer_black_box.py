"""Black-box methods: maps from masked passes alone, of any model that predicts."""

import weakref
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from scenes import confident_detector, picture
from torch.nn import functional

from explainer import black_box
from explainer.black_box import FocusedGrids, MaskedPasses, RandomGrids, Sampling, enlarged, hidden_image
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.masks import grid_masks
from explainer.methods import METHODS, needs_layers
from explainer.network import Recording
from explainer.object_targets import BoxesTarget
from explainer.running_sums import Sums, mean_kept, reliability, significant_slopes
from explainer.settings import Settings
from explainer.similarity import similarities, similarity_target

PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "max_det": 5, "masks": 24}
BLACK_BOX = [name for name in METHODS if not needs_layers(name)]


def explained(method="DRISE", model=None, **settings):
    return Explainer(model or confident_detector(), method=method, **SETTINGS | settings)(PICTURE)


def cams(explanation):
    return np.array([entry.cams[0] for entry in explanation.detections])


def plain_similarity(raw, box, probabilities):
    """Return the similarity by its definition, one raw prediction after the other."""
    best = 0.0
    for x, y, w, h, objectness, *classes in raw.tolist():
        width = max(0.0, min(box[2], x + w / 2) - max(box[0], x - w / 2))
        height = max(0.0, min(box[3], y + h / 2) - max(box[1], y - h / 2))
        both = width * height
        union = (box[2] - box[0]) * (box[3] - box[1]) + w * h - both
        cosine = np.dot(classes, probabilities) / np.linalg.norm(classes) / np.linalg.norm(probabilities)
        best = max(best, both / union * cosine * objectness)
    return best


class BrightnessDetector:
    """Finds one box, as surely as its inside is bright."""

    box = (32, 16, 64, 40)

    def __init__(self):
        self.passes = 0

    def predict(self, images):
        self.passes += len(images)
        x1, y1, x2, y2 = self.box
        brightness = images[:, :, y1:y2, x1:x2].mean(dim=(1, 2, 3))
        row = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0, 1.0])
        raw = row.repeat(len(images), 1, 1)
        raw[:, 0, 4] = brightness
        return raw


def brightness_evidence(kind=RandomGrids, **sampling):
    """Return evidence for the brightness detector on a white image."""
    network, image = BrightnessDetector(), torch.ones(1, 3, 64, 96)
    recording = Recording(image, network.predict(image)[0], (), {})
    target = similarity_target(recording.raw, torch.tensor([network.box]).float(), [0], ("class",))
    few = Sampling(**{"masks": 200, "grid": 8, "baseline": "zero"} | sampling)
    configured = type("Configured", (kind,), {"sampling": few})
    return configured(network, recording, target, at_head=False), network


# The passes


def test_opencv_has_one_thread_while_passes_run_and_as_many_as_before_afterwards(monkeypatch):
    threads, predict = [], BrightnessDetector.predict

    def counting(self, images):
        threads.append(cv2.getNumThreads())
        return predict(self, images)

    monkeypatch.setattr(BrightnessDetector, "predict", counting)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        several = cv2.getNumThreads()
        brightness_evidence()
        assert threads[0] == cv2.getNumThreads() == several
        assert set(threads[1:]) == {1}
    finally:
        cv2.setNumThreads(before)


def test_a_mask_is_enlarged_alike_on_every_device():
    masks = np.float32(np.random.default_rng(0).random((3, 12, 18)))
    expected = functional.interpolate(torch.from_numpy(masks)[:, None], IMAGE.shape[2:], mode="bilinear")
    torch.testing.assert_close(enlarged(masks, IMAGE), expected, rtol=0, atol=1e-6)


# The similarity


def test_similarity_is_the_best_of_all_predictions():
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(2, 300, 8, generator=generator)
    raw[..., :4] *= 60
    # Few that are sure and many that are not, as a network predicts.
    raw[..., 4] **= 12
    boxes = torch.tensor([[0, 0, 20, 30], [30, 30, 50, 60], [100, 100, 110, 110], [5, 5, 6, 6]]).float()
    probabilities = torch.rand(4, 3, generator=generator)
    expected = [
        [plain_similarity(image, box, row) for box, row in zip(boxes.tolist(), probabilities.tolist(), strict=True)]
        for image in raw
    ]
    np.testing.assert_allclose(
        similarities(raw, boxes, functional.normalize(probabilities, dim=1)), expected, rtol=1e-4
    )


def test_an_undisturbed_image_leaves_a_detection_whole():
    raw = confident_detector()(IMAGE)[0][0].detach()
    explanation = explained()
    for entry in explanation.detections:
        assert entry.score >= float(raw[entry.detection.row, 4]) - 1e-6


def test_a_box_that_is_not_predicted_stands_for_its_class():
    raw = torch.tensor([[10, 10, 4, 4, 0.9, 0.8, 0.6], [50, 50, 4, 4, 0.5, 0.0, 1.0]])
    box = torch.tensor([[48, 48, 52, 52]]).float()
    asked = similarity_target(raw, box, [0], ("class",))
    assert asked.of_raw(raw[None]).item() == 0
    assert asked.of_raw(torch.tensor([[[50, 50, 4, 4, 0.5, 0.6, 0.8]]])).item() == pytest.approx(0.5 * 0.6)


# Sums over masks


def test_sums_give_the_maps_that_all_masks_at_once_give():
    generator = np.random.default_rng(0)
    masks, scores = generator.random((12, 4, 6)), generator.random((12, 3))
    sums = Sums.zeros(3, (4, 6))
    for start in (0, 5, 6):
        end = {0: 5, 5: 6, 6: 12}[start]
        sums.add(masks[start:end], scores[start:end])
    np.testing.assert_allclose(mean_kept(sums, 0.5), np.einsum("nd,nhw->dhw", scores, masks) / 6)


def test_a_slope_that_stands_out_is_nearly_that_of_a_line_through_the_scores_and_noise_is_zero():
    generator = np.random.default_rng(0)
    masks = generator.random((200, 1, 4))
    scores = np.stack([0.6 * masks[:, 0, 0] - 0.4 * masks[:, 0, 1], generator.random(200)], axis=1)
    sums = Sums.zeros(2, (1, 4))
    sums.add(masks, scores)
    found = significant_slopes(sums)[:, 0]
    lines = [np.polyfit(masks[:, 0, x], scores[:, 0], 1)[0] for x in range(2)]
    # A little of the variance is added to every cell's own, 1/12.
    np.testing.assert_allclose(found[0, :2], np.multiply(lines, (1 / 12) / (1 / 12 + 0.01)), atol=0.03)
    assert np.abs(found[0, 2:]).max() < 0.1
    assert np.abs(found[1]).max() < 0.05
    assert (found[1] == 0).sum() >= 2


def test_the_reliability_of_the_noisiest_map_counts():
    generator = np.random.default_rng(0)
    signal, noise = generator.normal(size=(1, 200, 200)), generator.normal(size=(2, 1, 200, 200))
    assert reliability(signal, signal) == pytest.approx(1)
    # The mean of two maps with noise as strong as the signal is two thirds signal.
    assert reliability(signal + noise[0], signal + noise[1]) == pytest.approx(2 / 3, abs=0.02)
    several = np.concatenate([signal, noise[0]]), np.concatenate([signal, noise[1]])
    assert reliability(*several) == pytest.approx(0, abs=0.02)


# Masks


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_masks_keep_the_share_that_is_asked_for(keep):
    masks = np.array(list(islice(grid_masks((48, 80), 8, keep, seed=0), 300)))
    assert masks.shape == (300, 48, 80)
    assert masks.dtype == np.float32
    assert masks.min() == 0
    assert masks.max() == 1
    np.testing.assert_allclose(masks.mean(axis=0), keep, atol=0.12)
    assert masks.mean() == pytest.approx(keep, abs=0.02)


# Maps


@pytest.mark.parametrize("baseline", ["grey", "zero", "blur"])
def test_a_map_is_the_mean_of_masks_weighted_by_what_they_leave(baseline):
    explanation, detector = explained(baseline=baseline, mask_p=0.4, seed=3), confident_detector()
    masks = torch.from_numpy(np.array(list(islice(grid_masks((8, 12), 16, 0.4, seed=3), 24))))
    shown = functional.interpolate(masks[:, None], (64, 96), mode="bilinear")
    hidden = hidden_image(IMAGE, baseline)
    with torch.no_grad():
        raw = detector(IMAGE)[0][0]
        of_masked = [detector(IMAGE * kept + hidden * (1 - kept))[0][0] for kept in shown]
    assert len(explanation.detections) == 5
    for entry in explanation.detections[:2]:
        row = raw[entry.detection.row]
        x, y, w, h = row[:4].tolist()
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        left = torch.tensor([plain_similarity(each, box, row[5:].tolist()) for each in of_masked])
        expected = (left[:, None, None] * masks).sum(dim=0) / (24 * 0.4)
        np.testing.assert_allclose(entry.cams[0], expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("method", BLACK_BOX)
def test_a_map_is_hottest_on_what_the_detector_looks_at(method):
    kind = Explainer(confident_detector(), method=method, **SETTINGS).evidence.__base__
    evidence, _ = brightness_evidence(kind)
    (cam,) = evidence.at(0, ())
    y, x = np.unravel_index(int(cam[0, 0].argmax()), cam.shape[2:])
    x1, y1, x2, y2 = BrightnessDetector.box
    assert x1 <= (x + 0.5) * kind.cell <= x2
    assert y1 <= (y + 0.5) * kind.cell <= y2


@pytest.mark.parametrize("method", BLACK_BOX)
def test_the_batch_size_changes_nothing(method, monkeypatch):
    found = []
    for size in (1, 3, 8):
        monkeypatch.setattr(black_box, "BATCH_ON_CPU", size)
        found.append(cams(explained(method)))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


@pytest.mark.parametrize("method", BLACK_BOX)
def test_the_seed_decides(method):
    first, again, other = (cams(explained(method, seed=seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - other).max() > 0.1 * np.abs(first).max()


def test_the_passes_end_when_the_maps_have_converged():
    evidence, network = brightness_evidence(FocusedGrids, masks=2000, grid=4, enough=0.95)
    assert 2 * black_box.PASSES_PER_LOOK <= network.passes - 1 < 1000
    assert evidence.note.startswith(f"{network.passes - 1} of 2000 masks, reliability 0.9")


def test_all_masks_are_tried_where_the_maps_do_not_converge():
    evidence, network = brightness_evidence(masks=70, enough=1.01)
    assert network.passes - 1 == 70
    assert evidence.note.startswith("70 of 70 masks, reliability ")


@pytest.mark.parametrize("method", BLACK_BOX)
def test_an_explanation_says_how_many_masks_it_took(method):
    assert explained(method).notes[-1].startswith("24 of 24 masks")


def test_no_mask_is_kept_longer_than_needed(monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Counted(np.ndarray):
        """An array that can be put into a set of weak references."""

        __hash__ = object.__hash__

    def counted(*arguments):
        for mask in grid_masks(*arguments):
            kept = mask.view(Counted)
            alive.add(kept)
            most.append(len(alive))
            yield kept

    monkeypatch.setattr(black_box, "grid_masks", counted)
    explained(masks=200)
    assert len(most) == 200
    assert max(most) <= black_box.PASSES_PER_LOOK + 1


def test_one_masked_pass_serves_all_detections():
    model, passes = confident_detector(), []
    model.model[0].register_forward_hook(lambda module, args, output: passes.append(len(output)))
    assert len(explained(model=model).detections) == 5
    assert sum(passes) == 1 + 24


def test_what_is_never_found_under_a_mask_is_said_in_a_note():
    class Blind(BrightnessDetector):
        """Finds its box in the white image alone."""

        def predict(self, images):
            raw = super().predict(images)
            raw[:, 0, 4] = (raw[:, 0, 4] > 0.999).float()
            return raw

    assert MaskedPasses.nothing == "is not found in any of the masked images"
    network, image = Blind(), torch.ones(1, 3, 64, 96)
    recording = Recording(image, network.predict(image)[0], (), {})
    target = similarity_target(recording.raw, torch.tensor([network.box]).float(), [0], ("class",))
    evidence = RandomGrids(network, recording, target, at_head=False)
    assert isinstance(target, BoxesTarget)
    assert not evidence.at(0, ())[0].any()


# Options


@pytest.mark.parametrize("method", BLACK_BOX)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": 17}, "reads no layer, only predictions; leave --layer 17 out"),
        ({"fuse": "product"}, "leave --fuse product out"),
        ({"eigen_smooth": True}, "leave --eigen-smooth out"),
        ({"backprop_array": "width"}, "explains box, class and confidence together; leave --backprop-array width out"),
        ({"use_old_target_method": True}, "leave --use-old-target-method out"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_a_black_box_method_cannot_look_at_is_refused(method, given, message):
    with pytest.raises(UsageError, match=f"{method} .*{message}"):
        Settings(method=method, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"masks": 0}, "--masks 0 is not a whole number of at least 1"),
        ({"grid": 1}, "--grid 1 is not a whole number of at least 2"),
        ({"seed": -1}, "--seed -1 is not a whole number of at least 0"),
        ({"mask_p": 1.0}, "--mask-p 1.0 does not lie between 0 and 1"),
        ({"baseline": "pink"}, "unknown baseline 'pink'; known: grey, zero, blur"),
    ],
)
def test_masks_that_cannot_be_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Settings(method="DRISE", **given)


def test_the_name_of_the_paper_is_known():
    assert Settings(method="d-rise").method == "DRISE"


def test_the_table_says_what_was_read():
    row = explained().detections[0].row()
    assert row["layer"] == "predictions"
    assert row["stride"] in (4, 8)
