"""The loss, against figures of the published implementation and numbers worked out by hand."""

import json

import cv2
import numpy as np
import pytest
import torch
from tiny_models import tiny_detector

from models.loading import attempt_load
from utils.augmentations import letterbox
from utils.loss import ComputeLoss, FocalLoss

HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "obj_pw": 1.0, "cls_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}


@pytest.fixture(scope="module")
def reference(assets):
    return json.loads((assets / "golden/yolov5n_loss.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def official(assets, reference):
    """The official model with the hyperparameters of the reference, its raw maps and the targets."""
    model = attempt_load(assets / "weights/yolov5n.pt", fuse=False)
    hyp = dict(reference["hyp"])
    hyp["box"], hyp["cls"], hyp["obj"] = hyp["box"] * 3 / 3, hyp["cls"] * 80 / 80, hyp["obj"] * 1.0
    model.hyp = hyp
    folder = assets / "coco128/images/train2017"
    pictures = [letterbox(cv2.imread(str(folder / name)), 640, auto=False)[0] for name in reference["images"]]
    batch = np.stack([picture[..., ::-1].transpose(2, 0, 1) for picture in pictures])
    model.model[-1].train()
    model.model[-1].training = True
    with torch.no_grad():
        maps = model(torch.from_numpy(batch).float() / 255)
    return model, maps, torch.tensor(reference["targets_img_cls_xywh"])


def tiny_loss(**hyp):
    model = tiny_detector()
    model.hyp = HYP | hyp
    return ComputeLoss(model)


def empty_maps(loss, side=32):
    return [torch.zeros(1, loss.na, side // n, side // n, 5 + loss.nc) for n in (4, 8)]


def test_the_loss_of_the_official_model_is_the_published_one(official, reference):
    model, maps, targets = official
    total, parts = ComputeLoss(model)(maps, targets)
    assert total.item() == pytest.approx(reference["loss_times_batch"], abs=1e-4)
    assert parts.tolist() == pytest.approx([reference[name] for name in ("lbox", "lobj", "lcls")], abs=1e-5)


def test_targets_go_to_the_published_cells(official, reference):
    model, maps, targets = official
    categories, boxes, cells, _ = ComputeLoss(model).build_targets(maps, targets)
    for i, wanted in enumerate(reference["build_targets"]):
        _, _, row, column = cells[i]
        assert len(categories[i]) == wanted["n"]
        found = [tensor.sum().item() for tensor in (categories[i], row, column, boxes[i])]
        assert found == pytest.approx([wanted[f"{name}_sum"] for name in ("tcls", "gj", "gi", "tbox")], rel=1e-5)


def test_without_targets_only_objectness_is_left():
    loss = tiny_loss()
    total, parts = loss(empty_maps(loss), torch.zeros(0, 6))
    assert parts[0] == parts[2] == 0
    # every logit is 0 and wants to be empty: ln 2 on both levels, weighted 4 and 1
    assert total.item() == pytest.approx(5 * np.log(2), rel=1e-5)


def test_a_target_is_shared_with_its_two_nearest_neighbours():
    loss = tiny_loss()
    # at stride 4 of 32 pixels: centre (2.25, 3.75) cells, 12 pixels wide and high
    target = torch.tensor([[0, 1, 2.25 / 8, 3.75 / 8, 12 / 32, 12 / 32]])
    _, _, cells, _ = loss.build_targets(empty_maps(loss), target)
    found = {(row, column) for row, column in zip(cells[0][2].tolist(), cells[0][3].tolist(), strict=True)}
    assert found == {(3, 2), (3, 1), (4, 2)}


def test_a_target_far_from_every_anchor_is_left_out():
    loss = tiny_loss()
    thin = torch.tensor([[0, 0, 0.5, 0.5, 1.0, 0.01]])
    assert [len(c) for c in loss.build_targets(empty_maps(loss), thin)[0]] == [0, 0]


def test_the_class_of_a_target_pulls_its_own_logit_up():
    loss = tiny_loss()
    maps = [each.requires_grad_() for each in empty_maps(loss)]
    total, _ = loss(maps, torch.tensor([[0, 2, 0.5, 0.5, 0.4, 0.4]]))
    total.backward()
    gradient = maps[0].grad[..., 5:].sum((0, 1, 2, 3))
    assert gradient[2] < 0 < gradient[0]


def test_label_smoothing_moves_both_ends():
    loss = tiny_loss(label_smoothing=0.1)
    assert (loss.cp, loss.cn) == (0.95, 0.05)


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits, wanted = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    plain = torch.nn.BCEWithLogitsLoss()
    assert FocalLoss(plain, gamma=0.0, alpha=0.5)(logits, wanted).item() == pytest.approx(plain(logits, wanted) / 2)
    assert FocalLoss(plain, gamma=1.5)(torch.tensor([8.0]), torch.tensor([1.0])) < 1e-6


def test_autobalance_keeps_the_weight_of_the_reference_level_at_one():
    model = tiny_detector()
    model.hyp = HYP
    loss = ComputeLoss(model, autobalance=True)
    loss(empty_maps(loss), torch.zeros(0, 6))
    assert loss.balance[0] == 1
