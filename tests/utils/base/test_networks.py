"""Fused convolutions, image scaling and summaries."""

import pytest
import torch
from tiny_models import tiny_detector
from torch import nn

from utils.base import networks


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_fused_convolution_equals_convolution_and_norm(bias, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, 2, padding=1, groups=groups, bias=bias)
    bn = nn.BatchNorm2d(8, eps=1e-3).eval()
    nn.init.uniform_(bn.weight, 0.5, 2)
    nn.init.uniform_(bn.bias, -1, 1)
    bn.running_mean.uniform_(-1, 1)
    bn.running_var.uniform_(0.5, 2)
    image = torch.rand(2, 4, 9, 9)
    before = conv.weight.clone()
    torch.testing.assert_close(networks.fuse_conv_and_bn(conv, bn)(image), bn(conv(image)), rtol=1e-5, atol=1e-5)
    assert torch.equal(conv.weight, before)


def test_a_fused_convolution_is_frozen_where_the_first_one_was():
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    assert networks.fuse_conv_and_bn(conv, bn).weight.requires_grad
    assert not networks.fuse_conv_and_bn(conv.requires_grad_(False), bn).bias.requires_grad


@pytest.mark.parametrize(
    ("ratio", "same_shape", "size"),
    [(1.0, False, (40, 64)), (0.5, False, (32, 32)), (0.5, True, (40, 64)), (0.83, False, (64, 64))],
)
def test_scaled_images_are_padded_to_the_stride(ratio, same_shape, size):
    assert networks.scale_img(torch.rand(1, 3, 40, 64), ratio, same_shape).shape[2:] == size


def test_the_border_of_a_scaled_image_is_grey():
    scaled = networks.scale_img(torch.ones(1, 3, 40, 64), 0.5)
    assert (scaled[..., :20, :32] == 1).all()
    torch.testing.assert_close(scaled[..., 20:, :].unique(), torch.tensor([networks.BORDER_VALUE]))


def test_operations_are_counted_per_output_cell():
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    # two per multiply-add, 27 multiply-adds for each of 8 channels
    assert networks.count_gflops(conv, 64) == pytest.approx(2 * 64 * 64 * 8 * 27 / 1e9)
    # each input cell is spread over 2x2 output cells of 8 channels
    assert networks.count_gflops(nn.ConvTranspose2d(3, 8, 2, 2), 64) == pytest.approx(2 * 64 * 64 * 3 * 8 * 4 / 1e9)


def test_a_summary_leaves_the_model_as_it_was(capsys):
    model = tiny_detector().train()
    model.model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    networks.model_info(model, verbose=True)
    assert not model.model[0].training
    assert model.model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters} parameters, {parameters} gradients" in capsys.readouterr().err


def test_public_attributes_are_copied_as_asked():
    class Bag:
        pass

    source = Bag()
    source.a, source.b, source._c = 1, 2, 3
    everything, some, rest = Bag(), Bag(), Bag()
    networks.copy_attr(everything, source)
    networks.copy_attr(some, source, include=("a",))
    networks.copy_attr(rest, source, exclude=("a",))
    assert (vars(everything), vars(some), vars(rest)) == ({"a": 1, "b": 2}, {"a": 1}, {"b": 2})
