"""What a model says of an image, as values: predictions by name, the items of them, detections, a recording."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from explainer.detectors.predictions import (
    ITEM_ALIASES,
    ITEMS,
    Detection,
    Kept,
    Predictions,
    Recording,
    Target,
    canonical_item,
    clarity,
)
from explainer.errors import UsageError
from explainer.maps.heatmaps import Letterbox

# x, y, w, h, objectness, p_0, p_1
RAW = torch.tensor([[10.0, 20, 30, 40, 0.9, 0.8, 0.1], [11, 21, 31, 41, 0.5, 0.25, 0.75]])
FACTORS = {"class": [0.1], "confidence": [0.9], "class_confidence": [0.9, 0.1], "x_center": [10], "y_center": [20]}
FACTORS |= {"width": [30], "height": [40], "mask": [2.5]}


def without_objectness(raw=RAW):
    return Predictions(raw[..., :4], None, raw[..., 5:])


def with_mask(raw=RAW):
    """Return predictions whose masks are clear to a degree of 2.5."""
    return replace(Predictions.of_columns(raw), mask=torch.full_like(raw[..., 0], 2.5))


@pytest.mark.parametrize(("alias", "name"), [("x_c", "x_center"), ("y_c", "y_center"), ("w", "width"), ("h", "height")])
def test_short_item_names_are_accepted(alias, name):
    assert canonical_item(alias) == ITEM_ALIASES[alias] == name


def test_an_unknown_item_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown item 'size'; known: class, confidence, .*x_c"):
        canonical_item("size")


def test_raw_rows_are_read_by_name_and_come_back_as_they_were():
    predictions = Predictions.of_columns(RAW)
    assert predictions.boxes_xywh.tolist() == [[10, 20, 30, 40], [11, 21, 31, 41]]
    assert predictions.objectness.tolist() == pytest.approx([0.9, 0.5])
    assert predictions.probabilities.shape == (2, 2)
    assert torch.equal(predictions.columns(), RAW)


@pytest.mark.parametrize("make", [Predictions.of_columns, without_objectness, with_mask])
def test_rows_and_images_are_chosen_in_every_part(make):
    batch = make(RAW.repeat(3, 1, 1))
    rows = torch.tensor([[1, 0, 0]])
    chosen = batch.at(rows)
    assert chosen.boxes_xywh.shape == (3, 1, 3, 4)
    assert chosen.probabilities.shape == (3, 1, 3, 2)
    for name in ("objectness", "mask"):
        assert (getattr(chosen, name) is None) == (getattr(batch, name) is None)
        assert getattr(chosen, name) is None or getattr(chosen, name).shape == (3, 1, 3)
    assert chosen.probabilities[0, 0, 0].tolist() == [0.25, 0.75]
    assert batch[0].boxes_xywh.shape == (2, 4)
    assert batch[0][None].certainty.shape == (1, 2)
    assert len(list(batch)) == 3
    assert chosen.at_detections(slice(0, 1)).probabilities.shape == (3, 1, 3, 2)


@pytest.mark.parametrize("make", [Predictions.of_columns, without_objectness, with_mask])
def test_several_are_put_together_detection_by_detection(make):
    rows = torch.tensor([[0, 1], [1, 0]])
    parts = [make(RAW).at(rows), make(RAW * 2).at(rows)]
    whole = Predictions.interleaved(parts)
    for name in ("objectness", "mask"):
        assert (getattr(whole, name) is None) == (getattr(parts[0], name) is None)
    assert whole.boxes_xywh[..., 0].tolist() == [[10, 11], [20, 22], [11, 10], [22, 20]]


def test_the_certainty_is_the_objectness_or_else_the_probability_of_the_best_class():
    assert Predictions.of_columns(RAW).certainty.tolist() == pytest.approx([0.9, 0.5])
    assert without_objectness().certainty.tolist() == pytest.approx([0.8, 0.75])


def test_the_confidence_is_the_product_of_objectness_and_class():
    assert Predictions.of_columns(RAW).confidences()[0].tolist() == pytest.approx([0.72, 0.09])
    assert torch.equal(without_objectness().confidences(), RAW[:, 5:])


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_is_the_product_of_its_factors(item):
    read = with_mask(RAW[None, :1]).factors((item,), torch.tensor([1]))
    assert read.shape == (1, 1, len(FACTORS[item]))
    assert read.flatten().tolist() == pytest.approx(FACTORS[item])


def test_a_factor_that_two_items_share_comes_twice():
    read = Predictions.of_columns(RAW[None, :1]).factors(("class", "class_confidence"), torch.tensor([1]))
    assert read.flatten().tolist() == pytest.approx([0.1, 0.9, 0.1])


@pytest.mark.parametrize("items", [(item,) for item in ITEMS] + [("class", "class_confidence", "width")], ids="+".join)
def test_slopes_are_those_of_automatic_differentiation(items):
    raw = RAW.repeat(2, 1, 1).clone().requires_grad_()
    mask, classes = torch.full((2, 2), 2.5, requires_grad=True), torch.tensor([1, 0])
    read = replace(Predictions.of_columns(raw), mask=mask).factors(items, classes)
    weights = torch.rand(read.shape, generator=torch.Generator().manual_seed(0))
    wanted = torch.autograd.grad((read * weights).sum(), (raw, mask), materialize_grads=True)
    found = with_mask(raw.detach()).slopes(items, classes, weights)
    torch.testing.assert_close((found.columns(), found.mask), wanted)


def test_the_clarity_of_a_mask_is_the_exponential_of_its_mean_logit_and_finite():
    found = clarity(torch.tensor([0.5, 0.5, 200.0]), torch.tensor([1, 0, 1]))
    assert found.log().tolist() == pytest.approx([0.5, -np.inf, 80])


def test_predictions_without_masks_have_no_such_factor():
    with pytest.raises(UsageError, match="this model predicts no masks; leave --backprop-array mask out"):
        Predictions.of_columns(RAW[None]).factors(("class", "mask"), torch.tensor([0]))


def test_what_says_no_objectness_apart_from_the_class_has_the_class_as_its_confidence():
    classes = torch.tensor([0])
    alone = without_objectness(RAW[None]).factors(("class_confidence",), classes)
    assert alone.flatten().tolist() == pytest.approx([0.8, 0.25])
    with pytest.raises(
        UsageError, match=r"does not say how sure .*leave --backprop-array confidence out, or try class_"
    ):
        without_objectness(RAW[None]).factors(("class", "confidence"), classes)


def test_a_detached_value_has_no_graph():
    predictions = Predictions.of_columns(RAW.clone().requires_grad_() * 1)
    assert predictions.objectness.requires_grad
    detached = predictions.detach()
    assert not any(part.requires_grad for part in (detached.boxes_xywh, detached.objectness, detached.probabilities))


def test_a_target_scores_the_rows_that_count_or_all():
    predictions = Predictions.of_columns(RAW)
    assert Target(torch.tensor([[1]]), lambda some: some.objectness.sum(-1)).of(predictions).tolist() == [0.5]
    assert Target(None, lambda some: some.objectness.sum(-1)).of(predictions).item() == pytest.approx(1.4)


def test_a_row_belongs_to_the_level_whose_predictions_it_lies_among():
    recording = Recording(torch.zeros(1, 3, 8, 8), Predictions.of_columns(RAW), {}, (768, 960, 961))
    assert [recording.level_of(row) for row in (0, 767, 768, 959, 960)] == [0, 0, 1, 1, 2]
    assert recording.rows_of_levels() == [slice(0, 768), slice(768, 960), slice(960, 961)]


def test_what_is_kept_becomes_detections_in_pixels_of_the_image():
    recording = Recording(torch.zeros(1, 3, 32, 32), Predictions.of_columns(RAW), {}, (1, 2))
    kept = Kept(torch.tensor([1]), torch.tensor([0.5]), torch.tensor([1]), torch.tensor([[4.0, 8, 16, 40]]))
    twice_as_large = Letterbox((64, 64), (32, 32), (32, 32), 0, 0)
    (found,) = kept.detections(recording, twice_as_large, {0: "ant", 1: "bee"}, (4, None))
    # Cut off at the edge of the image; the box of the input stays as it was.
    assert found.xyxy.tolist() == [8, 16, 32, 64]
    assert (found.confidence, found.class_index, found.name) == (0.5, 1, "bee")
    assert (found.stride, found.level, found.row, found.outcome) == (None, 1, 1, "")
    assert kept.boxes_xyxy.tolist() == [[4, 8, 16, 40]]


@pytest.mark.parametrize(
    ("outcome", "found"),
    [("", True), ("hit", True), ("false alarm", True), ("miss", False), ("given", False)],
)
def test_a_miss_and_a_given_box_were_not_found(outcome, found):
    entry = Detection(np.float32([1, 2, 3, 4]), 0.5, 0, "ant", 8, 0, 0, outcome)
    assert entry.was_found == found
    assert entry.columns() == {
        "class": 0, "name": "ant", "confidence": 0.5, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "stride": 8,
    }  # fmt: skip
