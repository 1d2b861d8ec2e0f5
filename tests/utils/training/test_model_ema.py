"""The running average of a model."""

from torch import nn

from utils.training.model_ema import ModelEMA


def test_the_average_follows_the_model():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    ema = ModelEMA(model, decay=0.5, tau=1e-9)
    nn.init.constant_(model.weight, 3.0)
    ema.update(model)
    assert ema.ema.weight.item() == 2
    assert ema.updates == 1
