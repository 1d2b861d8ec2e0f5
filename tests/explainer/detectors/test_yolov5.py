"""The caller's model is read, and given back as it was."""

import pytest
import torch
from scenes import confident, confident_detector, picture, save_checkpoint, state
from tiny_detectors import tiny_segmenter
from torch import nn

from explainer.detectors.yolov5 import YOLOv5
from explainer.errors import UsageError
from explainer.explain import Explainer
from models.common import AutoShape

SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", ["auto", -2, "model.7.cv3.act"])
def test_the_model_is_given_back_as_it_was(training, layer):
    model = confident_detector().train(training)
    model.model[0].requires_grad_(False)
    before = state(model)
    assert Explainer(model, layer=layer, **SETTINGS)(picture()).heatmap.any()
    assert state(model) == before


def test_the_model_is_given_back_as_it_was_after_an_error():
    model = confident_detector().train()
    before = state(model)
    explainer = Explainer(model, **SETTINGS)
    explainer.attributor.formula = None
    with pytest.raises(TypeError):
        explainer(picture())
    assert state(model) == before


def test_a_model_whose_parameters_are_frozen_is_explained():
    model = confident_detector().requires_grad_(False)
    assert Explainer(model, **SETTINGS)(picture()).heatmap.any()


def test_a_model_whose_weights_were_computed_with_gradients_on_is_explained():
    model, expected = confident_detector(), Explainer(confident_detector(), layer=4, **SETTINGS)(picture())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # As `fuse` does in stock YOLOv5.
            weight = module.weight.detach().clone().requires_grad_()
            module.weight.requires_grad_(False).copy_(weight)
            assert not module.weight.is_leaf
    before = state(model)
    assert (Explainer(model, layer=4, **SETTINGS)(picture()).heatmap == expected.heatmap).all()
    assert state(model) == before


def test_a_model_that_was_used_under_inference_mode_is_explained():
    model = confident_detector()
    with torch.inference_mode():
        model(torch.rand(1, 3, 64, 96))
    assert Explainer(model, use_old_target_method=True, **SETTINGS)(picture()).heatmap.any()


def test_a_model_that_was_made_under_inference_mode_is_explained_there():
    with torch.inference_mode():
        model = confident_detector()
        assert next(model.parameters()).is_inference()
        explanation = Explainer(model, layer=4, **SETTINGS)(picture())
    expected = Explainer(confident_detector(), layer=4, **SETTINGS)(picture())
    assert torch.equal(torch.tensor(explanation.heatmap), torch.tensor(expected.heatmap))


def test_explaining_twice_gives_the_same_map():
    explainer = Explainer(confident_detector(), method="LayerCAM", **SETTINGS)
    first, second = explainer(picture()), explainer(picture())
    assert (first.heatmap == second.heatmap).all()


def test_one_forward_pass_is_made_for_each_image():
    model, passes = confident_detector(), []
    explainer = Explainer(
        model, method="LayerCAM", backprop_array=["class", "width"], backward_per_class=True, **SETTINGS
    )
    model.model[0].register_forward_hook(lambda *args: passes.append(1))
    explainer(picture())
    assert len(passes) == 1


def test_nothing_below_the_layer_is_recorded():
    with YOLOv5(confident_detector()).borrowed() as detector:
        recording = detector.record(torch.rand(1, 3, 64, 96), ("model.4",), with_graph=True)
    assert recording.activations["model.4"].is_leaf
    assert recording.head_inputs[0].requires_grad


def test_autoshape_and_a_wrapped_model_are_unwrapped():
    model = confident_detector()
    wrapped = nn.Module()
    wrapped.model = model
    assert YOLOv5(wrapped).model is model
    assert YOLOv5(AutoShape(model, verbose=False)).model is model


def test_the_path_of_a_checkpoint_gives_the_same_explanation_as_its_model(tmp_path):
    path = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    from_path, from_model = (Explainer(model, **SETTINGS)(picture()) for model in (path, confident_detector().fuse()))
    assert (from_path.heatmap == from_model.heatmap).all()


def test_a_segmentation_model_is_explained():
    assert Explainer(confident(tiny_segmenter()), **SETTINGS)(picture()).heatmap.any()


def test_half_of_an_ensemble_alone_gives_the_detections_of_that_half():
    models = [confident_detector(1), confident_detector(2)]
    both = Explainer(nn.ModuleList(models), **SETTINGS)(picture())
    assert {layer for entry in both.detections for layer in entry.layers} >= {"0.model.7", "1.model.7"}
    assert both.heatmap.any()


def test_a_model_without_a_detect_head_is_refused_by_the_name_of_its_class():
    with pytest.raises(UsageError, match="Linear holds no YOLOv5 detection model"):
        YOLOv5(nn.Linear(2, 2))


def test_an_activation_that_many_blocks_share_is_read_in_the_block_that_was_named():
    model, shared = confident_detector(), nn.SiLU()
    for module in model.modules():
        if isinstance(getattr(module, "act", None), nn.SiLU):
            module.act = shared
    image = torch.rand(1, 3, 64, 96)
    with YOLOv5(model).borrowed() as detector:
        recording = detector.record(image, ("model.7.cv3.act", "model.7"), with_graph=True)
    torch.testing.assert_close(recording.activations["model.7.cv3.act"], recording.activations["model.7"])


def test_a_part_of_a_list_of_modules_is_read_while_the_block_around_the_list_runs():
    model = confident_detector()
    model.model[7].m = ListOfModules(model.model[7].m)
    explanation = Explainer(model, layer="model.7.m.parts.0", **SETTINGS)(picture())
    assert any(entry.cams[0].any() for entry in explanation.detections)


class ListOfModules(nn.Module):
    """Runs a list of modules, which is never called itself."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Gate(nn.Module):
    """Scales a map by a number made of all its values, taken side by side in one way or another."""

    def __init__(self, flatten):
        super().__init__()
        self.flatten = flatten

    def forward(self, x):
        return x * self.flatten(x).std().sigmoid()


def gated(flatten):
    """Return the confident detector whose first layer ends in a gate."""
    model = confident_detector()
    model.model[0].act = nn.Sequential(model.model[0].act, Gate(flatten))
    return model


def test_a_block_that_wants_the_usual_order_of_memory_is_explained_like_one_that_takes_any():
    strict = Explainer(gated(lambda x: x.view(1, -1)), **SETTINGS)
    answers = [strict(picture()), strict(picture())]
    expected = Explainer(gated(lambda x: x.reshape(1, -1)), **SETTINGS)(picture())
    assert expected.heatmap.any()
    for answer in answers:
        assert abs(answer.heatmap - expected.heatmap).max() < 1e-4


def test_an_error_of_a_block_is_no_question_of_the_order_of_memory():
    def broken(x):
        raise RuntimeError("a broken view" if x.is_contiguous() else "a broken block")

    with pytest.raises(RuntimeError, match="broken block"):
        Explainer(gated(broken), **SETTINGS)(picture())


def test_on_a_cpu_the_network_is_given_the_channels_of_a_pixel_side_by_side():
    model, layouts = confident_detector(), []
    model.model[0].register_forward_pre_hook(
        lambda module, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    Explainer(model, **SETTINGS)(picture())
    assert layouts == [True]
