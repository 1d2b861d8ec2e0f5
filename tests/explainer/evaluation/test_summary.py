"""From rows for each detection to means, intervals and a table to read."""

import numpy as np
import pandas as pd
import pytest

from explainer.evaluation.summary import ALL_DETECTIONS, FIGURES, markdown, splits, strongest_baseline, summarise


def table_of(*contenders):
    """Return rows of (method, layer, overall of two detections in each of two images)."""
    common = dict.fromkeys(FIGURES, np.nan) | {"x1": 0, "y1": 0, "class": 0, "name": "ant", "deletion": 0.1}
    return pd.DataFrame(
        common | {"image": image, "row": row, "x2": side, "y2": side, "confidence": confidence} | who
        for method, layer, values in contenders
        for who in [{"method": method, "layer": layer}]
        for value, (image, row, side, confidence) in zip(values, DETECTIONS, strict=True)
        for who in [who | {"overall": value, "milliseconds": 2.0}]
    )


# Image, row, side of the box in pixels, confidence.
DETECTIONS = [("a", 1, 20, 0.3), ("a", 2, 50, 0.5), ("b", 1, 100, 0.7)]


BASELINES = [("RandomCAM", "auto", [0.1, 0.1, 0.1]), ("GaussianBox", "", [0.5, 0.5, 0.5])]


def test_the_summary_holds_means_and_says_who_loses_to_a_baseline():
    rows = table_of(*BASELINES, ("GradCAM", "auto", [0.6, 0.3, 0.3]), ("LayerCAM", "13", [0.6, 0.6, 0.9]))
    summary = summarise(rows, seed=0)
    whole = summary[summary.split == ALL_DETECTIONS]
    assert whole.method.tolist() == ["LayerCAM", "GaussianBox", "GradCAM", "RandomCAM"]
    assert whole.overall.tolist() == pytest.approx([0.7, 0.5, 0.4, 0.1])
    assert whole.loses_to.tolist() == ["", "", "GaussianBox", ""]
    assert strongest_baseline(summary) == ("GaussianBox", "")
    assert "road" not in summary.columns


def test_detections_are_split_by_the_areas_of_coco_and_by_thirds_of_confidence():
    parts = {name: sorted(some.row.tolist()) for name, some in splits(table_of(*BASELINES[:1]))}
    assert list(parts)[1:4] == ["small", "medium", "large"]
    assert [len(some) for some in parts.values()] == [3, 1, 1, 1, 1, 1, 1]
    assert list(parts)[4:] == ["confidence 0.30-0.43", "confidence 0.43-0.57", "confidence 0.57-0.70"]


def test_the_table_to_read_marks_baselines_and_losers():
    text = markdown(summarise(table_of(*BASELINES, ("GradCAM", "auto", [0.2, 0.2, 0.2])), seed=0), "About it.")
    assert "| GradCAM † | auto | 0.200 [0.200, 0.200] |" in text
    assert "| *GaussianBox* |  | 0.500 [0.500, 0.500] |" in text
    assert "| GradCAM † | auto | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 |" in text
    assert text.index("About it.") < text.index("GaussianBox")


def test_what_beats_some_baselines_and_loses_to_others_is_told_the_strongest_first():
    edges = ("BoxEdges", "", [0.8, 0.8, 0.8])
    summary = summarise(table_of(*BASELINES, edges, ("GradCAM", "auto", [0.6, 0.6, 0.6])), seed=0)
    whole = summary[summary.split == ALL_DETECTIONS].set_index("method")
    assert whole.loses_to["GradCAM"] == "BoxEdges"
    assert whole.loses_to["BoxEdges"] == whole.loses_to["GaussianBox"] == ""
    both = summarise(table_of(*BASELINES, edges, ("GradCAM", "auto", [0.2, 0.2, 0.2])), seed=0)
    assert both[both.method == "GradCAM"].loses_to.iloc[0] == "BoxEdges GaussianBox"
    assert strongest_baseline(both) == ("BoxEdges", "")
