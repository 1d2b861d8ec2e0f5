"""Optimizers, rates and early stopping, on numbers worked out by hand."""

import pytest
from tiny_models import tiny_detector
from torch import nn

from utils.training.optimizers import EarlyStopping, WarmUp, make_schedule, smart_optimizer
from utils.training.options import OPTIMIZERS


def test_options_and_optimizers_name_the_same():
    for name in OPTIMIZERS:
        assert len(smart_optimizer(tiny_detector(), name).param_groups) == 3
    with pytest.raises(ValueError, match="choose SGD, Adam, AdamW, RMSProp"):
        smart_optimizer(tiny_detector(), "Lion")


def test_only_weights_of_convolutions_decay():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    biases, weights, norms = smart_optimizer(model, "SGD", lr=0.1, momentum=0.9, decay=0.5).param_groups
    assert [len(group["params"]) for group in (biases, weights, norms)] == [2, 1, 1]
    assert [group["weight_decay"] for group in (biases, weights, norms)] == [0, 0.5, 0]


@pytest.mark.parametrize(("cosine", "middle"), [(False, 0.55), (True, 0.55)])
def test_the_learning_rate_falls_to_its_last_share(cosine, middle):
    schedule = make_schedule(10, 0.1, cosine=cosine)
    assert [schedule(epoch) for epoch in (0, 5, 10)] == pytest.approx([1, middle, 0.1])


def test_rates_rise_in_the_warm_up_but_those_of_biases_fall():
    optimizer = smart_optimizer(tiny_detector(), "SGD", lr=0.01, momentum=0.9)
    warm_up = WarmUp(iterations=100, bias_lr=0.1, momentum=0.8, final_momentum=0.9, accumulate=4)
    found = [(warm_up.apply(optimizer, i, 1.0), *(g["lr"] for g in optimizer.param_groups)) for i in (0, 50, 100)]
    assert found[0] == pytest.approx((1, 0.1, 0, 0))
    assert found[1] == pytest.approx((2, 0.055, 0.005, 0.005))
    assert found[2] == pytest.approx((4, 0.01, 0.01, 0.01))
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.9)


def test_patience_counts_from_the_best_epoch():
    stopper = EarlyStopping(patience=2)
    assert [stopper(epoch, fitness) for epoch, fitness in enumerate((0.1, 0.3, 0.2, 0.2))] == [
        False,
        False,
        False,
        True,
    ]
    assert stopper.best_epoch == 1


def test_without_patience_nothing_stops():
    stopper = EarlyStopping(patience=0)
    assert not any(stopper(epoch, 1.0 if epoch == 0 else 0.0) for epoch in range(500))
