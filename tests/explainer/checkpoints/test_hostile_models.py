"""Models that a file describes and that cannot work: one line that names the file, whatever is wrong inside."""

from copy import deepcopy

import pytest
import torch
from forged import save
from tiny_detectors import tiny_detector
from torch import nn

from explainer.checkpoints.checkpoint import CheckpointError, load_model
from models.yolo import Detect


def layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def set_all(kind, **values):
    return lambda model: [vars(module).update(values) for module in layers(model, kind)]


def odd_layer(kind, **values):
    """Return a change that puts a layer with options of our choice in the place of the second."""

    def change(model):
        layer = kind.__new__(kind)
        nn.Module.__init__(layer)
        vars(layer).update(values, i=1, f=-1, type="x", np=0)
        model.model._modules["1"] = layer

    return change


def head(**values):
    return lambda model: vars(model.model[-1]).update(values)


def buffers(**values):
    return lambda model: model.model[-1]._buffers.update(values)


CHANGES = {
    "a head that counts other classes": head(nc=80),
    "a head of other columns": head(no=1),
    "a head of other anchors": head(na=7),
    "anchors of another shape": buffers(anchors=torch.zeros(1)),
    "no anchors": buffers(anchors=None),
    "no layers": lambda model: vars(model)["_modules"].clear(),
    "layers that are none": lambda model: model._modules.update(model=None),
    "anchors that are no numbers": lambda model: model.model[-1].anchors.fill_(float("nan")),
    "weights that are no numbers": lambda model: layers(model, nn.Conv2d)[0].weight.data.fill_(float("nan")),
    "strides of zero": head(stride=torch.zeros(2)),
    "strides that are no numbers": head(stride=torch.full((2,), float("nan"))),
    "strides without end": head(stride=torch.full((2,), float("inf"))),
    "huge strides": head(stride=torch.full((2,), 1e9)),
    "no strides": head(stride=torch.zeros(0)),
    "strides of text": head(stride="x"),
    "the model's strides of text": lambda model: vars(model).update(stride="x"),
    "huge strides of the model": lambda model: vars(model).update(stride=torch.full((2,), 1e9)),
    "negative strides of the model": lambda model: vars(model).update(stride=torch.full((2,), -8.0)),
    "no strides of the model": lambda model: vars(model).update(stride=torch.zeros(0)),
    "a head that reads one layer": head(f=-1),
    "a layer that reads a later one": lambda model: vars(model.model[1]).update(f=3),
    "a layer that reads text": lambda model: vars(model.model[1]).update(f="x"),
    "layers that are all the first": lambda model: [vars(layer).update(i=0) for layer in model.model],
    "a layer whose place is text": lambda model: vars(model.model[1]).update(i="x"),
    "a model of text": lambda model: vars(model).update(yaml="x"),
    "no convolutions in the head": lambda model: model.model[-1].m._modules.clear(),
    "text among the parameters": lambda model: layers(model, nn.Conv2d)[0]._parameters.update(weight="x"),
    "text among the modules": lambda model: model.model[0]._modules.update(conv="x"),
    "complex weights": lambda model: layers(model, nn.Conv2d)[0]._parameters.update(
        weight=nn.Parameter(layers(model, nn.Conv2d)[0].weight.data.to(torch.complex64))
    ),
    "flat weights": lambda model: layers(model, nn.Conv2d)[0]._parameters.update(weight=nn.Parameter(torch.zeros(3))),
    "no groups": set_all(nn.Conv2d, groups=0),
    "a stride of zero": set_all(nn.Conv2d, stride=(0, 0)),
    "huge padding": set_all(nn.Conv2d, padding=(200_000, 200_000)),
    "forward is text": lambda model: vars(model.model[0]).update(forward="x"),
    "forward of the model is text": lambda model: vars(model).update(forward="x"),
    "shuffled by zero": odd_layer(nn.PixelShuffle, upscale_factor=0),
    "unfolded": odd_layer(nn.Unfold, kernel_size=0, dilation=0, padding=0, stride=0),
    "padded by a thousand million": odd_layer(nn.ZeroPad2d, padding=(10**9,) * 4, value=0),
    "a softmax of no dimension": odd_layer(nn.Softmax, dim=10**9),
    "scaled up without end": odd_layer(
        nn.Upsample, size=None, scale_factor=1e5, mode="nearest", align_corners=None, recompute_scale_factor=None
    ),
    "scaled by no number": odd_layer(
        nn.Upsample,
        size=None,
        scale_factor=float("nan"),
        mode="nearest",
        align_corners=None,
        recompute_scale_factor=None,
    ),
    "a layer without options": odd_layer(nn.AvgPool2d),
}


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_cannot_work_is_refused_in_one_line(change, fuse, tmp_path, monkeypatch):
    monkeypatch.setattr(Detect, "__getstate__", lambda self: dict(self.__dict__))
    model, path = deepcopy(tiny_detector()), tmp_path / "best.pt"
    CHANGES[change](model)
    save({"model": model}, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(path, fuse=fuse)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["anchors that are no numbers", "strides of zero", "no groups"])
def test_what_would_work_no_better_if_it_were_trusted_is_not_to_be_trusted(change, tmp_path):
    model = deepcopy(tiny_detector())
    CHANGES[change](model)
    with pytest.raises(CheckpointError, match=r"[;:] give a checkpoint that") as caught:
        load_model(save({"model": model}, tmp_path / "best.pt"), trust=True)
    assert "--trust" not in str(caught.value)


@pytest.mark.parametrize(
    "state",
    [
        {"_forward_hooks": [1, 2], "_forward_pre_hooks": None},
        {"_forward_hooks_with_kwargs": "abc", "_non_persistent_buffers_set": 5},
        {"_compiled_call_impl": "abc", "training": "x"},
    ],
)
def test_what_torch_keeps_for_itself_is_not_taken_from_a_file(state, tmp_path):
    expected, model = deepcopy(tiny_detector()), deepcopy(tiny_detector())
    kept = {**vars(model), **state}
    type(model).__getstate__, before = (lambda self: kept), vars(type(model)).get("__getstate__")
    try:
        path = save({"model": model}, tmp_path / "best.pt")
    finally:
        del type(model).__getstate__
        if before:
            type(model).__getstate__ = before
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_model(path)(image)[0], expected(image)[0])


@pytest.mark.parametrize("names", [["\x1b[2Jcat", "a\nb", "dög 🐶"], {0: "\x1b[2Jcat", 1: "a\nb", 2: "dög 🐶"}])
def test_escape_codes_in_names_are_spelled_out(names, tmp_path):
    model = deepcopy(tiny_detector())
    model.names = names
    loaded = load_model(save({"model": model}, tmp_path / "best.pt"))
    assert loaded.names == {0: r"\x1b[2Jcat", 1: r"a\nb", 2: "dög 🐶"}


def test_more_names_than_any_model_has_classes_are_not_made(tmp_path):
    model = deepcopy(tiny_detector())
    model.names = range(10**9)
    with pytest.raises(CheckpointError, match="names 1000000000 classes"):
        load_model(save({"model": model}, tmp_path / "best.pt"))


def test_a_message_about_a_file_is_one_line_without_escape_codes(tmp_path):
    path = save({"\x1b]0;owned\x07\x1b[2Jepoch\nall is good": None}, tmp_path / "a\x1b[31m\nb.pt")
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(caught.value).isprintable()
    assert r"\x1b]0;owned\x07" in str(caught.value)
    assert r"a\x1b[31m\nb.pt" in str(caught.value)
