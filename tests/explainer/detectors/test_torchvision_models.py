"""Models of torchvision are opened by name, or from weights alone, which are data."""

import pickle

import pytest
import small_torchvision
import torch
import torchvision
import yaml
from small_torchvision import LABELS, small_model
from torch import nn
from torchvision.models import get_model
from torchvision.ops.misc import FrozenBatchNorm2d

from explainer.detectors.torchvision_models import builder_of, freeze_norms, is_builder, labels_in, open_state
from explainer.detectors.weights import check_weights, detector_of, open_model
from explainer.errors import UsageError

ARCH = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def ssdlite():
    torch.manual_seed(0)
    return get_model(ARCH, weights=None, weights_backbone=None, num_classes=3)


# What builds the small Faster R-CNN of the tests.
PROGRAM = f"{small_torchvision.__file__}:faster_rcnn"


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_alone_are_read_into_torchvisions_architecture_with_their_number_of_classes(ssdlite, tmp_path, key):
    state = {f"module.{name}": tensor for name, tensor in ssdlite.state_dict().items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "mine.pth")
    model = open_model(tmp_path / "mine.pth", device="cpu", arch=ARCH)
    assert not model.training
    for name, tensor in ssdlite.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert detector_of(model, None).names == {0: "class0", 1: "class1"}


def test_half_weights_and_names_of_a_data_set(ssdlite, tmp_path):
    torch.save({name: each.half() if each.is_floating_point() else each for name, each in ssdlite.state_dict().items()},
               tmp_path / "half.pt")  # fmt: skip
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"names": ["ant", "bee"]}))
    model = open_model(tmp_path / "half.pt", device="cpu", arch=ARCH, data=str(data))
    assert next(model.parameters()).dtype == torch.float32
    assert detector_of(model, None).names == {0: "ant", 1: "bee"}
    data.write_text(yaml.safe_dump({"names": ["ant", "bee", "cow"]}))
    with pytest.raises(UsageError, match="3"):
        open_model(tmp_path / "half.pt", device="cpu", arch=ARCH, data=str(data))


def test_an_architecture_of_the_users_own(tmp_path):
    model = small_model("Faster R-CNN")
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    opened = open_model(tmp_path / "mine.pth", device="cpu", arch=PROGRAM)
    assert detector_of(opened, None).labels.tolist() == list(range(1, LABELS))


def test_models_that_were_fine_tuned_get_their_normalisation_back(ssdlite):
    state = {name: each for name, each in ssdlite.state_dict().items() if "num_batches_tracked" not in name}
    model = get_model(ARCH, weights=None, weights_backbone=None, num_classes=3).eval()
    freeze_norms(model, state, epsilon=0.0)
    norms = [each for each in model.modules() if isinstance(each, FrozenBatchNorm2d)]
    assert len(norms) > 30
    assert {each.eps for each in norms} == {0.0}
    assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert model.load_state_dict(state).missing_keys == []


def test_the_number_of_labels_is_that_of_the_weights(ssdlite):
    assert labels_in(builder_of(ARCH), ssdlite.state_dict()) == 3
    usual = get_model(ARCH, weights=None, weights_backbone=None)
    assert labels_in(builder_of(ARCH), usual.state_dict()) == 91
    state = ssdlite.state_dict()
    odd = next(name for name in state if "classification_head" in name and name.endswith("1.bias"))
    state[odd] = state[odd][:-1]
    with pytest.raises(UsageError, match="no number of classes"):
        labels_in(builder_of(ARCH), state)


def test_what_does_not_go_together_is_said_in_one_line(ssdlite, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(ssdlite.state_dict(), path)
    wrong = {
        None: "holds weights alone",
        "ssd300": "unknown torchvision model 'ssd300'",
        "fcos_resnet50_fpn": "do not fit",
        "gone.py:build": "'gone.py' does not exist",
        PROGRAM.replace("faster_rcnn", "nothing"): "no attribute 'nothing'",
    }
    for arch, message in wrong.items():
        with pytest.raises(UsageError, match=message) as caught:
            open_state(path, arch, trust=False)
        assert "\n" not in str(caught.value)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UsageError, match="holds no weights of a model"):
        open_state(path, ARCH, trust=False)
    with pytest.raises(UsageError, match="do not exist"):
        open_model(tmp_path / "gone.pth", device="cpu", arch=ARCH)


class Hostile:
    def __reduce__(self):
        return open, ("/tmp/never", "w")


def test_a_file_of_weights_is_data_and_a_whole_model_is_a_program(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(pickle.dumps({"weight": Hostile()}))
    with pytest.raises(UsageError):
        open_state(path, ARCH, trust=False)
    torch.save(small_model("SSD"), path)
    with pytest.raises(UsageError, match="--trust"):
        open_model(path, device="cpu")
    assert detector_of(open_model(path, device="cpu", trust=True), None).names[0] == "class0"


def test_names_of_torchvision_are_told_from_files(tmp_path, monkeypatch):
    assert is_builder("fasterrcnn_resnet50_fpn")
    assert is_builder("ssd300_vgg16")
    assert not is_builder("yolov5n")
    assert not is_builder("fasterrcnn.pth")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fasterrcnn_resnet50_fpn").touch()
    assert not is_builder("fasterrcnn_resnet50_fpn")


def test_without_the_network_a_name_says_where_the_weights_belong(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"could not be downloaded \(no route to host\); put https://.* at ") as caught:
        open_model("ssdlite320_mobilenet_v3_large", device="cpu")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(UsageError, match="unknown torchvision model 'ssd300_vgg61'; "):
        open_model("ssd300_vgg61", device="cpu")


def test_what_can_be_no_weights_is_refused_before_anything_is_opened():
    assert check_weights("mine.pth", "ssd300_vgg16") == ("mine.pth",)
    assert check_weights("fasterrcnn_resnet50_fpn") == ("fasterrcnn_resnet50_fpn",)
    with pytest.raises(UsageError, match="only those make an ensemble"):
        check_weights(("a.pth", "b.pth"), "ssd300_vgg16")
    with pytest.raises(UsageError, match="--arch ssd300_vgg16 says what a file of weights belongs to"):
        check_weights("fasterrcnn_resnet50_fpn", "ssd300_vgg16")
    with pytest.raises(UsageError, match=r"or weights of a torchvision model in a \.pth file with --arch"):
        check_weights("mine.bin")
