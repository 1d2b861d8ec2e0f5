"""Read checkpoints of YOLOv5, and of the ultralytics package, safely: a `.pt` is data, not a program.

    model = load_model("best.pt")          # repaired, float32, in evaluation mode
    entries = read_checkpoint("last.pt")   # everything in it: epoch, optimizer, opt, ...

A checkpoint is either a zip archive (torch 1.6 and later) with the object as a pickle in `data.pkl` and the numbers in
`data/0`, `data/1`, ..., or, before that, five pickles in a row with the numbers behind. Both are read here, without
`torch.load`: it would hand a TorchScript archive to another reader, unpack tar files, and obey environment variables.
"""

import io
import pickle
import struct
import sys
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from explainer.checkpoints.allowed import PATHS, RefusedError, RefusedNameError, check_kind
from explainer.checkpoints.repair import check_layers, check_modules, repair, try_out
from explainer.checkpoints.ultralytics import RefusedPartError, is_of_ultralytics
from explainer.checkpoints.unpickling import NOT_DATA, DataUnpickler
from explainer.errors import UsageError

ZIP_START = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LEGACY_START = pickle.dumps(LEGACY_MAGIC, protocol=2)[:13]
OTHER_STARTS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"<": "a web page, perhaps a failed download",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
}
# What reading damaged bytes as zip, pickle or tensor ends in.
DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CheckpointError(UsageError):
    """A checkpoint that cannot be used: one line with the file, what is wrong with it and what to do."""


def load_model(path: str | Path, *, trust: bool = False, fuse: bool = False, ultralytics: bool = False) -> nn.Module:
    """Return the model in a checkpoint, on the CPU, in float32 and evaluation mode, with old formats brought up to date.

    The averaged weights (`ema`) are taken where the file has them, else `model`. A model that detects has read one small
    black image when it comes back. `trust` and `ultralytics` are those of `read_checkpoint`; `fuse` merges convolutions with
    their normalisation.

    Raises:
        CheckpointError: if the file cannot be read, or holds no model, or one that does not work.
    """
    entries = read_checkpoint(path, trust=trust, ultralytics=ultralytics)
    found = (entries[key] for key in ("ema", "model") if entries.get(key) is not None)
    model = next(found, None)
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{path}: {_what_instead(entries)}")
    # Tensors made under inference mode would refuse gradients for good.
    remedy = "give a checkpoint that train.py saved"
    named = _named(path, "holds a model that does not work", remedy, advice=lambda error: remedy)
    with named, torch.inference_mode(False), torch.no_grad():
        check_modules(model, Path(path).stat().st_size)
        check_layers(model)
        repaired = repair(model, str(path))
        if fuse and hasattr(repaired, "fuse"):
            how = {"verbose": False} if is_of_ultralytics(repaired) else {}
            repaired = repaired.fuse(**how).eval()
        try_out(repaired)
    return repaired


@contextmanager
def _named(
    path: str | Path, fault: str, remedy: str, advice: Callable[[RefusedError], str] | None = None
) -> Iterator[None]:
    """Turn what goes wrong inside with what a file holds into a CheckpointError: the file, its fault and the remedy.

    advice: what to do about something that is refused; by default to trust the file, where that helps.
    """
    try:
        yield
    except CheckpointError:
        raise
    except RefusedError as error:
        raise CheckpointError(f"{path}: refused, because it {error}: {(advice or _advice)(error)}") from error
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointError(f"{path} {fault} ({reason}); {remedy}") from error


def _what_instead(entries: dict[str, Any]) -> str:
    """Say what a checkpoint without a model holds."""
    if any(_is_state_dict(each) for each in (entries, entries.get("model"), entries.get("state_dict"))):
        return (
            "holds weights alone (a state_dict) and not the model they belong to; "
            "give the file that train.py saves, or save {'model': model} with the weights loaded"
        )
    keys = ", ".join(map(str, entries)) or "none"
    return f"holds no model (its entries: {keys}); give a checkpoint that train.py saved"


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def read_checkpoint(path: str | Path, *, trust: bool = False, ultralytics: bool = False) -> dict[str, Any]:
    """Return the entries of a checkpoint as they were saved, on the CPU: model, ema, epoch, optimizer, opt, names, ...

    A file that holds a bare model gives {"model": model}. Paths of the machine that trained come as pure paths.

    Args:
        path: a `.pt` file of any YOLOv5 version.
        ultralytics: take the modules of detectors of the ultralytics package, too, which is imported for them.
        trust: unpickle whatever the file says, which can run any program: for files you made yourself.

    Raises:
        CheckpointError: if the file is missing, empty, damaged, no checkpoint, or names a class that is not allowed.
    """
    path = Path(path)
    with _opened(path) as file, torch.inference_mode(False):
        read = _read_trusting if trust else _reader_for(path, file)
        with _named(path, "is cut short or damaged", "download or copy it again"):
            content = read(path, file, ultralytics)
    if isinstance(content, nn.Module):
        return {"model": content}
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; give a checkpoint that train.py saved")
    return dict(content)


def _opened(path: Path) -> BinaryIO:
    """Return the file opened for reading."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the .pt file inside it")
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; check the path of the weights") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened: {error.strerror}") from error


def _reader_for(path: Path, file: BinaryIO) -> Callable[[Path, BinaryIO, bool], Any]:
    """Return the function that reads this kind of file, told by its first bytes."""
    start = file.read(64)
    file.seek(0)
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again")
    for known, read in ((ZIP_START, _read_zip), (LEGACY_START, _read_legacy)):
        # Also files that were cut off after a byte or two.
        if start.startswith(known) or known.startswith(start):
            return read
    other = next((f": it is {what}" for begin, what in OTHER_STARTS.items() if start.startswith(begin)), "")
    raise CheckpointError(f"{path} is no PyTorch checkpoint{other}; give a .pt file that YOLOv5 saved")


def _advice(error: RefusedError) -> str:
    """Say what to do about a file that asks for more than data."""
    trust = "--trust (trust=True) unpickles fully, for files you made yourself"
    if not isinstance(error, RefusedNameError):
        return trust
    if isinstance(error, RefusedPartError):
        return error.advice
    package = error.module.split(".")[0]
    if package == "ultralytics":
        return "it was saved by the ultralytics package (YOLOv8 or later), not by YOLOv5; give a YOLOv5 checkpoint"
    if error.name in NOT_DATA:
        return "give a checkpoint of the model inside it, its attribute `model`"
    if package in ("models", "utils", "__main__"):
        return f"this tree has no such block; add the class {error.name} to models/common.py, or {trust}"
    return f"a model needs no such thing, and reading it could run a program; {trust}"


def _read_zip(path: Path, file: BinaryIO, ultralytics: bool) -> Any:
    """Read the format of torch 1.6 and later."""
    with zipfile.ZipFile(file) as archive:
        folder = _find_folder(path, archive)
        members = Members(archive, path.stat().st_size)
        order = members.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        _check_byte_order(path, order == b"little")
        data = io.BytesIO(members.read(f"{folder}data.pkl"))
        storages = ZipStorages(members, folder)
        return DataUnpickler(data, storages, path.stat().st_size, ultralytics=ultralytics).load()


def _find_folder(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the folder of the archive that everything is in."""
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript model, which is a program that can write files; one that you made yourself runs "
            "when its name ends in .torchscript and --trust (trust=True) is given"
        )
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise CheckpointError(f"{path} is a zip archive, but no checkpoint; give a .pt file that YOLOv5 saved")
    return folders[0]


def _check_byte_order(path: Path, is_little: bool) -> None:
    if is_little != (sys.byteorder == "little"):
        raise CheckpointError(f"{path} was saved on a machine of the other byte order; save it again on one like this")


class Members:
    """The members of a zip archive, all of which together cannot be larger than the archive.

    torch stores them as they are. Others can be small and grow, or be one stretch of the file under many names.
    """

    def __init__(self, archive: zipfile.ZipFile, file_size: int):
        self._archive, self._left = archive, file_size

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        member = self._archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            raise RefusedError("is compressed inside, which torch.save does not do")
        self._left -= member.file_size
        if self._left < 0:
            raise RefusedError("claims more bytes than the file has")
        return self._archive.read(member)


class ZipStorages:
    """The numbers in a zip archive, as flat tensors; one that is asked for twice is shared."""

    def __init__(self, members: Members, folder: str):
        self._members, self._folder = members, folder
        self._bytes: dict[str, Tensor] = {}

    def __call__(self, pid: Any) -> Tensor:
        """Return the storage that the persistent id ("storage", dtype, key, device, count) names."""
        kind, dtype, key, _, count = pid
        check_reference(kind, key, count)
        if key not in self._bytes:
            self._bytes[key] = _make_bytes(self._members.read(f"{self._folder}data/{key}"))
        storage = self._bytes[key].view(dtype)
        if len(storage) != count:
            raise pickle.UnpicklingError(f"storage {key} has {len(storage)} numbers instead of {count}")
        return storage


def check_reference(kind: Any, key: Any, count: Any) -> None:
    """Refuse a persistent id that is not a plain reference to a storage."""
    if kind != "storage" or type(key) is not str or type(count) is not int:
        raise RefusedError("refers to something that is no storage")


def _make_bytes(data: bytes) -> Tensor:
    """Return a flat uint8 tensor with memory of its own."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _read_legacy(path: Path, file: BinaryIO, ultralytics: bool) -> Any:
    """Read the format before torch 1.6: magic number, version, machine, object, storage keys; then the numbers."""
    magic, version, machine = (DataUnpickler(file).load() for _ in range(3))
    if magic != LEGACY_MAGIC or version != LEGACY_VERSION:
        raise pickle.UnpicklingError(f"unknown format version {version}")
    _check_byte_order(path, machine["little_endian"])
    storages = LegacyStorages(path.stat().st_size)
    content = DataUnpickler(file, storages, path.stat().st_size, ultralytics=ultralytics).load()
    keys = DataUnpickler(file).load()
    check_kind(keys, list, "the order of the storages")
    for key in keys:
        storages.fill(key, file)
    storages.check_filled()
    return content


class LegacyStorages:
    """The numbers behind the pickles: flat tensors that are given out first and filled later."""

    def __init__(self, file_size: int):
        self._left = file_size
        self._storages: dict[str, Tensor] = {}
        self._filled: set[str] = set()

    def __call__(self, pid: Any) -> Any:
        """Return the storage, or the class, that the persistent id names.

        It is ("storage", dtype, key, device, count, part or None) with the part (key, first, count), or
        ("module", class, file, source text).
        """
        kind, *rest = pid
        if kind == "module":
            return rest[0]
        dtype, key, _, count, part = rest
        check_reference(kind, key, count)
        if key not in self._storages:
            self._storages[key] = self._reserve(dtype, count)
        storage = self._storages[key]
        return storage if part is None else storage[part[1] : part[1] + part[2]]

    def _reserve(self, dtype: torch.dtype, count: int) -> Tensor:
        """Return an empty storage; all of them together cannot be larger than the file."""
        storage = torch.empty(0, dtype=dtype)
        self._left -= count * storage.element_size()
        if count < 0 or self._left < 0:
            raise EOFError(f"a storage of {count} numbers does not fit into the file")
        return storage.new_empty(count)

    def fill(self, key: str, file: BinaryIO) -> None:
        """Read the numbers of one storage, with their count before them."""
        storage = self._storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        data = file.read(len(storage) * storage.element_size())
        if count != len(storage) or len(data) != len(storage) * storage.element_size():
            raise EOFError(f"storage {key} has not its {len(storage)} numbers")
        storage.view(torch.uint8).copy_(_make_bytes(data))
        self._filled.add(key)

    def check_filled(self) -> None:
        """Raise EOFError for a storage without numbers: it would hold what was in the memory before."""
        if missing := self._storages.keys() - self._filled:
            raise EOFError(f"there are no numbers for {len(missing)} storages")


def _read_trusting(path: Path, file: BinaryIO, ultralytics: bool) -> Any:
    """Read a file with torch's own reader, which runs what the file says."""
    _reader_for(path, file)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            _find_folder(path, archive)
    file.seek(0)
    # torch asks for a module; paths of another system are all that is replaced in it.
    reader = types.SimpleNamespace(__name__="pickle", Unpickler=_TrustingUnpickler, load=pickle.load)
    try:
        return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"{path} needs code that is not here ({error}); put it on the Python path") from error


class _TrustingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_path = module.split(".")[0] == "pathlib" and name in PATHS
        return PATHS[name] if is_path else super().find_class(module, name)
