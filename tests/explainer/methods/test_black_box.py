"""Black-box methods: maps from masked passes alone, of any model that predicts."""

import weakref
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from plain_scores import plain_similarity
from scenes import confident_detector, picture
from torch.nn import functional

from explainer.detectors.predictions import Predictions, Recording
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods import black_box
from explainer.methods.black_box import (
    FocusedGrids,
    MaskedPasses,
    RandomGrids,
    Sums,
    covariances,
    enlarged,
    hidden_image,
    reliability,
)
from explainer.methods.catalogue import METHODS
from explainer.methods.masks import grid_masks
from explainer.methods.targets import BoxesTarget, similarity_target
from explainer.settings import Settings

PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "max_det": 5, "masks": 24}
BLACK_BOX = [name for name, method in METHODS.items() if not method.reads_layers]


def explained(method="DRISE", model=None, **settings):
    return Explainer(model or confident_detector(), method=method, **SETTINGS | settings)(PICTURE)


def cams(explanation):
    return np.array([entry.cams[0] for entry in explanation.detections])


class BrightnessDetector:
    """Finds one box, as surely as its inside is bright."""

    box = (32, 16, 64, 40)

    def __init__(self):
        self.passes = 0

    def predict(self, images):
        self.passes += len(images)
        x1, y1, x2, y2 = self.box
        brightness = images[:, :, y1:y2, x1:x2].mean(dim=(1, 2, 3))
        box = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        return Predictions(box.repeat(len(images), 1, 1), brightness[:, None], torch.ones(len(images), 1, 1))


def brightness_evidence(kind=RandomGrids, detector=None, **sampling):
    """Return evidence for a brightness detector on a white image, and the detector."""
    detector, image = detector or BrightnessDetector(), torch.ones(1, 3, 64, 96)
    recording = Recording(image, detector.predict(image)[0], {}, (1,))
    box, classes = torch.tensor([detector.box]).float(), torch.tensor([0])
    target = similarity_target(recording.predictions, box, classes, ("class",))
    few = Settings(method="DRISE", **{"masks": 200, "grid": 8, "baseline": "zero"} | sampling)
    return kind(detector, recording, target, few), detector


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
        evidence, _ = brightness_evidence()
        evidence.at(0, ())
        assert threads[0] == cv2.getNumThreads() == several
        assert set(threads[1:]) == {1}
    finally:
        cv2.setNumThreads(before)


def test_a_mask_is_enlarged_alike_on_every_device():
    masks = np.float32(np.random.default_rng(0).random((3, 12, 18)))
    expected = functional.interpolate(torch.from_numpy(masks)[:, None], IMAGE.shape[2:], mode="bilinear")
    torch.testing.assert_close(enlarged(masks, IMAGE), expected, rtol=0, atol=1e-6)


# Sums over masks


def test_sums_give_the_maps_that_all_masks_at_once_give():
    generator = np.random.default_rng(0)
    masks, scores = generator.random((12, 4, 6)), generator.random((12, 3))
    sums = Sums.zeros(3, (4, 6))
    for start in (0, 5, 6):
        end = {0: 5, 5: 6, 6: 12}[start]
        sums.add(masks[start:end], scores[start:end])
    expected = np.cov(scores.T, masks.reshape(12, -1).T, bias=True)[:3, 3:].reshape(3, 4, 6)
    np.testing.assert_allclose(covariances(sums), expected, atol=1e-12)


def test_where_masks_happen_to_be_dense_says_nothing_about_a_score_that_does_not_change():
    masks = np.random.default_rng(0).random((12, 4, 6)) < np.linspace(0.2, 0.9, 6)
    sums = Sums.zeros(1, (4, 6))
    sums.add(np.float64(masks), np.full((12, 1), 0.7))
    assert np.ptp(sums.masks) > 3
    np.testing.assert_allclose(covariances(sums), 0, atol=1e-12)


def test_the_reliability_of_the_noisiest_map_counts():
    generator = np.random.default_rng(0)
    signal, noise = generator.normal(size=(1, 200, 200)), generator.normal(size=(2, 1, 200, 200))
    assert reliability(signal, signal) == pytest.approx(1)
    # The mean of two maps with noise as strong as the signal is two thirds signal.
    assert reliability(signal + noise[0], signal + noise[1]) == pytest.approx(2 / 3, abs=0.02)
    several = np.concatenate([signal, noise[0]]), np.concatenate([signal, noise[1]])
    assert reliability(*several) == pytest.approx(0, abs=0.02)


# Maps


@pytest.mark.parametrize("baseline", ["grey", "zero", "blur"])
def test_a_map_is_the_covariance_of_masks_with_what_they_leave(baseline):
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
        expected = ((left - left.mean())[:, None, None] * masks).mean(dim=0)
        np.testing.assert_allclose(entry.cams[0], expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("method", BLACK_BOX)
def test_a_map_is_hottest_on_what_the_detector_looks_at(method):
    kind = METHODS[method].evidence
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


def test_a_focused_map_ends_softly_at_half_a_box_around_its_box():
    evidence, _ = brightness_evidence(FocusedGrids)
    cam = evidence.at(0, ())[0][0, 0]
    x1, y1, x2, y2 = (side / FocusedGrids.cell for side in BrightnessDetector.box)
    y, x = np.mgrid[: cam.shape[0], : cam.shape[1]] + 0.5
    far = (np.abs(x - (x1 + x2) / 2) > 0.75 * (x2 - x1) + 1) | (np.abs(y - (y1 + y2) / 2) > 0.75 * (y2 - y1) + 1)
    inside = (np.abs(x - (x1 + x2) / 2) < 0.3 * (x2 - x1)) & (np.abs(y - (y1 + y2) / 2) < 0.3 * (y2 - y1))
    assert far.sum() > 20
    assert (cam[far] == 0).all()
    assert (cam[inside] > 0).all()


def test_that_a_focused_map_is_zero_elsewhere_does_not_end_the_passes_sooner(monkeypatch):
    compared = []
    monkeypatch.setattr(black_box, "reliability", lambda *maps: compared.append(maps) or 0.0)
    evidence, _ = brightness_evidence(FocusedGrids, masks=60)
    shown = evidence.at(0, ())[0][0, 0]
    assert len(compared) == 2
    assert (shown == 0).any()
    assert all((maps != 0).all() for pair in compared for maps in pair)


def test_the_passes_end_when_the_maps_have_converged():
    evidence, detector = brightness_evidence(FocusedGrids, masks=2000, grid=4)
    evidence.at(0, ())
    assert 2 * black_box.PASSES_PER_LOOK <= detector.passes - 1 < 1000
    assert evidence.note.startswith(f"{detector.passes - 1} of 2000 masks, reliability 0.9")


def test_all_masks_are_tried_where_the_maps_do_not_converge(monkeypatch):
    monkeypatch.setattr(black_box, "ENOUGH", 1.01)
    evidence, detector = brightness_evidence(masks=70)
    evidence.at(0, ())
    assert detector.passes - 1 == 70
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
            found = super().predict(images)
            return replace(found, objectness=(found.objectness > 0.999).float())

    assert MaskedPasses.nothing == "is not found in any of the masked images"
    evidence, _ = brightness_evidence(detector=Blind())
    assert isinstance(evidence.target, BoxesTarget)
    assert not evidence.at(0, ())[0].any()


def test_no_pass_is_made_before_a_map_is_asked_for_and_none_twice():
    evidence, detector = brightness_evidence()
    assert evidence.values == [1]
    assert detector.passes == 1
    first, passes = evidence.at(0, ())[0], detector.passes
    assert (evidence.at(0, ())[0] == first).all()
    assert detector.passes == passes > 1


@pytest.mark.parametrize("kind", [RandomGrids, FocusedGrids])
def test_masks_and_knots_are_as_many_as_the_kind_has_unless_the_settings_say_so(kind):
    plain, _ = brightness_evidence(kind, masks=None, grid=None)
    assert (plain.most, plain.knots) == (kind.masks, kind.grid)
    asked, _ = brightness_evidence(kind, masks=7, grid=3)
    assert (asked.most, asked.knots) == (7, 3)
    assert plain.size == (64 // kind.cell, 96 // kind.cell)


# Options


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


def test_the_table_says_what_was_read():
    row = explained().detections[0].row()
    assert row["layer"] == "predictions"
    assert row["stride"] in (4, 8)
