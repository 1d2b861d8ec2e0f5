"""What an explanation costs: passes are counted by what is run, and no hooks are left."""

import pytest
import torch
from scenes import confident_detector, picture
from torch import nn

from explainer.detectors.yolov5 import YOLOv5
from explainer.evaluation.cost import Meter
from explainer.explain import Explainer


def test_the_meter_counts_passes_by_what_was_run_and_leaves_no_hooks():
    detector = YOLOv5(confident_detector())
    image = torch.zeros(1, 3, 64, 64)
    meter = Meter(detector)
    with meter:
        with meter.calibrating():
            detector.predict(image)
        with meter.measuring() as three:
            detector.predict(image)
            detector.predict(image.repeat(2, 1, 1, 1))
        with meter.measuring() as part:
            detector.model.model[0](image)
    assert three.passes == pytest.approx(3)
    assert 0 < part.passes < 1
    assert meter.inside > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in detector.model.modules())


def test_passes_of_copies_are_time_inside_the_model_but_no_passes_of_its_own():
    detector = YOLOv5(confident_detector())
    copy = detector.copy()
    image = torch.zeros(1, 3, 64, 96)
    with Meter(detector, [copy]) as meter:
        with meter.calibrating():
            detector.predict(image)
        before = meter.inside
        with meter.measuring() as cost:
            copy.predict(image)
    assert meter.inside > before
    assert cost.passes == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copy.model.modules())


def test_a_method_that_runs_parts_of_the_network_again_is_charged_for_them():
    explainer = Explainer(confident_detector(), method="AblationCAM", layer=4, conf_thres=0.05, imgsz=96)
    with Meter(explainer.detector) as meter:
        with meter.calibrating():
            explainer.detector.predict(torch.zeros(1, 3, 64, 96))
        with meter.measuring() as cost:
            explainer(picture(64, 96))
    # One pass, and for each of the 16 channels what lies above the layer.
    assert 2 < cost.passes < 16


def test_no_hooks_are_left_after_an_error():
    detector = YOLOv5(confident_detector())
    with pytest.raises(ZeroDivisionError), Meter(detector):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in detector.model.modules() if isinstance(module, nn.Conv2d))
