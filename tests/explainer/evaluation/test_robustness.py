"""Maps of nearly the same picture: how it is changed, what is compared, and the same figures as those of another library."""

from types import SimpleNamespace

import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.evaluation.robustness import (
    DRAWS,
    LEVELS_OF_NOISE,
    SHIFTED,
    Moved,
    Robustness,
    agreement,
    relative_change,
)
from explainer.explain import Explainer

PICTURE = picture(40, 60)
ALL_WAYS = (Moved(), Moved(mirrored=True), *SHIFTED)


class Stand:
    """Stand in for an explainer: the map of a box is a function of the picture and the box."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def __call__(self, image_rgb, boxes):
        self.seen.append((image_rgb, boxes))
        return SimpleNamespace(detections=[SimpleNamespace(heatmap=self.function(image_rgb, box)) for box in boxes])


def brightness(image_rgb, box):
    return np.float32(image_rgb.mean(axis=2) / 255)


def inside(image_rgb, box):
    heatmap = np.zeros(image_rgb.shape[:2], np.float32)
    x1, y1, x2, y2 = map(round, box[:4])
    heatmap[y1:y2, x1:x2] = 1
    return heatmap


def figures(function, *boxes, seed=0):
    explained = [
        SimpleNamespace(detection=SimpleNamespace(xyxy=np.float32(box), class_index=1))
        for box in boxes or [(10, 8, 30, 28)]
    ]
    return Robustness(Stand(function), seed).figures(PICTURE, explained)


@pytest.mark.parametrize("way", ALL_WAYS)
def test_what_moves_with_the_picture_agrees_with_it_to_the_pixel(way):
    first, back = way.both(brightness(PICTURE, None), brightness(way.picture(PICTURE), None))
    assert first.shape == back.shape == (40 - abs(way.down), 60 - abs(way.right))
    assert (first == back).all()


def test_a_box_moves_with_the_picture_and_is_cut_off_at_its_edge():
    size, box = (40, 60), (10, 8, 30, 28, "dog")
    assert Moved(mirrored=True).box(box, size) == (30, 8, 50, 28, "dog")
    assert Moved(right=-5, down=2).box(box, size) == (5, 10, 25, 30, "dog")
    assert Moved(right=3, down=5).box((40, 30, 60, 40, 0), size) == (43, 35, 60, 40, 0)
    assert Moved(right=3, down=-6).box((59, 0, 60, 2, 0), size) == (59, 0, 60, 1, 0)


@pytest.mark.parametrize("way", SHIFTED)
@pytest.mark.parametrize("box", [(0, 0, 2, 2, 0), (58, 38, 60, 40, 0), (0, 39.5, 60, 40, 0)])
def test_a_moved_box_always_encloses_something(way, box):
    x1, y1, x2, y2, _ = way.box(box, (40, 60))
    assert 0 <= x1 < x2 <= 60
    assert 0 <= y1 < y2 <= 40


def test_a_map_that_is_fixed_to_the_box_stays_and_repeats():
    (found,) = figures(inside)
    assert found == pytest.approx(
        {"max_sensitivity": 0, "mean_sensitivity": 0, "repeat_flip": 1, "repeat_shift": 1}, abs=1e-6
    )


def test_a_map_that_does_not_move_with_the_picture_is_told():
    heatmap = inside(PICTURE, (2, 2, 12, 12))
    (found,) = figures(lambda *_: heatmap)
    assert found["max_sensitivity"] == 0
    assert found["repeat_flip"] < 0
    assert 0.1 < found["repeat_shift"] < 0.7


def test_noise_is_small_and_the_same_for_every_method_and_seen_in_the_figures():
    stand = Stand(brightness)
    explained = [SimpleNamespace(detection=SimpleNamespace(xyxy=np.float32([10, 8, 30, 28]), class_index=1))]
    (found,) = Robustness(stand, 0).figures(PICTURE, explained)
    noisy = [image for image, _ in stand.seen[1 : 1 + DRAWS]]
    away = [np.int16(image) - PICTURE for image in noisy]
    assert {np.abs(each).max() for each in away} == {LEVELS_OF_NOISE}
    changes = [relative_change(brightness(PICTURE, None), brightness(image, None)) for image in noisy]
    assert found["max_sensitivity"] == pytest.approx(max(changes))
    assert found["mean_sensitivity"] == pytest.approx(np.mean(changes))
    assert 0 < found["mean_sensitivity"] < found["max_sensitivity"] < 0.1
    assert figures(brightness) == [found]
    assert figures(brightness, seed=1) != [found]


def test_of_an_empty_map_nothing_is_known_and_one_that_becomes_empty_does_not_repeat():
    (nothing,) = figures(lambda *_: np.zeros((40, 60), np.float32))
    assert set(nothing.values()) == {None}
    heatmap = inside(PICTURE, (2, 2, 12, 12))
    assert relative_change(heatmap, 0 * heatmap) == 1
    assert agreement(heatmap, 0 * heatmap) == 0
    assert agreement(heatmap, 1 - heatmap) == pytest.approx(-1)


def test_a_method_is_compared_with_itself_on_the_boxes_of_its_detections():
    explainer = Explainer(confident_detector(), method="LayerCAM", conf_thres=0.05, imgsz=96, max_det=2)
    image_rgb = picture(64, 96)
    explained = explainer(image_rgb).detections
    for row in Robustness(explainer, 0).figures(image_rgb, list(explained)):
        assert 0 <= row["mean_sensitivity"] <= row["max_sensitivity"]
        assert -1 <= row["repeat_shift"] <= 1


def test_the_sensitivities_are_those_of_quantus_on_the_same_maps():
    quantus = pytest.importorskip("quantus", reason="quantus is not installed")
    import torch

    image, generator = np.float32(PICTURE.transpose(2, 0, 1))[None] / 255, np.random.default_rng(0)
    changed = [image + np.float32(generator.uniform(-0.02, 0.02, image.shape)) for _ in range(DRAWS)]

    class Classifier(torch.nn.Module):
        """Quantus wants a model, and asks nothing of it here."""

        def forward(self, images):
            return images.mean(dim=(2, 3))

    def explain(model, inputs, targets, **_):
        return inputs.mean(axis=1, keepdims=True) ** 2

    expected = {}
    for name, metric in (("max", quantus.MaxSensitivity), ("mean", quantus.AvgSensitivity)):
        draws = iter(changed)
        measured = metric(
            nr_samples=DRAWS,
            perturb_func=lambda arr, draws=draws, **_: next(draws).reshape(arr.shape),
            disable_warnings=True,
            normalise=False,
        )
        maps, label = explain(None, image, None), np.array([0])
        (expected[name],) = measured(Classifier(), image, label, maps, explain_func=explain, device="cpu", batch_size=1)
    found = [relative_change(explain(None, image, None)[0, 0], explain(None, each, None)[0, 0]) for each in changed]
    assert expected == pytest.approx({"max": max(found), "mean": np.mean(found)}, rel=1e-5)
