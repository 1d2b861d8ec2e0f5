"""Hits, confusions, precision and recall, on cases worked out by hand."""

import numpy as np
import pytest
import torch

from utils.validating.metrics import ConfusionMatrix, ap_per_class, fitness, true_positives

SQUARE = [0.0, 0, 10, 10]


FAR = [50.0, 50, 60, 60]


def detection(box, confidence, category):
    return [*box, confidence, category]


def label(category, box):
    return [category, *box]


def test_a_perfect_detector_reaches_one():
    tp, fp, p, r, f1, ap, classes = ap_per_class(
        np.ones((2, 10), bool), np.array([0.9, 0.8]), np.array([0, 1]), np.array([0, 1])
    )
    assert classes.tolist() == [0, 1]
    assert (tp.tolist(), fp.tolist()) == ([1, 1], [0, 0])
    assert p == pytest.approx(1)
    assert r == pytest.approx(1)
    assert f1 == pytest.approx(1)
    assert ap == pytest.approx(0.995, abs=1e-6)


def test_a_class_without_detections_has_no_precision():
    _, _, p, r, _, ap, _ = ap_per_class(np.ones((1, 10), bool), np.array([0.9]), np.array([0]), np.array([0, 1]))
    assert p[1] == r[1] == ap[1].max() == 0


def test_detections_of_classes_without_labels_do_not_count():
    *_, classes = ap_per_class(np.zeros((1, 10), bool), np.array([0.9]), np.array([7]), np.array([0]))
    assert classes.tolist() == [0]


def test_a_set_without_labels_gives_no_class():
    *_, ap, classes = ap_per_class(np.zeros((1, 10), bool), np.array([0.9]), np.array([0]), np.array([]))
    assert len(classes) == len(ap) == 0


def test_fitness_is_mostly_map50_95():
    assert fitness(np.array([[1.0, 1.0, 0.5, 0.2]]))[0] == pytest.approx(0.05 + 0.18)


def test_a_hit_needs_the_class_and_the_overlap():
    found = torch.tensor([detection(SQUARE, 0.9, 1), detection(SQUARE, 0.8, 0), detection(FAR, 0.7, 0)])
    hits = true_positives(found, torch.tensor([label(0, SQUARE)]))
    assert hits.sum(1).tolist() == [0, 10, 0]


def test_a_box_of_iou_eight_tenths_hits_at_the_low_thresholds():
    found = torch.tensor([detection([0.0, 0, 10, 8], 0.9, 0)])
    hits = true_positives(found, torch.tensor([label(0, SQUARE)]), torch.tensor([0.5, 0.75, 0.85]))
    assert hits[0].tolist() == [True, True, False]


def test_the_most_confident_of_two_takes_the_object():
    found = torch.tensor([detection([0.0, 0, 10, 9], 0.9, 0), detection(SQUARE, 0.8, 0)])
    hits = true_positives(found, torch.tensor([label(0, SQUARE)]), torch.tensor([0.5]))
    assert hits[:, 0].tolist() == [True, False]


def test_without_labels_nothing_hits():
    assert not true_positives(torch.tensor([detection(SQUARE, 0.9, 0)]), torch.zeros(0, 5)).any()


def test_confusions_are_counted_with_background():
    matrix = ConfusionMatrix(nc=2)
    found = torch.tensor([detection(SQUARE, 0.9, 1), detection([90.0, 90, 99, 99], 0.9, 0), detection(SQUARE, 0.1, 0)])
    matrix.process_batch(found, torch.tensor([label(0, SQUARE), label(1, FAR)]))
    # 0 taken for 1, 1 not found, background taken for 0; the faint detection does not count
    assert matrix.matrix.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    right, wrong = matrix.tp_fp()
    assert (right.tolist(), wrong.tolist()) == ([0, 0], [1, 1])


def test_an_image_without_detections_misses_all_labels():
    matrix = ConfusionMatrix(nc=2)
    matrix.process_batch(None, torch.tensor([0.0, 1.0, 1.0]))
    assert matrix.matrix[2].tolist() == [1, 2, 0]


def test_pictures_of_curves_and_confusions_are_saved(tmp_path):
    ap_per_class(
        np.ones((2, 10), bool),
        np.array([0.9, 0.8]),
        np.array([0, 1]),
        np.array([0, 1]),
        plot=True,
        save_dir=tmp_path,
        names={0: "cat", 1: "dog"},
    )
    ConfusionMatrix(nc=2).plot(save_dir=tmp_path, names=["cat", "dog"])
    saved = {path.name for path in tmp_path.iterdir()}
    assert saved == {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"}
