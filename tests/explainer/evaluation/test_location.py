"""Where a heatmap lies: on the box, on the label, on other objects."""

import numpy as np
import pytest

from explainer.evaluation.evaluator import location_figures, locations_of
from explainer.explanation import Detection
from explainer.files.labels import Label


def detection(x1, y1, x2, y2, index=0):
    return Detection(np.float32([x1, y1, x2, y2]), 0.9, index, "ant", 8, 0, 5)


def test_a_detection_goes_with_the_label_of_its_class_that_it_overlaps_by_half():
    labels = (Label(0, (0, 0, 0.5, 0.5), ""), Label(1, (0, 0, 0.5, 0.5), ""), Label(0, (0.5, 0.5, 1, 1), ""))
    found = [detection(0, 0, 10, 10), detection(0, 0, 10, 4), detection(10, 10, 20, 20), detection(0, 0, 10, 10, 2)]
    first, half, third, other = locations_of(found, labels, (20, 20))
    assert first.label == (slice(0, 10), slice(0, 10))
    assert third.label == (slice(10, 20), slice(10, 20))
    assert len(first.others) == 2
    assert half.label is None
    assert other.label is None


def test_energy_is_counted_inside_the_outline_of_a_label_where_it_has_one():
    triangle = Label(0, (0, 0, 1, 1), "", (0, 0, 1, 0, 0, 1))
    (location,) = locations_of([detection(0, 0, 100, 100)], (triangle,), (100, 100))
    flat = np.ones((100, 100), np.float32)
    figures = location_figures(flat, location)
    assert figures["energy_in_label"] == pytest.approx(0.5, abs=0.02)
    assert figures["energy_in_box"] == pytest.approx(1)
    assert figures["on_others"] is None


def test_what_lies_on_another_object_counts_against_a_heatmap():
    labels = (Label(0, (0, 0, 0.5, 1), ""), Label(1, (0.5, 0, 1, 1), ""))
    (location,) = locations_of([detection(0, 0, 10, 20)], labels, (20, 20))
    heatmap = np.ones((20, 20), np.float32)
    heatmap[:, :10] = 3
    assert location_figures(heatmap, location)["on_others"] == pytest.approx(0.25)


def test_an_empty_heatmap_misses_everything():
    (location,) = locations_of([detection(0, 0, 10, 10)], (Label(0, (0, 0, 0.5, 0.5), ""),), (20, 20))
    figures = location_figures(np.zeros((20, 20), np.float32), location)
    missed = ("energy_in_box", "peak_in_box", "enrichment", "energy_in_label", "peak_in_label")
    assert [figures[name] for name in missed] == [0] * 5
    assert figures["blank"] == 1
    assert figures["compactness"] is figures["sparseness"] is figures["on_others"] is None
