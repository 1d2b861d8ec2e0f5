"""The heads: order of the rows, numbers worked out by hand, caches, and pickles of every age."""

import copy
import pickle

import pytest
import torch
from tiny_models import tiny_detector, tiny_segmenter

from models.yolo import Detect, Segment


def hand_made_head(kind=Detect, **kwargs) -> Detect:
    """One level of stride 8, two anchors (10x20 and 30x40 pixels), one class, all outputs zero."""
    head = kind(nc=1, anchors=[[10, 20, 30, 40]], ch=[4], **kwargs).eval()
    head.stride = torch.tensor([8.0])
    head.anchors /= 8
    torch.nn.init.zeros_(head.m[0].weight)
    torch.nn.init.zeros_(head.m[0].bias)
    return head


def test_a_zero_output_is_a_box_of_the_anchors_size_in_the_middle_of_its_cell():
    rows, _ = hand_made_head()([torch.zeros(1, 4, 2, 3)])
    x, y = [4, 12, 20, 4, 12, 20], [4, 4, 4, 12, 12, 12]
    expected = [[cx, cy, w, h, 0.5, 0.5] for w, h in ((10, 20), (30, 40)) for cx, cy in zip(x, y, strict=True)]
    assert torch.equal(rows[0], torch.tensor(expected, dtype=torch.float32))


def test_outputs_are_decoded_by_the_published_formula():
    head = hand_made_head()
    # sigmoid(log 3) is 3/4 and sigmoid(-log 3) is 1/4, for the second anchor only
    three = torch.tensor(3.0).log()
    head.m[0].bias.data[6:] = torch.stack((three, -three, three, -three, three, -three))
    rows, _ = head([torch.zeros(1, 4, 1, 1)])
    # x = (1.5 - 0.5)·8, y = (0.5 - 0.5)·8, w = 1.5²·30, h = 0.5²·40
    torch.testing.assert_close(rows[0, 1], torch.tensor([8, 0, 67.5, 10, 0.75, 0.25]))


def test_rows_run_by_level_then_anchor_then_y_then_x():
    model = tiny_detector()
    rows, raw = model(torch.rand(1, 3, 32, 16))
    assert [tuple(level.shape) for level in raw] == [(1, 2, 8, 4, 8), (1, 2, 4, 2, 8)]
    level, anchor, y, x = 1, 1, 2, 1
    row = 2 * 8 * 4 + anchor * 4 * 2 + y * 2 + x
    torch.testing.assert_close(rows[0, row, 4:], raw[level][0, anchor, y, x, 4:].sigmoid())


def test_training_returns_the_raw_maps_and_export_only_the_predictions():
    head = hand_made_head()
    maps = [torch.rand(1, 4, 2, 2)]
    assert [level.shape for level in copy.deepcopy(head).train()(maps)] == [(1, 2, 2, 2, 6)]
    head.export = True
    assert len(head(maps)) == 1


def test_a_head_leaves_the_list_it_reads_as_it_was():
    maps = [torch.rand(1, 4, 2, 2)]
    before = maps[0].clone()
    hand_made_head()(maps)
    assert torch.equal(maps[0], before)


def test_mask_coefficients_stay_raw_and_prototypes_have_twice_the_maps_size():
    head = hand_made_head(Segment, nm=3, npr=8)
    head.m[0].bias.data[:] = 7.0
    rows, prototypes, raw = head([torch.zeros(1, 4, 2, 2)])
    assert rows.shape == (1, 8, 9)
    assert raw[0].shape == (1, 2, 2, 2, 9)
    assert prototypes.shape == (1, 3, 4, 4)
    assert (rows[..., 6:] == 7.0).all()
    assert (rows[..., 4:6] < 1).all()


def test_a_segmentation_head_in_training_returns_raw_maps_and_prototypes():
    raw, prototypes = tiny_segmenter().train()(torch.rand(2, 3, 32, 32))
    assert [level.shape[1:] for level in raw] == [(2, 8, 8, 12), (2, 4, 4, 12)]
    assert prototypes.shape == (2, 4, 16, 16)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_gradient_pass_works_after_detection(mode):
    model = tiny_detector()
    image = torch.rand(1, 3, 32, 32)
    with mode():
        detected = model(image)[0]
    image.requires_grad_()
    explained = model(image)[0]
    explained[..., :4].sum().backward()
    assert image.grad.abs().sum() > 0
    torch.testing.assert_close(explained.detach(), detected.clone())


def test_grids_left_by_another_version_are_not_used():
    head = hand_made_head()
    maps = [torch.rand(1, 4, 2, 2)]
    expected = head(maps)[0]
    state = head.__getstate__()
    state["grid"] = [torch.full((1, 2, 2, 2, 2), 99.0)]
    state["anchor_grid"] = [torch.full((1, 2, 2, 2, 2), 99.0)]
    revived = Detect.__new__(Detect)
    revived.__setstate__(state)
    assert torch.equal(revived(maps)[0], expected)


class TakenByOthers(list):
    """A cache that another thread, with images of another size, fills at once with its own."""

    def __setitem__(self, index, value):
        super().__setitem__(index, torch.full((1, 1, 3, 3, 2), 99.0))


def test_grids_that_another_thread_replaces_meanwhile_are_not_used():
    head, disturbed = hand_made_head(), hand_made_head()
    disturbed.grid, disturbed.anchor_grid = TakenByOthers(disturbed.grid), TakenByOthers(disturbed.anchor_grid)
    maps = [torch.rand(1, 4, 2, 2)]
    assert torch.equal(disturbed(maps)[0], head(maps)[0])


def test_a_head_of_version_5_0_predicts_as_today():
    head = hand_made_head()
    maps = [torch.rand(1, 4, 2, 2)]
    expected = head(maps)[0]
    state = head.__getstate__()
    del state["inplace"]
    state["_buffers"] = {**state["_buffers"], "anchor_grid": torch.zeros(1, 1, 2, 1, 1, 2)}
    revived = Detect.__new__(Detect)
    revived.__setstate__(state)
    assert torch.equal(revived(maps)[0], expected)
    assert list(revived.state_dict()) == list(head.state_dict())


def test_a_change_of_precision_takes_strides_and_grids_along():
    head = hand_made_head()
    head([torch.zeros(1, 4, 2, 2)])
    head.double()
    rows, _ = head([torch.zeros(1, 4, 2, 2, dtype=torch.float64)])
    assert rows.dtype == head.stride.dtype == torch.float64


def test_each_level_follows_a_change_of_image_size():
    model = tiny_detector()
    small, large = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 48)
    first = model(small)[0]
    model(large)
    assert torch.equal(model(small)[0], first)


def test_cached_grids_stay_out_of_pickles():
    head = hand_made_head()
    empty = len(pickle.dumps(head))
    head([torch.zeros(1, 4, 64, 64)])
    assert len(pickle.dumps(head)) == empty
