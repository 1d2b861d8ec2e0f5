"""Box conversions and overlaps on numbers worked out by hand, conversions for tensors and arrays alike."""

import json

import numpy as np
import pytest
import torch

from utils.base.boxes import bbox_iou, box_iou, clip_boxes, scale_boxes, xywh2xyxy, xywhn2xyxy, xyxy2xywh, xyxy2xywhn

CORNERS = [[10.0, 20.0, 30.0, 60.0, 0.9, 3.0]]


CENTRES = [[20.0, 40.0, 20.0, 40.0, 0.9, 3.0]]


NORMALISED = [[0.2, 0.2, 0.2, 0.2, 0.9, 3.0]]


both_types = pytest.mark.parametrize(
    "make", [torch.tensor, lambda rows: np.array(rows, np.float32)], ids=["torch", "np"]
)


def close(boxes, expected):
    return np.allclose(np.asarray(boxes), expected, atol=1e-5)


@both_types
def test_corners_and_centres_convert_into_each_other(make):
    assert close(xyxy2xywh(make(CORNERS)), CENTRES)
    assert close(xywh2xyxy(make(CENTRES)), CORNERS)


@both_types
def test_normalised_boxes_convert_both_ways(make):
    assert close(xyxy2xywhn(make(CORNERS), w=100, h=200), NORMALISED)
    assert close(xywhn2xyxy(make(NORMALISED), w=100, h=200), CORNERS)
    assert close(xywhn2xyxy(make(NORMALISED), w=100, h=200, padw=5, padh=7), [[15, 27, 35, 67, 0.9, 3]])


@both_types
def test_converters_leave_their_input_alone_and_keep_its_type(make):
    boxes = make(CORNERS)
    for convert in (xyxy2xywh, xywh2xyxy, xywhn2xyxy, xyxy2xywhn, lambda b: xyxy2xywhn(b, 15, 15, clip=True)):
        assert type(convert(boxes)) is type(boxes)
        assert convert(boxes).dtype == boxes.dtype
    assert close(boxes, CORNERS)


def test_integer_boxes_become_floating_point():
    assert xyxy2xywh(torch.tensor([[0, 0, 3, 5]])).tolist() == [[1.5, 2.5, 3, 5]]
    assert xyxy2xywh(np.array([[0, 0, 3, 5]])).tolist() == [[1.5, 2.5, 3, 5]]


@both_types
def test_a_batch_of_boxes_and_a_single_one_convert(make):
    assert xyxy2xywh(make([CORNERS, CORNERS])).shape == (2, 1, 6)
    assert close(xyxy2xywh(make(CORNERS[0])), CENTRES[0])


@both_types
def test_clipping_happens_in_place(make):
    boxes = make([[-5.0, -5.0, 500.0, 500.0, 7.0]])
    assert clip_boxes(boxes, (100, 200, 3)) is boxes
    assert close(boxes, [[0, 0, 200, 100, 7]])


@both_types
def test_clipped_normalised_boxes_stay_inside(make):
    assert close(xyxy2xywhn(make([[-10.0, 0.0, 10.0, 10.0]]), 10, 10, clip=True), [[0.5, 0.5, 1, 1]])


@both_types
def test_scaling_takes_off_the_padding_and_the_ratio_in_place(make):
    # 200 wide, 100 high in a frame of 64: half the size... 0.32, and 16 rows of padding above.
    boxes = make([[16.0, 32.0, 48.0, 48.0, 1.0]])
    assert scale_boxes((64, 64), boxes, (100, 200)) is boxes
    assert close(boxes, [[50, 50, 150, 100, 1]])


@both_types
def test_scaling_with_a_known_ratio_and_padding(make):
    boxes = scale_boxes((64, 64), make([[10.0, 12.0, 20.0, 22.0]]), (100, 100), ratio_pad=((0.5, 0.5), (2, 4)))
    assert close(boxes, [[16, 16, 36, 36]])


@both_types
def test_no_boxes_stay_no_boxes(make):
    empty = make(CORNERS)[:0]
    assert xyxy2xywh(empty).shape == (0, 6)
    assert scale_boxes((64, 64), empty, (10, 10)).shape == (0, 6)


def test_overlap_of_boxes():
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [2, 2, 4, 4]])
    assert torch.allclose(box_iou(a, b), torch.tensor([[1, 1 / 3, 0, 0.04]]), atol=1e-5)
    assert box_iou(b, a).shape == (4, 1)


SQUARE = [0.0, 0, 10, 10]


FAR = [50.0, 50, 60, 60]


def test_box_iou_compares_every_pair():
    iou = box_iou(torch.tensor([SQUARE, FAR]), torch.tensor([[5.0, 0, 15, 10]]))
    assert iou[:, 0].tolist() == pytest.approx([1 / 3, 0])


@pytest.fixture(scope="module")
def reference(assets):
    return json.loads((assets / "golden/yolov5n_loss.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("variant", ["IoU", "GIoU", "DIoU", "CIoU"])
def test_overlaps_are_the_published_ones(reference, variant):
    pairs = reference["bbox_iou_xywh"]
    options = {} if variant == "IoU" else {variant: True}
    found = bbox_iou(torch.tensor(pairs["b1"]), torch.tensor(pairs["b2"]), **options)
    assert found[:, 0].tolist() == pytest.approx(pairs[variant], abs=1e-6)


def test_half_covered_boxes_have_an_iou_of_a_third_in_either_layout():
    corners = bbox_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]), xywh=False)
    centres = bbox_iou(torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[2.0, 1, 2, 2]]))
    assert corners.item() == pytest.approx(1 / 3, abs=1e-5)
    assert centres.item() == pytest.approx(1 / 3, abs=1e-5)


def test_distant_boxes_get_nearer_by_the_gradient_of_ciou():
    box = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
    bbox_iou(box, torch.tensor([[10.0, 0, 2, 2]]), CIoU=True).sum().backward()
    assert box.grad[0, 0] > 0
