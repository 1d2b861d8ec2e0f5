"""Explanations where the right answer is known: the emblem decides the class, the body decides the box.

Read with LayerCAM at the end of the backbone's stride 8 (layer 4), whose cells are smaller than an emblem. Every object is
asked about, found or not, so that models and classes are compared on the same boxes.
"""

import numpy as np
import pytest
import torch
from evidence_demo import IMGSZ_OF_SCENES as IMGSZ
from evidence_demo import WEIGHTS, Figures, demo_scenes, figures_of_scenes, matched, shuffled

from explainer.detectors.weights import open_model
from explainer.explain import Explainer
from explainer.methods.targets import similarity_target

LAYER = 4


@pytest.fixture(scope="module")
def model():
    return open_model(WEIGHTS, device="cpu")


@pytest.fixture(scope="module")
def scenes():
    return demo_scenes()


@pytest.fixture(scope="module")
def of_class(model, scenes):
    return figures(model, scenes)


@pytest.fixture(scope="module")
def emblem_share(scenes):
    """How much of a visible body its emblem is, in the mean: what a map that shows just the body would score."""
    return np.mean([(s.emblems.sum((1, 2)) / s.bodies.sum((1, 2))).mean() for s in scenes])


def figures(model, scenes, **settings) -> Figures:
    """Return the figures of LayerCAM at the layer of these tests, unless the settings say more."""
    return figures_of_scenes(model, scenes, **{"layer": LAYER, "imgsz": IMGSZ, **settings})


def rows_of(model, scenes, **settings):
    """Return the rows of the table for all that is detected."""
    explainer = Explainer(model, imgsz=IMGSZ, **settings)
    return [row for scene in scenes for row in explainer(scene.image_rgb).rows()]


def patch_far_from_emblem(body, emblem):
    """Return as many pixels of a body as its emblem has, those that lie farthest from it: a mask (H, W)."""
    y, x = np.nonzero(body & ~emblem)
    centre = np.argwhere(emblem).mean(axis=0)
    far = np.argsort(-np.hypot(y - centre[0], x - centre[1]))[: emblem.sum()]
    patch = np.zeros_like(emblem)
    patch[y[far], x[far]] = True
    return patch


@pytest.mark.parametrize("method", ["LayerCAM", "FusedLayerCAM"])
def test_the_table_says_that_all_evidence_lies_inside_the_box(model, scenes, method):
    for row in rows_of(model, scenes, method=method):
        assert row["peak_in_box"]
        assert row["enrichment"] > 2
        assert row["energy_in_box"] > 0.6
    by_chance = rows_of(model, scenes, method="RandomCAM")
    assert np.mean([row["peak_in_box"] for row in by_chance]) < 0.5
    assert np.median([row["enrichment"] for row in by_chance]) < 2


def test_what_is_left_without_the_emblem_is_far_less_than_without_another_part_of_the_body(model, scenes):
    explainer, left = Explainer(model, imgsz=IMGSZ), []
    for scene in scenes:
        found = list(matched(explainer(scene.image_rgb), scene))
        with explainer.detector.borrowed() as detector:
            seen = detector.see(scene.image_rgb, explainer.sight)
            image = seen.recording.image
            boxes = torch.tensor(np.array([entry.detection.xyxy for entry, _ in found])).float()
            classes = torch.tensor([entry.detection.class_index for entry, _ in found])
            target = similarity_target(seen.recording.predictions, boxes, classes, ("class",))
            whole = target.of(detector.predict(image))[0]
            for index, (_, number) in enumerate(found):
                emblem = scene.emblems[number]
                masks = [emblem, patch_far_from_emblem(scene.bodies[number], emblem)]
                images = torch.cat([image * torch.from_numpy(~mask) for mask in masks])
                left.append((target.of(detector.predict(images))[:, index] / whole[index]).tolist())
    without_emblem, without_patch = np.mean(left, axis=0)
    assert without_emblem < without_patch - 0.2
    assert without_patch > 0.9


def test_the_class_is_explained_by_the_emblem_far_better_than_by_chance(model, scenes, of_class, emblem_share):
    by_chance = figures(model, scenes, method="RandomCAM")
    assert of_class.energy_on_emblem > 3 * max(by_chance.energy_on_emblem, emblem_share)
    assert of_class.peak_on_emblem > max(by_chance.peak_on_emblem, emblem_share) + 0.5


def test_the_layer_that_is_picked_by_itself_shows_the_emblem_too(model, scenes, emblem_share):
    by_chance = figures(model, scenes, method="RandomCAM", layer=13)
    picked = figures(model, scenes, layer="auto")
    assert picked.energy_on_emblem > 3 * by_chance.energy_on_emblem
    assert picked.energy_on_emblem > 1.2 * emblem_share


def test_two_layers_that_agree_show_the_emblem_for_the_class_and_the_body_for_the_confidence(model, scenes, of_class):
    ways = {
        item: figures(model, scenes, layer=(4, 6), fuse="product", backprop_array=item)
        for item in ("class", "confidence")
    }
    assert ways["class"].energy_on_emblem > max(0.5, 1.5 * of_class.energy_on_emblem)
    assert ways["class"].peak_on_emblem > 0.9
    assert ways["confidence"].energy_on_rest_of_body > 3 * ways["confidence"].energy_on_emblem


def test_detail_puts_more_than_half_of_the_heat_for_the_class_on_the_emblem_and_says_less_of_another_class(
    model, scenes
):
    settings = {"method": "DetailCAM", "layer": "auto", "backprop_array": "class"}
    own, other = (figures(model, scenes, classes_further=further, **settings) for further in (0, 1))
    coarse = figures(model, scenes, **settings | {"method": "FusedLayerCAM"})
    assert own.energy_on_emblem > max(0.5, 1.3 * coarse.energy_on_emblem, 1.5 * other.energy_on_emblem)
    assert own.peak_on_emblem > 0.85


@pytest.mark.parametrize("item", ["x_center", "width"])
def test_the_box_is_explained_by_the_body_more_than_the_class_is(model, scenes, of_class, item):
    of_item = figures(model, scenes, backprop_array=item)
    assert of_item.energy_on_rest_of_body > of_class.energy_on_rest_of_body + 0.05
    assert of_item.energy_on_rest_of_body > 5 * of_item.energy_on_emblem
    assert of_item.energy_on_emblem < 0.3 * of_class.energy_on_emblem


@pytest.mark.parametrize("further", [1, 2, 3])
def test_the_map_of_a_wrong_class_shows_the_emblem_less(model, scenes, of_class, further):
    assert figures(model, scenes, classes_further=further).energy_on_emblem < 0.4 * of_class.energy_on_emblem


def test_the_maps_of_a_model_with_shuffled_weights_show_no_emblems(model, scenes, of_class):
    by_noise = figures(shuffled(model), scenes)
    assert by_noise.energy_on_emblem < 0.4 * of_class.energy_on_emblem
    assert by_noise.peak_on_emblem < of_class.peak_on_emblem - 0.4
