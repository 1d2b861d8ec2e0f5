"""Copies of a model whose weights are shuffled, and the class that comes second."""

import torch
from scenes import confident_detector

from explainer.detectors.yolov5 import YOLOv5
from explainer.evaluation.sanity import second_class, shuffled_copies


def test_copies_are_shuffled_from_the_head_down_and_the_model_stays():
    model = confident_detector().fuse()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copies = {stage: copy.model for stage, copy in shuffled_copies(YOLOv5(model), seed=0).items()}
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())

    def changed(copy):
        weights = {
            name: value for name, value in copy.state_dict().items() if name.endswith("conv.weight") or ".m." in name
        }
        return {int(name.split(".")[1]) for name, value in weights.items() if (value != before[name]).any()}

    assert changed(copies["head"]) == {8}
    assert changed(copies["neck"]) == {7, 8}
    assert changed(copies["all"]) == {0, 1, 2, 3, 4, 7, 8}
    head = model.model[-1].m[0].weight
    assert (copies["all"].model[-1].m[0].weight.sort().values.sum() - head.sum()).abs() < 1e-3


def test_the_second_class_is_the_most_probable_other_one():
    assert second_class(torch.tensor([0.1, 0.9, 0.3]), 1) == 2
    assert second_class(torch.tensor([0.1, 0.9, 0.3]), 0) == 1
    assert second_class(torch.tensor([0.9]), 0) is None
