"""What an explanation costs: passes are counted by what is run, and no hooks are left."""

from copy import deepcopy

import pytest
import torch
from scenes import confident_detector, picture
from torch import nn

from explainer.evaluation.cost import Meter
from explainer.explain import Explainer
from explainer.network import Network


def test_the_meter_counts_passes_by_what_was_run_and_leaves_no_hooks():
    network = Network(confident_detector())
    image = torch.zeros(1, 3, 64, 64)
    meter = Meter(network)
    with meter:
        with meter.calibrating():
            network.predict(image)
        with meter.measuring() as three:
            network.predict(image)
            network.predict(image.repeat(2, 1, 1, 1))
        with meter.measuring() as part:
            network.model.model[0](image)
    assert three.passes == pytest.approx(3)
    assert 0 < part.passes < 1
    assert meter.inside > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.model.modules())


def test_passes_of_copies_are_time_inside_the_model_but_no_passes_of_its_own():
    network = Network(confident_detector())
    copy = Network(deepcopy(network.model))
    image = torch.zeros(1, 3, 64, 96)
    with Meter(network, [copy]) as meter:
        with meter.calibrating():
            network.predict(image)
        before = meter.inside
        with meter.measuring() as cost:
            copy.predict(image)
    assert meter.inside > before
    assert cost.passes == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copy.model.modules())


def test_a_method_that_runs_parts_of_the_network_again_is_charged_for_them():
    explainer = Explainer(confident_detector(), method="AblationCAM", layer=4, conf_thres=0.05, imgsz=96)
    with Meter(explainer.network) as meter:
        with meter.calibrating():
            explainer.network.predict(torch.zeros(1, 3, 64, 96))
        with meter.measuring() as cost:
            explainer(picture(64, 96))
    # One pass, and for each of the 16 channels what lies above the layer.
    assert 2 < cost.passes < 16


def test_no_hooks_are_left_after_an_error():
    network = Network(confident_detector())
    with pytest.raises(ZeroDivisionError), Meter(network):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in network.model.modules() if isinstance(module, nn.Conv2d))
