"""Activations of old checkpoints."""

import pytest
import torch
from torch import nn

from utils import activations


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (activations.SiLU(), nn.SiLU()),
        (activations.MemoryEfficientSwish(), nn.SiLU()),
        (activations.Hardswish(), nn.Hardswish()),
        (activations.Mish(), nn.Mish()),
        (activations.MemoryEfficientMish(), nn.Mish()),
    ],
)
def test_activations_of_old_checkpoints_are_those_of_torch(old, new):
    x = torch.linspace(-5, 5, 21)
    torch.testing.assert_close(old(x), new(x))


def test_acon_with_equal_lines_is_that_line():
    block = activations.AconC(2)
    with torch.no_grad():
        block.p1.fill_(3.0)
        block.p2.fill_(3.0)
    x = torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(block(x), 3 * x)
