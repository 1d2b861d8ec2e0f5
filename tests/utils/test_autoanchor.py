"""Anchors: kept where they fit, else found anew."""

import numpy as np
import torch
from tiny_models import tiny_detector

from utils.autoanchor import check_anchors, kmean_anchors
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
