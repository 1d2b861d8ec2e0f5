"""Loading weights for detection: one model, or an ensemble."""

import pytest
import torch
from tiny_models import save, tiny_detector
from torch import nn

from models.loading import Ensemble, attempt_load

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints with 3 classes."""
    models = [tiny_detector(seed=seed) for seed in (1, 2)]
    paths = [save({"model": model}, tmp_path / f"{i}.pt") for i, model in enumerate(models)]
    return models, paths


def test_fusing_removes_the_normalisation_and_keeps_the_predictions(saved):
    (model, _), (path, _) = saved
    fused, plain = attempt_load(path), attempt_load(path, fuse=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert torch.equal(plain(IMAGE)[0], model(IMAGE)[0])
    torch.testing.assert_close(fused(IMAGE)[0], model(IMAGE)[0])


@pytest.mark.parametrize("inplace", [False, True])
def test_inplace_is_passed_to_activations_heads_and_the_model(saved, inplace):
    model = attempt_load(saved[1][0], inplace=inplace)
    kinds = [model, model.model[-1], *(module for module in model.modules() if isinstance(module, nn.SiLU))]
    assert {module.inplace for module in kinds} == {inplace}


def test_several_models_predict_together(saved):
    models, paths = saved
    ensemble = attempt_load(paths, fuse=False)
    predictions, _ = ensemble(IMAGE)
    assert isinstance(ensemble, Ensemble)
    assert torch.equal(predictions, torch.cat([model(IMAGE)[0] for model in models], 1))
    assert ensemble.names == {0: "0", 1: "1", 2: "2"}
    assert ensemble.nc == 3
    assert ensemble.stride.tolist() == [4, 8]


def test_an_ensemble_has_the_largest_stride_of_its_models(saved, tmp_path):
    coarse = tiny_detector()
    coarse.stride = torch.tensor([8.0, 16.0])
    path = save({"model": coarse}, tmp_path / "coarse.pt")
    assert attempt_load([saved[1][0], path]).stride.tolist() == [8, 16]


def test_models_with_different_classes_are_refused(saved, tmp_path):
    other = save({"model": tiny_detector(nc=5)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"different numbers of classes.*0\.pt 3, .*other\.pt 5"):
        attempt_load([saved[1][0], other])


def test_weights_that_do_not_exist_are_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere/best\.pt does not exist"):
        attempt_load("nowhere/best.pt")


def test_a_model_loaded_under_inference_mode_takes_gradients(saved):
    with torch.inference_mode():
        model = attempt_load(saved[1][0])
    image = IMAGE.clone().requires_grad_()
    model(image)[0].sum().backward()
    assert image.grad.abs().sum() > 0
