"""Batches: the same with any number of workers, shared by processes, in an order of each epoch."""

import torch

from utils.data.loaders import EpochSampler, create_dataloader
from utils.training.hyperparameters import DEFAULT, load_hyp


def hyp(**changes):
    return load_hyp(DEFAULT) | changes


def test_workers_do_not_change_the_batches(squares):
    options = {"hyp": hyp(), "augment": True, "shuffle": True}
    batches = [
        [images for images, *_ in create_dataloader(squares / "images", 64, 2, 32, workers=workers, **options)[0]]
        for workers in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_targets_of_a_batch_name_their_image(squares):
    loader, _ = create_dataloader(squares / "images", 64, 3, 32, workers=0)
    images, targets, paths, _ = next(iter(loader))
    assert images.shape == (3, 3, 64, 64)
    assert targets[:, 0].unique().tolist() == [0, 1, 2]
    assert len(paths) == 3


def test_quads_have_twice_the_size_and_all_labels(squares):
    loader, _ = create_dataloader(squares / "images", 64, 4, 32, workers=0, quad=True)
    torch.manual_seed(0)
    images, targets, *_ = next(iter(loader))
    assert images.shape == (1, 3, 128, 128)
    assert len(targets) in (3, 12)
    assert targets[:, 2:].min() > 0
    assert targets[:, 2:].max() < 1


def test_the_processes_share_the_images(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = [EpochSampler(7, 2, shuffle=True, rank=rank) for rank in range(2)]
    seen = [index for share in shares for index, _ in share]
    assert sorted(set(seen)) == list(range(7))
    assert len(shares[0]) == len(shares[1]) == 4


def test_unshuffled_processes_get_whole_batches(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = [[i for i, _ in EpochSampler(7, 2, shuffle=False, rank=rank)] for rank in range(2)]
    assert shares == [[0, 1, 4, 5], [2, 3, 6]]


def test_every_epoch_has_its_own_order():
    sampler = EpochSampler(20, 4, shuffle=True)
    first = list(sampler)
    sampler.epoch = 1
    assert [i for i, _ in sampler] != [i for i, _ in first]
    assert {epoch for _, epoch in sampler} == {1}
