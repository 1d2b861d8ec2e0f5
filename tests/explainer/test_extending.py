"""The page that shows how to add a method and a detector: its code runs as it stands, and what it adds is measured, too."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from evidence_demo import DEMO, WEIGHTS, demo_scenes

from explainer.evaluation.evaluator import Evaluator
from explainer.evaluation.options import Evaluation
from explainer.explain import Explainer
from explainer.maps.trivial import TRIVIAL
from explainer.methods.catalogue import METHODS

PAGE = Path(__file__).parents[2] / "docs/extending.md"


@pytest.fixture
def run_page(tmp_path, monkeypatch):
    """Return a function that runs one block of the page's code, with the demo's model as best.pt, and gives its names."""
    shutil.copy(WEIGHTS, tmp_path / "best.pt")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

    def run(number: int) -> dict:
        names = {"image_rgb": demo_scenes()[0].image_rgb}
        exec(blocks[number], names)
        return names

    yield run
    METHODS.pop("SquareCAM", None)


def test_the_method_of_the_page_explains(run_page):
    explanation = run_page(0)["explanation"]
    assert explanation.method == "SquareCAM"
    assert len(explanation.detections) == len(np.loadtxt(DEMO / "labels/00000.txt", ndmin=2))
    assert all(row["peak_in_box"] for row in explanation.rows())


def test_the_detector_of_the_page_explains(run_page):
    names = run_page(1)
    assert names["explanation"].heatmap.max() == 1
    assert list(names["explanation"].pandas().name) == ["bee"] * 3


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_works_on_the_detector_of_the_page(run_page, method):
    names = run_page(1)
    detector = names["explainer"].detector
    explainer = Explainer(detector, method=method, conf_thres=0.5, max_det=2, imgsz=64, masks=20)
    explanation = explainer(names["image_rgb"])
    assert len(explanation.detections) == 2
    # Where the second class speaks for the first one no less, nothing is left to show, and that is said.
    assert explanation.heatmap.any() or all(entry.note for entry in explanation.detections)


def test_the_detector_of_the_page_is_evaluated(run_page):
    names = run_page(1)
    methods = ["GradCAM", "LayerCAM", "AblationCAM", "EigenCAM", "DRISE"]
    options = Evaluation(method=methods, masks=20, conf_thres=0.5, imgsz=64, max_det_per_image=2, steps=4, sanity=True)
    evaluator = Evaluator(names["explainer"].detector, options)
    with evaluator.meter:
        tables = list(evaluator(names["image_rgb"]))
    assert [rows[0]["method"] for rows in tables] == ["RandomCAM", *TRIVIAL, *methods]
    assert all(row["deletion"] >= 0 and np.isfinite(row["overall"]) for rows in tables for row in rows)
    by_method = {rows[0]["method"]: rows[0] for rows in tables}
    # One pass for the gradient, and one for each of the eight channels that are taken away.
    assert by_method["GradCAM"]["passes_per_image"] == pytest.approx(1)
    assert by_method["AblationCAM"]["passes_per_image"] == pytest.approx(9)
    assert by_method["DRISE"]["passes_per_image"] == pytest.approx(21)
