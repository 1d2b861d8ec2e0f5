"""What a checkpoint may call while it is read: a fixed table from names to functions that only make data.

The functions stand in for those that the names mean elsewhere. They check the types of what they get, because even asking
an object for its keys, or for its text, can be a call. They check sizes too: a few bytes can ask for a key that takes years
to hash, or for an object so deep that freeing it ends the process.
"""

import argparse
import datetime
import pathlib
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Their names up to v5.0, and after.
FUSED_FORWARDS = ("fuseforward", "forward_fuse")
NUMBERS = re.compile(r"[biufcSU]\d{1,6}")
# Of an entry's key: parts of a tuple, characters of a text; models have neither many nor long ones.
MOST_PARTS, LONGEST_KEY = 16, 4096
# Keys below are spread well over a dictionary; of others so many can have one and the same place.
SMALL_NUMBER, MOST_ODD_KEYS = 1 << 20, 10_000
# Digits of a number that is given as text.
LONGEST_NUMBER = 100


class RefusedError(pickle.UnpicklingError):
    """The file does something that data does not do; the message goes on from "it"."""


class RefusedNameError(RefusedError):
    """The file names something that is not on the allow-list; `module` and `name` say what."""

    def __init__(self, module: str, name: str):
        super().__init__(f"names {module}.{name}")
        self.module, self.name = module, name


@dataclass(frozen=True)
class Recipe:
    """The one kind of thing that a pickle may call; `cls` is the module class it makes, where it makes one."""

    make: Callable[..., Any]
    cls: type[nn.Module] | None = None


def check_kind(value: Any, kinds: type | tuple[type, ...], what: str) -> None:
    """Raise RefusedError unless `value` is of one of the `kinds`; `what` is made of it otherwise."""
    if not isinstance(value, kinds):
        raise RefusedError(f"makes {what} of a {type(value).__name__}")


def check_key(key: Any) -> bool:
    """Return whether a file can choose where this key lies in a dictionary; RefusedError for what models have no keys of.

    Python computes the hash of a tuple anew each time, part by part and as deep as it goes.
    """
    parts = key if type(key) in (tuple, frozenset) else (key,)
    if len(parts) > MOST_PARTS:
        raise RefusedError(f"has a key of {len(parts)} parts")
    for part in parts:
        if type(part) in (str, bytes) and len(part) > LONGEST_KEY:
            raise RefusedError(f"has a key of {len(part)} characters")
        if part is not None and type(part) not in (str, bytes, bool, int, float, torch.dtype, Tensor, nn.Parameter):
            raise RefusedError(f"has a {type(part).__name__} in a key")
    small_number = type(key) is int and abs(key) < SMALL_NUMBER
    return not small_number and type(key) in (int, float, tuple, frozenset)


def check_keys(keys: list | tuple, most_odd: int = MOST_ODD_KEYS) -> int:
    """Check the keys of a container; return how many have a place that a file can choose, at most `most_odd`."""
    odd = sum(map(check_key, keys))
    if odd > most_odd:
        raise RefusedError("has more large numbers as keys than any model")
    return odd


def recipe_for_module(cls: type[nn.Module]) -> Recipe:
    """Return the recipe for a module without a state, which follows in the file."""
    return Recipe(partial(make_empty_module, cls), cls)


def make_empty_module(cls: type[nn.Module], *arguments: Any) -> nn.Module:
    """Return a module that nothing was done to; its __init__ is not for files to call."""
    if arguments:
        raise RefusedError(f"constructs a {cls.__name__}")
    return cls.__new__(cls)


def make_tensor(storage: Tensor, offset: int, size, stride, requires_grad: bool = False, *extra: Any) -> Tensor:
    """Return the view of a flat tensor that torch.save describes; torch checks that it stays inside.

    extra: hooks and metadata of tensors that are more than numbers.
    """
    check_kind(storage, Tensor, "a tensor")
    check_kind(size, tuple, "the size of a tensor")
    check_kind(stride, tuple, "the strides of a tensor")
    if any(extra):
        raise RefusedError("holds a tensor with hooks or metadata")
    return storage.as_strided(size, stride, offset).detach().requires_grad_(requires_grad)


def make_typed_tensor(storage: Tensor, *description: Any) -> Tensor:
    """Return a tensor of a dtype that has no storage class of its own."""
    check_kind(storage, Tensor, "a tensor")
    offset, size, stride, requires_grad, hooks, dtype, *metadata = description
    return make_tensor(storage.view(dtype), offset, size, stride, requires_grad, hooks, *metadata)


def make_parameter(data: Tensor, requires_grad: bool, *_: Any) -> nn.Parameter:
    """Return a parameter; its hooks and what Python attributes it once had are left out."""
    check_kind(data, Tensor, "a parameter")
    return nn.Parameter(data, requires_grad)


class NumpyType:
    """A dtype of plain numbers or text. numpy's own takes any state, also one that breaks the process."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        check_kind(code, str, "a numpy dtype")
        if not NUMBERS.fullmatch(code):
            raise RefusedError(f"holds a numpy array of type '{code}'")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray(np.ndarray):
    """A numpy array that is filled from checked numbers; it is saved as a plain one."""

    def __setstate__(self, state: tuple) -> None:
        check_kind(state, tuple, "an array")
        _, shape, numpy_type, is_fortran, data = state
        check_kind(shape, tuple, "the shape of an array")
        values = make_numbers(numpy_type, data).reshape(shape, order="F" if is_fortran else "C")
        super().__setstate__(values.__reduce__()[2])

    def __reduce__(self) -> tuple:
        return np.asarray(self).__reduce__()


def make_numpy_array(*_: Any) -> NumpyArray:
    """Return an empty array; its state follows in the file."""
    return np.ndarray.__new__(NumpyArray, (0,))


def make_numpy_scalar(numpy_type: NumpyType, data: bytes) -> np.generic:
    """Return one number."""
    return make_numbers(numpy_type, data)[0]


def make_numbers(numpy_type: NumpyType, data: bytes) -> np.ndarray:
    """Return a flat array of the numbers that `data` spells."""
    check_kind(numpy_type, NumpyType, "the dtype of an array")
    check_kind(data, bytes, "numbers")
    return np.frombuffer(data, numpy_type.dtype)


def make_bytes(text: str, encoding: str) -> bytes:
    """Return bytes, which pickles of protocol 2 spell as text."""
    check_kind(text, str, "bytes")
    check_kind(encoding, str, "an encoding")
    if encoding != "latin1":
        raise RefusedError(f"encodes text as '{encoding}'")
    return text.encode("latin1")


def get_method(owner: Any, name: str) -> Callable[..., Any]:
    """Return one of the two methods that models keep as attributes; files spell them as a call of getattr.

    They are Detect.forward, in segmentation heads, and the forward of a block whose normalisation is fused.
    """
    if isinstance(owner, Recipe) and owner.cls and (owner.cls.__name__, name) == ("Detect", "forward"):
        return owner.cls.forward
    if isinstance(owner, nn.Module) and name in FUSED_FORWARDS and hasattr(type(owner), name):
        return getattr(type(owner), name).__get__(owner)
    raise RefusedNameError("builtins", "getattr")


def make_collection(cls: type, items: list | tuple = ()) -> Any:
    """Return a set, or the like, of the items of a list; those of a dictionary are pairs."""
    check_kind(items, (list, tuple), f"a {cls.__name__}")
    if issubclass(cls, dict):
        for pair in items:
            check_kind(pair, (list, tuple), f"an entry of a {cls.__name__}")
        check_keys([key for key, _ in items])
    else:
        check_keys(items)
    return cls(items)


def make_empty(cls: type) -> Any:
    """Return an empty container: what a dictionary with a default asks for."""
    return cls()


def make_default_dict(factory: Recipe | None = None) -> defaultdict:
    """Return an empty dictionary with a default."""
    return DefaultDict(factory.make if isinstance(factory, Recipe) else None)


class DefaultDict(defaultdict):
    """A dictionary with a default. Python frees deep ones of its own class step in step, until the process ends."""

    def __reduce__(self) -> tuple:
        return defaultdict, (self.default_factory,), None, None, iter(self.items())


def make_number(cls: type, *parts: Any) -> Any:
    """Return a number of other numbers, or of a text that is not long; none, which is 0, is what a default asks for."""
    for part in parts:
        check_kind(part, (int, float, str), f"a {cls.__name__}")
        if isinstance(part, str) and len(part) > LONGEST_NUMBER:
            raise RefusedError(f"spells a number of {len(part)} characters")
    if len(parts) > 1 and cls is not complex:
        raise RefusedError(f"makes a {cls.__name__} of {len(parts)} parts")
    return cls(*parts)


def make_steps(cls: type, *parts: Any) -> Any:
    """Return a slice or a range of whole numbers: Python frees a slice of slices step in step, until the process ends."""
    for part in parts:
        check_kind(part, (int, type(None)), f"a {cls.__name__}")
    return cls(*parts)


def make_size(sizes: tuple | list = ()) -> torch.Size:
    """Return the shape of a tensor."""
    check_kind(sizes, (tuple, list), "a torch.Size")
    return torch.Size(sizes)


TENSORS = {
    "_rebuild_tensor": make_tensor,
    "_rebuild_tensor_v2": make_tensor,
    "_rebuild_tensor_v3": make_typed_tensor,
    "_rebuild_parameter": make_parameter,
    "_rebuild_parameter_with_state": make_parameter,
}
ARRAYS = {"scalar": make_numpy_scalar, "_reconstruct": make_numpy_array}
# A path of the machine that trained, which may run another system: kept as text, never looked at on the disk.
PATHS = {
    "PosixPath": pathlib.PurePosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "builtins": {
        **{cls.__name__: partial(make_collection, cls) for cls in (set, frozenset)},
        **{cls.__name__: partial(make_empty, cls) for cls in (dict, list)},
        **{cls.__name__: partial(make_number, cls) for cls in (int, float, complex)},
        **{cls.__name__: partial(make_steps, cls) for cls in (slice, range)},
        "getattr": get_method,
    },
    "collections": {"OrderedDict": partial(make_collection, OrderedDict), "defaultdict": make_default_dict},
    "argparse": {"Namespace": argparse.Namespace},
    "datetime": {cls.__name__: cls for cls in TIMES},
    "pathlib": PATHS,
    "pathlib._local": PATHS,
    "_codecs": {"encode": make_bytes},
    "numpy": {"dtype": NumpyType, "ndarray": make_numpy_array},
    "numpy.core.multiarray": ARRAYS,
    "numpy._core.multiarray": ARRAYS,
    "torch": {"Size": make_size, "device": torch.device},
    "torch._utils": TENSORS,
}
RECIPES = {(module, name): Recipe(make) for module, names in FUNCTIONS.items() for name, make in names.items()}
