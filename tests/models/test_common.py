"""Building blocks: shapes, the names that checkpoints hold, and arithmetic worked out by hand."""

import pytest
import torch
from torch import nn

from models import common, experimental
from utils import activations


def names_of(block: nn.Module) -> set[str]:
    """Return the first parts of a block's state-dict keys."""
    return {key.split(".")[0] for key in block.state_dict()}


@pytest.mark.parametrize(
    ("block", "shape", "names"),
    [
        (common.Conv(4, 8, 3, 2), (8, 4, 6), {"conv", "bn"}),
        (common.Conv(4, 8, 3, d=2), (8, 8, 12), {"conv", "bn"}),
        (common.DWConv(4, 8, 3, 2), (8, 4, 6), {"conv", "bn"}),
        (common.DWConvTranspose2d(4, 8, 2, 2), (8, 16, 24), {"weight", "bias"}),
        (common.TransformerBlock(4, 8, 2, 2), (8, 8, 12), {"conv", "linear", "tr"}),
        (common.Bottleneck(4, 4), (4, 8, 12), {"cv1", "cv2"}),
        (common.BottleneckCSP(4, 8, 2), (8, 8, 12), {"cv1", "cv2", "cv3", "cv4", "bn", "m"}),
        (common.CrossConv(4, 8, 3, 2), (8, 4, 6), {"cv1", "cv2"}),
        (common.C3(4, 8, 2), (8, 8, 12), {"cv1", "cv2", "cv3", "m"}),
        (common.C3x(4, 8, 2), (8, 8, 12), {"cv1", "cv2", "cv3", "m"}),
        (common.C3TR(4, 8, 2), (8, 8, 12), {"cv1", "cv2", "cv3", "m"}),
        (common.C3SPP(4, 8), (8, 8, 12), {"cv1", "cv2", "cv3", "m"}),
        (common.C3Ghost(4, 8, 2), (8, 8, 12), {"cv1", "cv2", "cv3", "m"}),
        (common.SPP(4, 8), (8, 8, 12), {"cv1", "cv2"}),
        (common.SPPF(4, 8), (8, 8, 12), {"cv1", "cv2"}),
        (common.Focus(4, 8, 3), (8, 4, 6), {"conv"}),
        (common.GhostConv(4, 8, 3, 2), (8, 4, 6), {"cv1", "cv2"}),
        (common.GhostBottleneck(4, 4), (4, 8, 12), {"conv"}),
        (common.GhostBottleneck(4, 8, 3, 2), (8, 4, 6), {"conv", "shortcut"}),
        (common.Contract(2), (16, 4, 6), set()),
        (common.Expand(2), (1, 16, 24), set()),
        (common.Proto(4, 8, 2), (2, 16, 24), {"cv1", "cv2", "cv3"}),
        (experimental.MixConv2d(4, 8, (1, 3, 5)), (8, 8, 12), {"m", "bn"}),
        (experimental.MixConv2d(4, 8, (1, 3), 2, equal_ch=False), (8, 4, 6), {"m", "bn"}),
        (activations.FReLU(4), (4, 8, 12), {"conv", "bn"}),
        (activations.AconC(4), (4, 8, 12), {"p1", "p2", "beta"}),
        (activations.MetaAconC(4), (4, 8, 12), {"p1", "p2", "fc1", "fc2"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_block_has_its_shape_and_its_names(block, shape, names):
    assert block.eval()(torch.rand(2, 4, 8, 12)).shape == (2, *shape)
    assert names_of(block) == names


def test_a_transformer_layer_has_its_names():
    layer = common.TransformerLayer(8, 2)
    assert layer(torch.rand(6, 2, 8)).shape == (6, 2, 8)
    assert names_of(layer) == {"q", "k", "v", "ma", "fc1", "fc2"}


def test_a_classification_head_gives_one_row_per_image():
    head = common.Classify(4, 3).eval()
    assert names_of(head) == {"conv", "linear"}
    halves = list(torch.rand(2, 4, 8, 8).split(2, dim=1))
    torch.testing.assert_close(head(halves), head(torch.cat(halves, 1)))
    assert head(halves).shape == (2, 3)


def test_focus_reads_each_square_down_its_columns():
    block = common.Focus(1, 4)
    block.conv = nn.Identity()
    square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert block(square).flatten().tolist() == [1, 3, 2, 4]


def test_contract_puts_the_cells_of_a_square_in_reading_order():
    square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    two_channels = torch.stack((square, 10 * square))[None]
    assert common.Contract(2)(two_channels).flatten().tolist() == [1, 10, 2, 20, 3, 30, 4, 40]


def test_expand_undoes_contract():
    image = torch.rand(2, 3, 6, 9)
    assert torch.equal(common.Expand(3)(common.Contract(3)(image)), image)


def test_three_small_poolings_are_one_pyramid():
    slow, fast = common.SPP(4, 8, (5, 9, 13)).eval(), common.SPPF(4, 8, 5).eval()
    fast.load_state_dict(slow.state_dict())
    image = torch.rand(1, 4, 20, 20)
    torch.testing.assert_close(fast(image), slow(image))


@pytest.mark.parametrize(("shortcut", "c2", "adds"), [(True, 4, True), (False, 4, False), (True, 8, False)])
def test_a_bottleneck_adds_its_input_where_it_can(shortcut, c2, adds):
    block = common.Bottleneck(4, c2, shortcut).eval()
    nn.init.zeros_(block.cv2.conv.weight)
    image = torch.rand(1, 4, 3, 3)
    assert block.add is adds
    torch.testing.assert_close(block(image), image if adds else torch.zeros(1, c2, 3, 3))


def test_activations_are_separate_modules_unless_one_is_given():
    first, second = common.Conv(1, 1), common.Conv(1, 1)
    given = nn.ReLU()
    assert first.act is not second.act
    assert common.Conv(1, 1, act=given).act is given
    assert isinstance(common.Conv(1, 1, act=False).act, nn.Identity)


def test_autopad_keeps_the_size():
    assert [common.autopad(1), common.autopad(3), common.autopad(3, d=2), common.autopad((1, 3))] == [0, 1, 2, (0, 1)]
    assert common.autopad(6, 2) == 2
