"""Small checkpoints that would fill the memory, take years or end the process: each is refused at once, in one line."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from copy import deepcopy

import pytest
import torch
from forged import name, program, save, text, write_archive, write_legacy
from fresh_interpreter import IN_STOCK
from tiny_detectors import tiny_detector
from torch import nn

from explainer.checkpoints.allowed import check_keys
from explainer.checkpoints.checkpoint import CheckpointError, load_model, read_checkpoint
from explainer.checkpoints.unpickling import DataUnpickler
from models.yolo import Detect, DetectionModel

GIB = 1 << 30
DEEP = 500_000
NONE, TUPLE1, TUPLE2 = pickle.NONE, pickle.TUPLE1, pickle.TUPLE2


def keyed(key: bytes) -> bytes:
    """Return a dictionary with one entry."""
    return pickle.EMPTY_DICT + key + NONE + pickle.SETITEM


def whole(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def nested(function: bytes, core: bytes) -> bytes:
    """Return a call of a call of a call, ..., as deep as freeing it takes more stack than there is."""
    memo = function + pickle.BINPUT + b"\x00"
    return memo + (pickle.BINGET + b"\x00") * (DEEP - 1) + core + (TUPLE1 + pickle.REDUCE) * DEEP


RANGE, SLICE, INT = name("builtins", "range"), name("builtins", "slice"), name("builtins", "int")
ENDLESS = called(RANGE, whole(10**10))
LONG_TEXT = pickle.BINUNICODE + struct.pack("<I", 1_000_000) + b"x" * 1_000_000
STORAGE = (
    pickle.MARK + text("storage") + name("torch", "HalfStorage") + text("0") + text("cpu") + whole(1) + pickle.TUPLE
) + pickle.BINPERSID


def tensor(*sizes: bytes) -> bytes:
    """Return a tensor that repeats one number."""
    shape = pickle.MARK + b"".join(sizes) + pickle.TUPLE
    strides = pickle.MARK + whole(0) * len(sizes) + pickle.TUPLE
    return called(name("torch._utils", "_rebuild_tensor_v2"), STORAGE, whole(0), shape, strides)


BOMBS = {
    "a key nested a million deep": keyed(pickle.EMPTY_TUPLE + TUPLE1 * DEEP),
    "a key whose hash takes years": keyed(pickle.EMPTY_TUPLE + (pickle.DUP + TUPLE2) * 60),
    "a set of such a key": pickle.EMPTY_SET
    + pickle.MARK
    + pickle.EMPTY_TUPLE
    + (pickle.DUP + TUPLE2) * 60
    + pickle.ADDITEMS,
    "a frozen set of such a key": pickle.MARK + pickle.EMPTY_TUPLE + (pickle.DUP + TUPLE2) * 60 + pickle.FROZENSET,
    "a dictionary of such a key": pickle.MARK + pickle.EMPTY_TUPLE + (pickle.DUP + TUPLE2) * 60 + NONE + pickle.DICT,
    "an ordered dictionary of such a key": called(
        name("collections", "OrderedDict"),
        pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + (pickle.DUP + TUPLE2) * 60 + NONE + TUPLE2 + pickle.APPEND,
    ),
    "an entry of ten thousand million parts": called(
        name("collections", "OrderedDict"), pickle.EMPTY_LIST + ENDLESS + pickle.APPEND
    ),
    "a size of ten thousand million parts": called(name("torch", "Size"), ENDLESS),
    "arguments without end": name("argparse", "Namespace") + ENDLESS + pickle.REDUCE,
    "a long key": keyed(LONG_TEXT),
    "a slice of slices": nested(SLICE, NONE),
    "a number of many digits": called(INT, LONG_TEXT, whole(36)),
    "a number of many bytes": pickle.LONG4 + struct.pack("<i", 1000) + b"\x01" * 1000,
    "a number of more bytes than there are": pickle.LONG4 + struct.pack("<i", 2**31 - 1),
    "a claim of eight gigabytes": pickle.BYTEARRAY8 + struct.pack("<Q", 8 * GIB),
    "a claim of bytes": pickle.BINBYTES8 + struct.pack("<Q", 8 * GIB),
    "a frame of eight gigabytes": pickle.FRAME + struct.pack("<Q", 8 * GIB),
    "bytes made a thousand times over": LONG_TEXT
    + pickle.BINPUT
    + b"\x00"
    + pickle.POP
    + called(name("_codecs", "encode"), pickle.BINGET + b"\x00", text("latin1")) * 10_000,
    "more steps than any model": pickle.EMPTY_LIST * 3_000_000,
    "a tensor of zeroes without end": tensor(whole(5_000_000_000)),
    "ten thousand large tensors": tensor(whole(100_000_000)) * 100,
}
CHILD = """
import resource, sys, time
import torch
from explainer.checkpoints.checkpoint import CheckpointError, load_model
from explainer.errors import UsageError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
for path in sys.argv[2:]:
    start = time.monotonic()
    try:
        load_model(path)
        print("loaded")
    except CheckpointError as error:
        lines = str(error).splitlines()
        print(lines[0] if len(lines) == 1 and str(error).startswith(path) else f"not one line that names it: {lines}")
    # The peak that getrusage gives can be that of the process which started this one.
    (peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    print(f"{time.monotonic() - start:.1f} {peak >> 10}", flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return what a process of its own says to each bomb: the message, the seconds and the peak of its memory in MiB."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = [
        write_archive(folder / f"{i}.pt", program(bomb), **{"data/0": bytes(2)})
        for i, bomb in enumerate(BOMBS.values())
    ]
    paths += [write_legacy(folder / f"old{i}.pt", program(bomb)) for i, bomb in enumerate(BOMBS.values())]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(20 * GIB), *map(str, paths)], capture_output=True, text=True, timeout=200
    )
    lines = done.stdout.splitlines()
    pairs = list(zip(lines[::2], lines[1::2], strict=False))
    assert len(pairs) == len(paths), f"ended at {list(BOMBS)[len(pairs) % len(BOMBS)]}: {done.returncode} {done.stderr}"
    return [(message, *map(float, figures.split())) for message, figures in pairs]


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on the memory of a process as Linux does")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_would_fill_the_memory_is_refused_at_once(bomb, answers):
    index = list(BOMBS).index(bomb)
    for message, seconds, peak in (answers[index], answers[len(BOMBS) + index]):
        assert "refused, because it" in message or "is cut short or damaged" in message
        assert seconds < 20
        assert peak < 1500


def test_a_compressed_pickle_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program(pickle.EMPTY_DICT))
    with pytest.raises(CheckpointError, match="compressed inside"):
        read_checkpoint(path)


def test_a_member_that_claims_to_be_larger_than_the_archive_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program(pickle.EMPTY_DICT))
        member = archive.getinfo("archive/data.pkl")
        member.file_size = member.compress_size = 1 << 31
    with pytest.raises(CheckpointError, match="claims more bytes than the file has"):
        read_checkpoint(path)


def test_keys_that_all_have_one_place_in_a_dictionary_are_counted():
    same_place = [number * (2**61 - 1) for number in range(1 << 20, (1 << 20) + 20_000)]
    with pytest.raises(pickle.UnpicklingError, match="more large numbers as keys"):
        check_keys(same_place)
    assert check_keys([*range(100_000), "weight", None, True]) == 0


def test_a_deep_dictionary_with_a_default_is_freed_and_saved_as_a_plain_one():
    default = name("collections", "defaultdict") + pickle.BINPUT + b"\x00" + pickle.EMPTY_TUPLE + pickle.REDUCE
    more = text("x") + pickle.BINGET + b"\x00" + pickle.EMPTY_TUPLE + pickle.REDUCE
    deep = default + more * 200_000 + pickle.SETITEM * 200_000
    loaded = DataUnpickler(io.BytesIO(program(deep))).load()
    del loaded
    plain = DataUnpickler(io.BytesIO(program(default + text("x") + NONE + pickle.SETITEM))).load()
    assert repr(pickle.loads(pickle.dumps(plain))) == "defaultdict(None, {'x': None})"


def test_numbers_that_a_legacy_file_does_not_bring_are_missed(tmp_path):
    reference = pickle.MARK + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + whole(4)
    content = program(
        pickle.EMPTY_DICT + text("x") + reference + NONE + pickle.TUPLE + pickle.BINPERSID + pickle.SETITEM
    )
    path = write_legacy(tmp_path / "best.pt", pickle.dumps({"little_endian": True}, 2), content, pickle.dumps([], 2))
    with pytest.raises(CheckpointError, match="no numbers for 1 storages"):
        read_checkpoint(path)


def double(module: nn.Module, depth: int) -> nn.Module:
    """Return modules with two ways from each to the next: 2^depth from the first to the last."""
    for _ in range(depth):
        module = nn.Sequential(nn.Sequential(module), nn.Sequential(module))
    return module


def deep(depth: int) -> nn.Module:
    module = nn.Identity()
    for _ in range(depth):
        module = nn.Sequential(module)
    return module


def in_itself() -> nn.Module:
    module = nn.Sequential()
    module.append(module)
    return module


def in_many_places(numbers: int, places: int) -> nn.Module:
    module = nn.ModuleList(nn.Identity() for _ in range(places))
    buffer = torch.zeros(numbers, dtype=torch.half)
    for each in module:
        each.register_buffer("shared", buffer)
    return module


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: double(nn.Identity(), 40), "describes .* modules"),
        (lambda: deep(150), "inside each other without end"),
        (in_itself, "inside each other without end"),
        (lambda: in_many_places(1_000_000, 100), "with 100000000 numbers"),
    ],
)
def test_modules_that_take_for_ever_or_fill_the_memory_are_refused(make, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load_model(save({"model": make()}, tmp_path / "best.pt"))


@pytest.mark.parametrize("classes", [10**9, -5, "x", 2.5])
def test_a_count_of_classes_that_no_model_has_is_refused(classes, tmp_path):
    model = deepcopy(tiny_detector())
    del model.names
    model.model[-1].nc = classes
    with pytest.raises(CheckpointError, match=f"has {classes} classes"):
        load_model(save({"model": model}, tmp_path / "best.pt"))


@pytest.mark.parametrize("levels", [10**9, -1, "3", None])
def test_a_head_of_more_levels_than_any_is_refused(levels, tmp_path, monkeypatch):
    model = deepcopy(tiny_detector())
    model.model[-1].__dict__["nl"] = levels
    monkeypatch.setattr(Detect, "__getstate__", lambda self: dict(self.__dict__))
    with pytest.raises(CheckpointError, match=f"a head of {levels} levels"):
        load_model(save({"model": model}, tmp_path / "best.pt"))


@pytest.mark.parametrize("channels", [10**6, 0, "x"])
def test_images_of_more_channels_than_any_are_not_made(channels, tmp_path):
    model = deepcopy(tiny_detector())
    assert isinstance(model, DetectionModel)
    model.yaml = {"ch": channels}
    model.model[-1].__dict__["stride"] = None
    with pytest.raises(CheckpointError, match=f"images of {channels} channels" if not IN_STOCK else "does not work"):
        load_model(save({"model": model}, tmp_path / "best.pt"))
