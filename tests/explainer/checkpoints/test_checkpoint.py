"""Reading checkpoints: nothing in them runs, old ones are repaired, bad ones are refused with a reason."""

import argparse
import datetime
import functools
import io
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import types
import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch
from forged import Call, called, name, program, save, text, write_archive, write_legacy
from PIL import Image
from tiny_detectors import tiny_detector, tiny_segmenter
from torch import nn

import models.common
from explainer.checkpoints.checkpoint import CheckpointError, load_model, read_checkpoint
from explainer.checkpoints.repair import repair
from explainer.checkpoints.unpickling import DataUnpickler
from models.yolo import Detect, DetectionModel

IMAGE = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
REDUCE, EMPTY_TUPLE, EMPTY_DICT = pickle.REDUCE, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT


class Marker:
    """A file that an attack would leave behind."""

    def __init__(self, path):
        self.path, self.command = path, f"echo hello > {path}"
        self.code = f"open({str(path)!r}, 'w').close()"


@pytest.fixture
def marker(tmp_path):
    marker = Marker(tmp_path / "marker")
    yield marker
    assert not marker.path.exists(), "the file ran a program"


@pytest.fixture
def pt(tmp_path):
    return tmp_path / "best.pt"


def predict(model):
    with torch.no_grad():
        return model(IMAGE)[0]


ATTACKS = {
    "posix.system": lambda marker: Call(os.system, marker.command),
    "builtins.eval": lambda marker: Call(eval, f"exec({marker.code!r})"),
    "builtins.exec": lambda marker: Call(exec, marker.code),
    "io.open": lambda marker: Call(open, str(marker.path), "w"),
    "subprocess.Popen": lambda marker: Call(subprocess.Popen, ["touch", str(marker.path)]),
    "shutil.copy": lambda marker: Call(shutil.copy, __file__, str(marker.path)),
    "torch.serialization.save": lambda marker: Call(torch.serialization.save, [], str(marker.path)),
    "torch.hub.load": lambda marker: Call(torch.hub.load, str(marker.path.parent), "x"),
    "torch.storage._load_from_bytes": lambda marker: Call(torch.storage._load_from_bytes, b"x"),
    "functools.partial": lambda marker: Call(functools.partial, os.system, marker.command),
    "builtins.getattr": lambda marker: Call(getattr, nn.Identity(), "train"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("refused", ATTACKS)
def test_a_call_in_a_file_is_refused_by_name_and_does_not_run(refused, legacy, marker, pt):
    save({"model": nn.Identity(), "extra": ATTACKS[refused](marker)}, pt, legacy=legacy)
    with pytest.raises(CheckpointError, match=refused.replace(".", r"\.")) as caught:
        read_checkpoint(pt)
    message = str(caught.value)
    assert message.startswith(f"{pt}: refused")
    assert "--trust" in message
    assert "\n" not in message


def test_a_class_with_reduce_cannot_run_where_a_tensor_should_be(marker, pt):
    model = tiny_detector()
    model.stride = Call(os.system, marker.command)
    with pytest.raises(CheckpointError, match="system"):
        load_model(save({"model": model}, pt))


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("models.common", "torch.hub.load"),
        ("models.common", "nn"),
        ("models.common", "AutoShape"),
        ("models.common", "DetectMultiBackend"),
        ("models.common", "autopad"),
        ("models.yolo", "DetectionModel.forward"),
        ("models.yolo.DetectionModel", "forward"),
        ("models.yolo", "Path"),
        ("torch.nn.modules.module", "torch.load"),
        ("torch.nn.modules.module", "warnings"),
        ("torch.nn.modules.no_such_thing", "X"),
        ("torch", "load"),
        ("torch", "float32.__class__"),
        ("torch.jit", "load"),
        ("collections", "OrderedDict.__class__"),
        ("argparse", "_sys.modules"),
        ("numpy", "load"),
        ("pathlib", "Path"),
        ("builtins", "__import__"),
        ("builtins", "type"),
        ("copyreg", "_reconstructor"),
        ("operator", "attrgetter"),
        ("__main__", "anything"),
        ("", "os.system"),
    ],
)
def test_no_name_reaches_beyond_the_allow_list(module, attribute, pt):
    with pytest.raises(CheckpointError, match="refused, because it names"):
        read_checkpoint(write_archive(pt, program(name(module, attribute))))


@pytest.mark.parametrize(("bases", "origin"), [((), "models.common"), ((nn.Module,), "evil")])
def test_a_class_from_elsewhere_does_not_come_in_through_the_tree(bases, origin, pt, monkeypatch):
    monkeypatch.setattr(models.common, "Evil", type("Evil", bases, {"__module__": origin}), raising=False)
    with pytest.raises(CheckpointError, match=r"names models\.common\.Evil"):
        read_checkpoint(write_archive(pt, program(name("models.common", "Evil"))))


def test_a_name_in_a_file_is_not_imported(tmp_path, pt, monkeypatch, marker):
    (tmp_path / "evil.py").write_text(marker.code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("evil", "torch.nn.modules.evil", "models.evil"):
        with pytest.raises(CheckpointError, match="evil"):
            read_checkpoint(write_archive(pt, program(name(module, "X"))))


EMPTY_CONV = name("models.common", "Conv") + EMPTY_TUPLE + pickle.NEWOBJ
EMPTY_MODEL = name("models.yolo", "Model") + EMPTY_TUPLE + pickle.NEWOBJ
GETATTR = name("builtins", "getattr")


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + REDUCE


TABLES = b"".join(text(table) + EMPTY_DICT for table in ("_modules", "_parameters", "_buffers"))


def with_state(target: bytes, *state: bytes) -> bytes:
    return target + EMPTY_DICT + pickle.MARK + b"".join(state) + pickle.SETITEMS + pickle.BUILD


def with_module_state(module: bytes, *state: bytes) -> bytes:
    return with_state(module, TABLES, *state)


FORBIDDEN = {
    "call a module": call(EMPTY_CONV, text("an image")),
    "call a model": call(EMPTY_MODEL, text("yolov5s.yaml")),
    "construct a model": call(name("models.yolo", "Model"), text("yolov5s.yaml")),
    "construct a layer": call(name("torch.nn.modules.activation", "SiLU"), text("yes")),
    "get a model's forward": call(GETATTR, name("models.yolo", "Model"), text("forward")),
    "get a constructor": call(GETATTR, name("models.yolo", "Detect"), text("__init__")),
    "get what a recipe calls": call(GETATTR, name("collections", "OrderedDict"), text("make")),
    "get a class": call(GETATTR, EMPTY_CONV, text("__class__")),
    "get a method": call(GETATTR, EMPTY_CONV, text("apply")),
    "call a fused forward": call(call(GETATTR, EMPTY_CONV, text("forward_fuse")), text("an image")),
    "call a head's forward": call(call(GETATTR, name("models.yolo", "Detect"), text("forward")), text("an image")),
    "change a class": with_state(name("models.common", "Conv"), text("forward"), text("x")),
    "change a constructor": with_state(name("argparse", "Namespace"), text("__init__"), text("x")),
    "change a function": with_state(name("torch._utils", "_rebuild_tensor_v2"), text("x"), text("x")),
    "append by a model": with_module_state(EMPTY_CONV, text("append"), EMPTY_MODEL) + text("x") + pickle.APPEND,
    "extend by a model": with_module_state(EMPTY_CONV, text("extend"), EMPTY_MODEL)
    + pickle.MARK
    + text("x")
    + pickle.APPENDS,
    "add by a model": with_module_state(EMPTY_CONV, text("add"), EMPTY_MODEL)
    + pickle.MARK
    + text("x")
    + pickle.ADDITEMS,
    "append to a module": EMPTY_CONV + text("x") + pickle.APPEND,
    "extend a module": EMPTY_CONV + pickle.MARK + text("x") + pickle.APPENDS,
    "add to a module": EMPTY_CONV + pickle.MARK + text("x") + pickle.ADDITEMS,
    "set an item of a module": EMPTY_CONV + text("key") + text("value") + pickle.SETITEM,
    "set items of a module": EMPTY_CONV + pickle.MARK + text("key") + text("value") + pickle.SETITEMS,
    "a dictionary of a module": call(name("collections", "OrderedDict"), EMPTY_MODEL),
    "a set of a module": call(name("builtins", "set"), EMPTY_MODEL),
    "keys by a model": with_state(call(name("collections", "OrderedDict")), text("keys"), EMPTY_MODEL),
    "replace a method": with_module_state(EMPTY_CONV, text("float"), EMPTY_MODEL),
    "replace forward": with_module_state(EMPTY_CONV, text("forward"), call(GETATTR, EMPTY_CONV, text("forward_fuse"))),
    "replace submodules": with_module_state(EMPTY_CONV, text("_modules"), EMPTY_MODEL),
    "a module without tables": with_state(EMPTY_CONV, text("training"), pickle.NEWTRUE),
    "bytes of a module": call(name("_codecs", "encode"), EMPTY_MODEL, text("latin1")),
    "a tensor of a module": call(name("torch._utils", "_rebuild_tensor_v3"), EMPTY_MODEL, text("x")),
    "a parameter of a module": call(name("torch._utils", "_rebuild_parameter"), EMPTY_MODEL, text("x")),
    "a number of a module": call(name("numpy._core.multiarray", "scalar"), EMPTY_MODEL, text("x")),
    "another encoding": call(name("_codecs", "encode"), text("x"), text("idna")),
    "an array of objects": call(name("numpy", "dtype"), text("O8")),
    "construct by another opcode": pickle.MARK + name("collections", "OrderedDict") + pickle.OBJ,
    "an extension": pickle.EXT1 + b"\x01",
}


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_no_combination_of_opcodes_calls_anything_but_a_recipe(attempt, pt, monkeypatch):
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("a module was called"))
    monkeypatch.setattr(DetectionModel, "__init__", lambda *_: pytest.fail("a model was constructed"))
    with pytest.raises(CheckpointError, match="refused, because it"):
        read_checkpoint(write_archive(pt, program(FORBIDDEN[attempt])))


def test_hooks_in_a_file_are_left_out(pt):
    model = tiny_detector()
    model.register_forward_hook(nn.Identity())
    loaded = load_model(save({"model": model}, pt))
    assert not loaded._forward_hooks


def storage_id(key: bytes, count: bytes = pickle.BININT1 + b"\x01") -> bytes:
    parts = text("storage") + name("torch", "FloatStorage") + key + text("cpu") + count
    return pickle.MARK + parts + pickle.TUPLE + pickle.BINPERSID


@pytest.mark.parametrize("part", ["key", "kind", "count"])
def test_a_pickle_inside_a_storage_reference_does_not_run(part, marker, pt):
    nested = pickle.dumps(Call(os.system, marker.command), 4)
    as_bytes = pickle.BINBYTES + len(nested).to_bytes(4, "little") + nested
    references = {
        "key": storage_id(as_bytes),
        "kind": as_bytes + pickle.BINPERSID,
        "count": storage_id(text("0"), as_bytes),
    }
    with pytest.raises(CheckpointError):
        read_checkpoint(write_archive(pt, program(references[part]), **{"data/0": nested}))


def test_a_storage_reference_that_calls_is_refused(marker, pt):
    attack = call(name("os", "system"), text(marker.command))
    with pytest.raises(CheckpointError, match=r"os\.system"):
        read_checkpoint(write_archive(pt, program(storage_id(attack))))


@pytest.mark.parametrize("position", range(3))
def test_every_pickle_of_the_legacy_format_is_data(position, marker, pt):
    pickles = [{"little_endian": True}, {"model": nn.Identity()}, []]
    pickles[position] = Call(os.system, marker.command)
    with pytest.raises(CheckpointError, match=r"system"):
        read_checkpoint(write_legacy(pt, *(pickle.dumps(each, 2) for each in pickles)))


def test_a_legacy_file_cannot_ask_for_more_memory_than_it_has(pt):
    reference = ("storage", torch.FloatStorage, "0", "cpu", 1 << 50, None)
    pid = pickle.dumps(reference, 2)[2:-1] + pickle.BINPERSID + pickle.STOP
    with pytest.raises(CheckpointError, match="does not fit"):
        read_checkpoint(write_legacy(pt, pickle.dumps({"little_endian": True}, 2), b"\x80\x02" + pid))


def test_a_tensor_cannot_reach_beyond_its_storage(pt):
    content = program(
        call(
            name("torch._utils", "_rebuild_tensor_v2"),
            storage_id(text("0")),
            pickle.BININT1 + b"\x00",
            pickle.BININT1 + b"\x63" + pickle.TUPLE1,
            pickle.BININT1 + b"\x01" + pickle.TUPLE1,
        )
    )
    with pytest.raises(CheckpointError, match="out of bounds"):
        read_checkpoint(write_archive(pt, content, **{"data/0": bytes(4)}))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_archive_is_not_run(pt):
    torch.jit.save(torch.jit.trace(nn.Identity(), torch.zeros(1)), pt)
    for trust in (False, True):
        with pytest.raises(
            CheckpointError, match=r"TorchScript.*a program that can write files.*\.torchscript and --trust"
        ):
            read_checkpoint(pt, trust=trust)


# Files that are no checkpoint, or not whole.


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0001, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_called_cut_short(share, legacy, pt):
    whole = save({"model": tiny_detector()}, pt, legacy=legacy).read_bytes()
    pt.write_bytes(whole[: max(int(len(whole) * share), 1)])
    with pytest.raises(CheckpointError, match=r"best\.pt is cut short or damaged"):
        load_model(pt)


def test_flipped_bytes_are_called_damage(pt):
    whole = bytearray(save({"model": tiny_detector()}, pt).read_bytes())
    middle = whole.rfind(b"data/0") - len(whole) // 2
    whole[middle] ^= 0xFF
    pt.write_bytes(whole)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(pt)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); download or copy it again"),
        (b"epoch,loss\n1,0.5\n", "is no PyTorch checkpoint; give"),
        (jpeg(), "is no PyTorch checkpoint: it is a JPEG image"),
        (b"<!DOCTYPE html><title>Not Found</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_named(content, message, pt):
    pt.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^{pt} {message}" if message.startswith("is") else message):
        load_model(pt)


def test_a_zip_without_a_pickle_is_no_checkpoint(pt):
    with zipfile.ZipFile(pt, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(CheckpointError, match="is a zip archive, but no checkpoint"):
        load_model(pt)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        load_model(tmp_path / "none.pt")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(CheckpointError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights, "epoch": 3}])
def test_weights_without_a_model_say_so(wrap, pt):
    with pytest.raises(CheckpointError, match="state_dict"):
        load_model(save(wrap(tiny_detector().state_dict()), pt))


def test_a_dictionary_without_a_model_lists_its_entries(pt):
    with pytest.raises(CheckpointError, match="its entries: epoch, date"):
        load_model(save({"epoch": 1, "date": "today"}, pt))
    with pytest.raises(CheckpointError, match="holds a list"):
        load_model(save([1, 2], pt))


def make_block(module: str) -> type[nn.Module]:
    """Return a block that is defined in a module of that name, as the pickle sees it."""

    class Doubling(nn.Module):
        def forward(self, x):
            return 2 * x

    Doubling.__module__, Doubling.__qualname__ = module, "Doubling"
    return Doubling


@pytest.fixture
def save_block(monkeypatch, pt):
    """Save a module whose class is there while it is saved, and not afterwards."""

    def save_block_of(module):
        block = make_block(module)
        with monkeypatch.context() as patch:
            place = sys.modules.get(module) or types.ModuleType(module)
            patch.setitem(sys.modules, module, place)
            patch.setattr(place, "Doubling", block, raising=False)
            save({"model": nn.Sequential(block())}, pt)
        return block

    return save_block_of


@pytest.mark.parametrize("module", ["models.common", "models.my_blocks", "__main__"])
def test_an_unknown_block_is_named_and_loads_once_it_is_in_models_common(module, save_block, pt, monkeypatch):
    block = save_block(module)
    with pytest.raises(CheckpointError, match=rf"{module}\.Doubling.*add the class Doubling to models/common\.py"):
        read_checkpoint(pt)
    block.__module__ = "models.common"
    monkeypatch.setattr(models.common, "Doubling", block, raising=False)
    assert read_checkpoint(pt)["model"](torch.ones(1)) == 2


def test_a_checkpoint_of_the_ultralytics_package_says_so(save_block, pt):
    save_block("ultralytics")
    with pytest.raises(CheckpointError, match="YOLOv8"):
        load_model(pt)


def test_trust_unpickles_fully(save_block, pt, monkeypatch):
    block = save_block("my_project")
    with pytest.raises(CheckpointError, match=r"my_project\.Doubling"):
        read_checkpoint(pt)
    with pytest.raises(CheckpointError, match="needs code that is not here"):
        read_checkpoint(pt, trust=True)
    place = types.ModuleType("my_project")
    place.Doubling = block
    monkeypatch.setitem(sys.modules, "my_project", place)
    assert read_checkpoint(pt, trust=True)["model"](torch.ones(1)) == 2


# What comes back.


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("trust", [False, True], ids=["safe", "trusted"])
def test_a_checkpoint_predicts_the_same_after_reload(legacy, trust, pt):
    model = tiny_detector()
    model.names = {0: "cat", 1: "dog", 2: "bus"}
    expected = predict(model)
    loaded = load_model(save({"model": model.train(), "ema": None}, pt, legacy=legacy), trust=trust)
    assert torch.equal(predict(loaded), expected)
    assert loaded.names == model.names
    assert torch.equal(loaded.stride, model.stride)
    assert not loaded.training


def test_a_segmentation_model_predicts_the_same_after_reload(pt):
    model = tiny_segmenter()
    loaded = load_model(save({"model": model}, pt))
    assert torch.equal(predict(loaded), predict(model))
    assert loaded.model[-1].detect is Detect.forward


def test_a_fused_model_predicts_the_same_after_reload(pt):
    model = tiny_detector().fuse()
    assert torch.equal(predict(load_model(save({"model": model}, pt))), predict(model))


def test_a_bare_module_loads(pt):
    model = tiny_detector()
    assert torch.equal(predict(load_model(save(model, pt))), predict(model))


def test_the_averaged_weights_come_first(pt):
    model, ema = tiny_detector(seed=1), tiny_detector(seed=2)
    loaded = load_model(save({"model": model, "ema": ema}, pt))
    assert torch.equal(predict(loaded), predict(ema))


def test_half_precision_becomes_float(pt):
    model = tiny_detector()
    loaded = load_model(save({"model": model.half()}, pt))
    assert {each.dtype for each in loaded.parameters()} == {torch.float32}
    assert loaded.stride.dtype == loaded.model[-1].stride.dtype == torch.float32
    assert torch.equal(predict(loaded), predict(model.float()))


def test_shared_tensors_stay_shared(pt):
    shared = nn.Linear(2, 2)
    loaded = read_checkpoint(save(nn.ModuleList([shared, nn.Sequential(shared)]), pt))["model"]
    loaded[0].weight.data.fill_(7)
    assert loaded[1][0].weight[0, 0] == 7


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_of_every_kind_come_back(legacy, pt):
    tensors = {
        "views": torch.arange(12.0).view(3, 4).t()[1:, ::2],
        "empty": torch.empty(0, 5),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "bfloat": torch.ones(2, dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]),
        "uint16": torch.tensor([1, 2, 3]).to(torch.uint16),
        "trained": nn.Parameter(torch.ones(2)),
    }
    loaded = read_checkpoint(save(tensors, pt, legacy=legacy))
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype
        assert loaded[key].stride() == tensor.stride()
        assert torch.equal(loaded[key], tensor)
    assert isinstance(loaded["trained"], nn.Parameter)
    assert loaded["trained"].requires_grad


def test_what_training_writes_beside_the_model_comes_back(pt):
    options = argparse.Namespace(
        weights=Call(pathlib.WindowsPath, "C:\\", "runs", "best.pt"), data=pathlib.PurePosixPath("a/b")
    )
    entries = {
        "model": tiny_detector(),
        "epoch": 7,
        "best_fitness": np.array([0.25]),
        "fitness": np.float64(0.5),
        "counts": np.arange(6, dtype=">i4").reshape(2, 3),
        "optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1).state_dict(),
        "opt": options,
        "date": datetime.datetime(2024, 5, 6),
        "kept": {1, 2},
    }
    loaded = read_checkpoint(save(entries, pt))
    assert loaded["best_fitness"].tolist() == [0.25]
    assert loaded["fitness"] == 0.5
    assert loaded["counts"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded["opt"].weights == pathlib.PureWindowsPath("C:/runs/best.pt")
    assert loaded["opt"].data == pathlib.PurePosixPath("a/b")
    assert loaded["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert {loaded[key] == entries[key] for key in ("epoch", "date", "kept")} == {True}


def test_a_path_of_another_system_loads_with_trust_too(pt):
    loaded = read_checkpoint(save({"opt": Call(pathlib.WindowsPath, "C:\\", "runs")}, pt), trust=True)
    assert loaded["opt"] == pathlib.PureWindowsPath("C:/runs")


@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])
def test_paths_of_old_and_new_pythons_load(module):
    data = pickle.dumps(Call(pathlib.WindowsPath, "C:\\", "runs"), 2).replace(b"cpathlib\n", b"c" + module + b"\n")
    assert DataUnpickler(io.BytesIO(data)).load() == pathlib.PureWindowsPath("C:/runs")


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numbers_of_old_and_new_numpy_load(core):
    data = pickle.dumps([np.float64(0.5), np.array([1.5])], 2).replace(b"numpy._core", core)
    assert DataUnpickler(io.BytesIO(data)).load() == [0.5, np.array([1.5])]


def test_a_loaded_array_is_saved_as_a_plain_one():
    loaded = DataUnpickler(io.BytesIO(pickle.dumps(np.array([1.5]), 2))).load()
    assert type(pickle.loads(pickle.dumps(loaded))) is np.ndarray


def test_tensors_loaded_under_inference_mode_take_gradients(pt):
    save({"model": tiny_detector().half()}, pt)
    with torch.inference_mode():
        model = load_model(pt)
    image = IMAGE.clone().requires_grad_()
    model(image)[0].sum().backward()
    assert image.grad.abs().sum() > 0


# Checkpoints of older versions.


def age_to_v6_1(model):
    """The class is called Model, names are a list, half precision."""
    model.names = ["cat", "dog", "bus"]
    return model.half()


def age_to_v6_0(model):
    """Also no recompute_scale_factor, and stale grids with another offset than today's."""
    for module in model.modules():
        module.__dict__.pop("recompute_scale_factor", None)
    head = model.model[-1]
    head.grid = [torch.full((1, 3, 8, 12, 2), 9.0) for _ in head.grid]
    head.anchor_grid = [torch.full((1, 3, 8, 12, 2), 9.0) for _ in head.grid]
    return age_to_v6_1(model)


def age_to_v5_0(model):
    """Also anchor_grid as a buffer, and no `inplace` anywhere."""
    model = age_to_v6_0(model)
    head = model.model[-1]
    del head.anchor_grid
    head.register_buffer("anchor_grid", torch.ones(head.nl, 1, head.na, 1, 1, 2).half())
    for module in model.modules():
        module.__dict__.pop("inplace", None)
    return model


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("age", [age_to_v5_0, age_to_v6_0, age_to_v6_1])
def test_a_checkpoint_of_an_older_version_predicts_as_before(age, legacy, pt, monkeypatch):
    expected = predict(tiny_detector().half().float())
    with called(DetectionModel, "Model"), monkeypatch.context() as patch:
        patch.setattr(Detect, "__getstate__", lambda self: dict(self.__dict__))
        save({"epoch": -1, "model": age(deepcopy(tiny_detector())), "ema": None}, pt, legacy=legacy)
    assert b"models.yolo\nModel\n" in pt.read_bytes()
    loaded = load_model(pt)
    assert torch.equal(predict(loaded), expected)
    assert loaded.names == {0: "cat", 1: "dog", 2: "bus"}
    assert isinstance(loaded.model[-1].anchor_grid, list)
    assert all(hasattr(module, "inplace") for module in loaded.modules() if isinstance(module, (nn.SiLU, Detect)))


class OldHead(nn.Module):
    """A head without the methods that today's Detect repairs itself with."""

    def __init__(self):
        super().__init__()
        self.nc, self.nl, self.na = 2, 1, 1
        self.register_buffer("anchors", torch.ones(1, 1, 2))
        self.register_buffer("anchor_grid", torch.ones(1, 1, 1, 1, 1, 2))

    def forward(self, x):
        assert self.training, "strides are measured on what the head gives in training"
        return [torch.nn.functional.avg_pool2d(x, 16)]


class OldModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.yaml = nn.Sequential(OldHead()), {"ch": 1}

    def forward(self, x):
        return self.model(x)


def test_missing_attributes_are_filled_in():
    model = repair(OldModel())
    head = model.model[-1]
    assert model.nc == 2
    assert model.names == {0: "class0", 1: "class1"}
    assert model.stride.tolist() == head.stride.tolist() == [16.0]
    assert model.inplace
    assert head.inplace
    assert [grid.numel() for grid in (*head.anchor_grid, *head.grid)] == [0, 0]
    assert "anchor_grid" not in dict(head.named_buffers())


def test_an_upsample_without_recompute_scale_factor_works():
    layer = nn.Upsample(scale_factor=2)
    del layer.__dict__["recompute_scale_factor"]
    assert repair(nn.Sequential(layer))[0](torch.ones(1, 1, 2, 2)).shape == (1, 1, 4, 4)


def test_the_reader_works_without_a_tree_until_a_file_needs_one():
    code = (
        "import sys; import explainer.checkpoints.checkpoint; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'models', 'utils', 'cv2', 'torchvision'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
