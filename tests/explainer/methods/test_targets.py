"""What is explained, as scores worked out by hand: detections, leads over similar classes, sums, similarity."""

import math

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import fixed_score, plain_iou, plain_similarity
from scenes import confident_detector, picture
from torch import nn
from torch.nn import functional

from explainer.detectors.predictions import Predictions
from explainer.explain import Explainer
from explainer.methods.targets import (
    BoxesTarget,
    Matches,
    boxes_target,
    classes_target,
    detections_target,
    finer_scores,
    iou,
    items_target,
    log_scores,
    log_scores_with_slopes,
    match,
    similarities,
    similarity_target,
    summed_probability,
    values,
)

PICTURE = picture(64, 96)
IMAGE = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
# x, y, w, h, objectness, p_0, p_1
ROWS = torch.tensor(
    [
        [10, 10, 10, 10, 0.9, 0.8, 0.1],
        [10, 10, 10, 5, 0.8, 0.6, 0.2],
        [10, 10, 10, 10, 0.7, 0.3, 0.9],
        [90, 90, 10, 10, 0.6, 0.9, 0.1],
    ]
)
PREDICTIONS = Predictions.of_columns(ROWS)
BOX = torch.tensor([[5.0, 5.0, 15.0, 15.0]])


def weights_of(first: float, second: float) -> tuple[float, float]:
    total = math.exp(first) + math.exp(second)
    return math.exp(first) / total, math.exp(second) / total


def test_predictions_of_the_class_count_by_the_softmax_of_their_overlap():
    matches = match(PREDICTIONS.at(slice(3)), BOX, torch.tensor([0]))
    by_row = dict(zip(matches.rows[0].tolist(), matches.weights[0].tolist(), strict=True))
    expected = weights_of(1.0, 0.5)
    assert by_row[0] == pytest.approx(expected[0])
    assert by_row[1] == pytest.approx(expected[1])
    assert by_row[2] == 0


def test_without_a_prediction_of_the_class_the_one_with_the_highest_overlap_counts_alone():
    matches = match(PREDICTIONS.at([1, 3]), BOX, torch.tensor([1]))
    assert matches.rows[0, 0] == 0
    assert matches.weights[0].tolist() == [1, 0]


def test_a_prediction_that_is_known_to_be_a_boxes_own_counts_alone():
    boxes, classes = BOX.expand(2, 4), torch.tensor([0, 0])
    matches = match(PREDICTIONS, boxes, classes, torch.tensor([1, 3]))
    assert (matches.rows.tolist(), matches.weights.tolist()) == ([[1], [3]], [[1.0], [1.0]])
    together = match(PREDICTIONS, boxes, classes, torch.tensor([-1, 3]))
    around = match(PREDICTIONS, BOX, classes[:1])
    torch.testing.assert_close((together.rows[0], together.weights[0]), (around.rows[0], around.weights[0]))
    assert (together.heaviest[1].item(), together.weights[1].tolist()) == (3, [1.0, 0.0, 0.0, 0.0])


def test_at_most_ten_predictions_are_read():
    matches = match(PREDICTIONS.at([0] * 25), BOX, torch.tensor([0]))
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
    assert values(PREDICTIONS.at(matches.rows), matches, (item,)).prod().item() == pytest.approx(expected)


def test_the_score_is_the_sum_of_the_logarithms_of_the_items():
    matches = Matches(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
    expected = math.log(0.7) + math.log(7.5)
    assert log_scores(PREDICTIONS.at(matches.rows), matches, ("class", "height")).item() == pytest.approx(expected)


def test_a_probability_of_zero_gives_a_finite_score():
    rows = ROWS.clone()
    rows[0, 5] = 0
    matches = Matches(torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([0]))
    chosen = Predictions.of_columns(rows).at(matches.rows)
    assert torch.isfinite(log_scores(chosen, matches, ("class",))).all()
    assert not log_scores_with_slopes(chosen, matches, ("class",))[1].columns().any()


def test_the_older_score_is_the_sum_of_all_probabilities_of_the_classes():
    assert summed_probability(PREDICTIONS, [0]).item() == pytest.approx(0.8 + 0.6 + 0.3 + 0.9)
    assert summed_probability(PREDICTIONS, [0, 1]).item() == pytest.approx(2.6 + 1.3)


def test_classes_are_summed_group_by_group_and_then_together_scale_by_scale():
    target = classes_target([[0], [1]], [[slice(0, 1)], [slice(1, 3), slice(3, 4)]])
    assert target.rows is None
    assert target.of(PREDICTIONS).tolist() == pytest.approx([2.6, 1.3, 0.9, 3.0])
    assert target.of(PREDICTIONS[None]).shape == (1, 4)


def test_the_heaviest_prediction_of_a_detection_is_the_one_with_the_most_weight():
    matches = Matches(torch.tensor([[3, 1], [0, 2]]), torch.tensor([[0.2, 0.8], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert matches.heaviest.tolist() == [1, 0]


def test_overlaps_are_those_of_plain_boxes_and_none_where_both_are_empty():
    boxes = torch.tensor([[5.0, 5, 15, 15], [0, 0, 90, 90], [3, 3, 3, 3]])
    found = iou(boxes, torch.cat((ROWS[:, :4], torch.tensor([[3.0, 3, 0, 0]]))))
    for box, row in zip(boxes[:2].tolist(), found[:2, :4].tolist(), strict=True):
        expected = [plain_iou(box, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)) for x, y, w, h, *_ in ROWS.tolist()]
        assert row == pytest.approx(expected)
    assert found[2].tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("items", [("class",), ("class_confidence", "class"), ("width", "x_center")], ids="+".join)
@pytest.mark.parametrize("make", [detections_target, boxes_target, items_target])
def test_slopes_are_those_of_automatic_differentiation(make, items):
    boxes, classes = torch.tensor([[5.0, 5, 15, 15], [85, 85, 95, 95]]), torch.tensor([0, 1])
    target = make(PREDICTIONS, boxes, classes, items)
    rows = ROWS[target.rows].clone().requires_grad_()
    scores = target.score(Predictions.of_columns(rows))
    scores.sum().backward()
    again, slopes = target.with_slopes(PREDICTIONS.at(target.rows))
    torch.testing.assert_close(again, scores.detach())
    torch.testing.assert_close(slopes.columns(), rows.grad)


def test_items_are_scored_each_by_itself_detection_by_detection():
    boxes, classes = torch.tensor([[5.0, 5, 15, 15], [85, 85, 95, 95]]), torch.tensor([0, 1])
    together = items_target(PREDICTIONS, boxes, classes, ("class", "width"))
    alone = [detections_target(PREDICTIONS, boxes, classes, (item,)).of(PREDICTIONS) for item in ("class", "width")]
    assert together.items == 2
    torch.testing.assert_close(together.of(PREDICTIONS), torch.stack(alone, dim=1).flatten())


# What sets a class apart


class ClassifierOfOneBox(nn.Module):
    """A detector that returns the logit of each class for one of its boxes, (1, classes)."""

    def __init__(self, detector, found):
        super().__init__()
        self.detector, self.found = detector, found

    def forward(self, image):
        raw = self.detector(image)[0][0]
        score, classes = fixed_score(self.found, raw.detach()), range(raw.shape[1] - 5)
        own = self.found.class_index
        # The score reads the column of the found class: let every class stand there in turn.
        swapped = [torch.cat((raw[:, : 5 + own], raw[:, 5 + c, None], raw[:, 6 + own :]), dim=1) for c in classes]
        return torch.stack([score(each).exp() for each in swapped]).logit()[None]


def plain_finer_target(index):
    """Return the score of a class for logits (classes,), written out plainly."""

    def target(logits):
        nearest = sorted(range(len(logits)), key=lambda i: abs(logits[i] - logits[index]).item())
        others = [i for i in nearest if i != index][:3]
        probabilities = logits.sigmoid()
        return sum(probabilities[i] * (logits[index] - logits[i]) for i in others) / sum(
            probabilities[i] for i in others
        )

    return target


@pytest.mark.parametrize("layer", [4, 7])
def test_the_map_is_grad_cam_of_the_lead_over_the_nearest_classes(layer):
    explanation = Explainer(confident_detector(), method="FinerCAM", layer=layer, **SETTINGS)(PICTURE)
    compared = 0
    for entry in explanation.detections[:6]:
        model = ClassifierOfOneBox(confident_detector(), entry.detection)
        cam = pytorch_grad_cam.GradCAM(model, [model.detector.model[layer]])
        targets = [plain_finer_target(entry.detection.class_index)]
        expected = cam(IMAGE, targets)[0] if entry.cams[0].any() else 0
        np.testing.assert_allclose(entry.heatmap, expected, atol=1e-3)
        compared += entry.heatmap.any()
    assert compared


def test_the_score_is_the_weighted_mean_lead_over_the_three_nearest_classes():
    probabilities = torch.tensor([0.8, 0.5, 0.2, 0.1, 0.001])
    predictions = Predictions.of_columns(torch.cat((torch.zeros(5), probabilities))[None, None])
    matches = Matches(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1), torch.tensor([0]))
    expected = (0.5 * np.log(4) + 0.2 * np.log(16) + 0.1 * np.log(36)) / 0.8
    assert finer_scores(predictions, matches).item() == pytest.approx(expected)


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
        similarities(Predictions.of_columns(raw), boxes, functional.normalize(probabilities, dim=1)),
        expected,
        rtol=1e-4,
    )


def test_an_undisturbed_image_leaves_a_detection_whole():
    raw = confident_detector()(IMAGE)[0][0].detach()
    explanation = Explainer(confident_detector(), method="DRISE", max_det=5, masks=2, **SETTINGS)(PICTURE)
    for entry in explanation.detections:
        assert entry.score >= float(raw[entry.detection.row, 4]) - 1e-6


def test_a_box_that_is_not_predicted_stands_for_its_class():
    raw = torch.tensor([[10, 10, 4, 4, 0.9, 0.8, 0.6], [50, 50, 4, 4, 0.5, 0.0, 1.0]])
    box = torch.tensor([[48, 48, 52, 52]]).float()
    predictions, other = (Predictions.of_columns(rows) for rows in (raw, torch.tensor([[50, 50, 4, 4, 0.5, 0.6, 0.8]])))
    asked = similarity_target(predictions, box, torch.tensor([0]), ("class",))
    assert isinstance(asked, BoxesTarget)
    assert asked.of(predictions[None]).item() == 0
    assert asked.of(other[None]).item() == pytest.approx(0.5 * 0.6)


def test_the_class_says_how_sure_a_model_is_that_says_no_objectness():
    box = torch.tensor([[48, 48, 52, 52]]).float()
    alone = Predictions(torch.tensor([[50.0, 50, 4, 4]]), None, torch.tensor([[0.6, 0.8]]))
    asked = similarity_target(alone, box, torch.tensor([1]), ("class",))
    assert asked.of(alone[None]).item() == pytest.approx(0.8)
