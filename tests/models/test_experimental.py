"""Blocks of experimental models, and those that moved away from there."""

import pytest
import torch

from models import common, experimental


def test_a_weighted_sum_starts_with_falling_weights():
    block = experimental.Sum(3, weight=True)
    maps = [torch.ones(1, 1, 2, 2)] * 3
    expected = 1 + 2 * torch.sigmoid(torch.tensor(-0.5)) + 2 * torch.sigmoid(torch.tensor(-1.0))
    torch.testing.assert_close(block(maps), expected.expand(1, 1, 2, 2))
    assert (experimental.Sum(3)(maps) == 3).all()


def test_mixed_convolutions_share_the_channels():
    assert [conv.out_channels for conv in experimental.MixConv2d(4, 8, (1, 3, 5)).m] == [3, 2, 3]
    # one weight per channel against nine
    assert [conv.out_channels for conv in experimental.MixConv2d(4, 20, (1, 3), equal_ch=False).m] == [18, 2]


@pytest.mark.parametrize("name", ["C3", "CrossConv", "GhostConv", "GhostBottleneck"])
def test_blocks_that_moved_are_still_at_their_old_place(name):
    assert getattr(experimental, name) is getattr(common, name)
