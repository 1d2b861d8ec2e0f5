"""Answers made by hand, and the pages that show them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from explainer.files.results import Page
from explainer.pictures.report import Report

FACTS = {"command": ["python explainer/explainer.py --report"]}


def ramp(height: int, width: int, sign: bool = False) -> np.ndarray:
    """Return a map that rises from the left to the right, (h, w) float32: 0..1, with a sign -1..1."""
    values = np.linspace(-1 if sign else 0, 1, width, dtype=np.float32)
    return np.repeat(values[None], height, axis=0)


def entry_of(name: str, xyxy, confidence: float, shown: np.ndarray, outcome: str = "", sign: bool = False):
    """Return a detection with a map of its own, which is the same at every size."""
    detection = SimpleNamespace(xyxy=np.float32(xyxy), name=name, confidence=confidence, outcome=outcome)
    detection.was_found = outcome not in ("miss", "given", "below threshold")
    return SimpleNamespace(detection=detection, has_sign=sign, shown_at=lambda size: shown)


def row_of(entry, method: str = "GradCAM", **values) -> dict[str, object]:
    """Return what the table says of a detection."""
    found = entry.detection
    common = {"name": found.name, "confidence": found.confidence, "outcome": found.outcome, "method": method}
    figures = {"energy_in_box": 0.5, "enrichment": 2.0, "peak_in_box": True, "stride": 8, "layer": "model.17"}
    return common | figures | values


def answer_of(image_rgb: np.ndarray, shown: np.ndarray, entries, method: str = "GradCAM", notes=(), sign: bool = False):
    """Return an answer of one method."""
    answer = SimpleNamespace(image_rgb=image_rgb, shown=shown, has_sign=sign, method=method, notes=notes, model="")
    answer.detections, answer.found = tuple(entries), {"": [entry.detection for entry in entries]}
    answer.explanations = (answer,)
    return answer


def side_by_side(*answers):
    """Return a comparison of answers of one model."""
    by_title = {answer.method: answer for answer in answers}
    first = answers[0]
    return SimpleNamespace(
        image_rgb=first.image_rgb, notes=(), found=first.found, explanations=answers, by_model=(by_title,), layers=1
    )


def page_with(folder: Path, answers, **warnings) -> Path:
    """Write a page that shows (path, answer, rows) and return its path."""
    with Page(folder) as page:
        report = Report(page, title="Explanations", about="GradCAM", facts=FACTS)
        for path, answer, rows in answers:
            report.add(SimpleNamespace(path=Path(path), number=0), answer, rows)
        return report.write(**warnings)[0]
