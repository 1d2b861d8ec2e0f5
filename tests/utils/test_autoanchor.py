"""Anchors: kept where they fit, else found anew."""

import numpy as np
import pytest
import torch
from tiny_models import tiny_detector

from utils.autoanchor import check_anchors, kmean_anchors
from utils.base.logger import LOGGER
from utils.data.training_data import LoadImagesAndLabels


def test_anchors_that_fit_stay(squares):
    model, dataset = tiny_detector(), LoadImagesAndLabels(squares / "images", 64)
    before = model.model[-1].anchors.clone()
    check_anchors(dataset, model, imgsz=64)
    assert torch.equal(model.model[-1].anchors, before)


def test_anchors_that_fit_badly_are_replaced(squares):
    model = tiny_detector(anchors=[[200, 210, 250, 230], [300, 310, 400, 390]])
    dataset = LoadImagesAndLabels(squares / "images", 64)
    check_anchors(dataset, model, imgsz=64)
    head = model.model[-1]
    pixels = head.anchors * head.stride[:, None, None]
    assert 8 < pixels.min() < pixels.max() < 25


def test_new_anchors_go_from_small_to_large(squares):
    anchors = kmean_anchors(LoadImagesAndLabels(squares / "images", 64), n=4, img_size=64, gen=10)
    areas = anchors.prod(1)
    assert anchors.shape == (4, 2)
    assert (np.diff(areas) >= 0).all()


@pytest.mark.parametrize("side", ["0", "0.01"])
def test_anchors_stay_with_a_warning_where_all_objects_are_tiny_or_of_no_size(squares, side, monkeypatch):
    warnings = []
    monkeypatch.setattr(LOGGER, "warning", lambda text, *_: warnings.append(text))
    for path in (squares / "labels").glob("*.txt"):
        path.write_text(f"0 0.5 0.5 {side} {side}\n", encoding="utf-8")
    model, dataset = tiny_detector(), LoadImagesAndLabels(squares / "images", 64)
    before = model.model[-1].anchors.clone()
    check_anchors(dataset, model, imgsz=64)
    assert torch.equal(model.model[-1].anchors, before)
    assert "all 6 objects are smaller than 2 pixels" in warnings[-1]
    with pytest.raises(ValueError, match="no object has 2 pixels at image size 64"):
        kmean_anchors(dataset, n=4, img_size=64, gen=1)
