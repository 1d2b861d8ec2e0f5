"""Masks from prototypes and coefficients."""

import torch

from utils.detecting.masks import crop_mask, process_mask, process_mask_native


def test_masks_are_cut_to_their_boxes():
    masks = crop_mask(torch.ones(1, 4, 6), torch.tensor([[1.0, 1, 3, 3]]))
    assert masks[0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_a_mask_is_the_sign_of_its_combined_prototypes():
    protos = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    protos[0, :, 2:] = -1
    masks = process_mask(protos, torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, 0, 16, 16]]), (16, 16))
    assert masks[0].tolist() == [[1, 1, 0, 0]] * 4
    large = process_mask(protos, torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, 0, 16, 16]]), (16, 16), upsample=True)
    assert large.shape == (1, 16, 16)
    assert large[0, 0].tolist() == [1] * 8 + [0] * 8


def test_a_native_mask_has_the_original_size_without_padding():
    # A picture twice as wide as high, letterboxed: rows 2 to 5 of 8 show it; its left half is inside.
    protos = -torch.ones(1, 8, 8)
    protos[0, 2:6, :4] = 1
    box = torch.tensor([[0.0, 0, 40, 20]])
    masks = process_mask_native(protos, torch.tensor([[9.0]]), box, (20, 40))
    assert masks.shape == (1, 20, 40)
    assert masks[0, :, :20].all()
    assert not masks[0, :, 20:].any()
