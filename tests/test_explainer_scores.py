"""The score of a detection, worked out by hand."""

import math

import pytest
import torch

from explainer.errors import UsageError
from explainer.items import canonical_item
from explainer.scores import Matches, log_score_slopes, log_scores, match, summed_class_probability, values

# x, y, w, h, objectness, p_0, p_1
RAW = torch.tensor(
    [
        [10, 10, 10, 10, 0.9, 0.8, 0.1],
        [10, 10, 10, 5, 0.8, 0.6, 0.2],
        [10, 10, 10, 10, 0.7, 0.3, 0.9],
        [90, 90, 10, 10, 0.6, 0.9, 0.1],
    ]
)
BOX = torch.tensor([[5.0, 5.0, 15.0, 15.0]])


def weights_of(first: float, second: float) -> tuple[float, float]:
    total = math.exp(first) + math.exp(second)
    return math.exp(first) / total, math.exp(second) / total


def test_predictions_of_the_class_count_by_the_softmax_of_their_overlap():
    matches = match(RAW[:3], BOX, torch.tensor([0]))
    by_row = dict(zip(matches.rows[0].tolist(), matches.weights[0].tolist(), strict=True))
    expected = weights_of(1.0, 0.5)
    assert by_row[0] == pytest.approx(expected[0])
    assert by_row[1] == pytest.approx(expected[1])
    assert by_row[2] == 0


def test_without_a_prediction_of_the_class_the_one_with_the_highest_overlap_counts_alone():
    matches = match(RAW[[1, 3]], BOX, torch.tensor([1]))
    assert matches.rows[0, 0] == 0
    assert matches.weights[0].tolist() == [1, 0]


def test_at_most_ten_predictions_are_read():
    matches = match(RAW[:1].repeat(25, 1), BOX, torch.tensor([0]))
    assert matches.rows.shape == (1, 10)
    assert matches.weights[0].tolist() == pytest.approx([0.1] * 10)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("class", 0.25 * 0.8 + 0.75 * 0.6),
        ("confidence", 0.25 * 0.9 + 0.75 * 0.8),
        ("class_confidence", (0.25 * 0.8 + 0.75 * 0.6) * (0.25 * 0.9 + 0.75 * 0.8)),
        ("x_center", 10),
        ("y_center", 10),
        ("width", 10),
        ("height", 0.25 * 10 + 0.75 * 5),
    ],
)
def test_the_value_of_an_item_is_the_weighted_sum_of_its_column(item, expected):
    matches = Matches(torch.tensor([[0, 1]]), torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
    assert values(RAW[matches.rows], matches, (item,)).prod().item() == pytest.approx(expected)


def test_the_score_is_the_sum_of_the_logarithms_of_the_items():
    matches = Matches(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
    expected = math.log(0.7) + math.log(7.5)
    assert log_scores(RAW[matches.rows], matches, ("class", "height")).item() == pytest.approx(expected)


def test_a_probability_of_zero_gives_a_finite_score():
    raw = RAW.clone()
    raw[0, 5] = 0
    matches = Matches(torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([0]))
    assert torch.isfinite(log_scores(raw[matches.rows], matches, ("class",))).all()
    assert not log_score_slopes(raw[matches.rows], matches, ("class",)).any()


def test_the_older_score_is_the_sum_of_all_probabilities_of_the_classes():
    assert summed_class_probability(RAW, [0]).item() == pytest.approx(0.8 + 0.6 + 0.3 + 0.9)
    assert summed_class_probability(RAW, [0, 1]).item() == pytest.approx(2.6 + 1.3)


@pytest.mark.parametrize(("alias", "name"), [("x_c", "x_center"), ("y_c", "y_center"), ("w", "width"), ("h", "height")])
def test_short_item_names_are_accepted(alias, name):
    assert canonical_item(alias) == name


def test_an_unknown_item_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown item 'size'; known: class, confidence, .*x_c"):
        canonical_item("size")
