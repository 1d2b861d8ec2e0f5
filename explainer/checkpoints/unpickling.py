"""Read a pickle as data: it can build what a model file consists of, and can call nothing else.

A pickle is a program for a small stack machine, and the reader in the standard library lets that program call any function
that Python can import. `DataUnpickler` keeps the machine and takes the functions away:

- a name in the file is looked up in a fixed table, never imported by its path; it yields data or a `Recipe`;
- a call goes to a recipe or is refused, so no class's `__init__`, no module's `forward` and no bound method can be reached;
- modules are made empty, by class, and then filled: only classes that are in this tree or in torch.nn;
- entries and state go into plain containers and modules, never into a class or a function;
- a module's methods stay what they are, and its hooks are left out;
- what a file may cost is counted (`Budget`), and hangs on its size.
"""

import argparse
import importlib
import pickle
import struct
import sys
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor, nn

from explainer.checkpoints.allowed import (
    MOST_ODD_KEYS,
    RECIPES,
    NumpyArray,
    NumpyType,
    Recipe,
    RefusedError,
    RefusedNameError,
    check_keys,
    check_kind,
    recipe_for_module,
)
from explainer.checkpoints.ultralytics import recipe_of_ultralytics

TREE_MODULES = ("models.common", "models.yolo", "models.experimental", "utils.activations")
# The two open files, and AutoShape addresses on the network too.
NOT_DATA = frozenset({"AutoShape", "DetectMultiBackend"})
# One class under two names: checkpoints up to v6.1 say Model.
ALIASES = {"Model": "DetectionModel", "DetectionModel": "Model"}

STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


# The longest checkpoints of YOLOv5, with optimizer and averaged weights, take a tenth of these steps and bytes.
MOST_STEPS, MOST_BYTES = 2_000_000, 1 << 26
# Views of numbers that are not in the file as often: grids of heads repeat their anchors for each cell.
SPARE_TENSOR_BYTES = 1 << 28
# Numbers in a pickle of more bytes are those of an attack on whatever computes with them.
LONGEST_INTEGER = 255
# The input levels of a head.
MOST_LEVELS = 16


@dataclass
class Budget:
    """What is left of what a file may cost; RefusedError where it is used up.

    steps    operations of the stack machine, each of which makes an object of some hundred bytes at most
    copied   entries and characters that calls copy
    tensors  bytes that all tensors have, each counted whole, though several can look at the same numbers
    odd      keys of dictionaries whose places the file chooses
    """

    steps: int
    copied: int
    tensors: int
    odd: int = MOST_ODD_KEYS

    def step(self) -> None:
        """Count one operation."""
        self.steps -= 1
        if self.steps < 0:
            raise RefusedError(f"takes more than {MOST_STEPS} steps to read")

    def copy(self, parts: Any) -> None:
        """Count what a call makes of its arguments, or an object of its state."""
        self.copied -= sum(len(part) for part in (parts, *parts) if isinstance(part, (str, bytes, list, tuple, dict)))
        if self.copied < 0:
            raise RefusedError("copies one thing over and over")

    def tensor(self, made: Any) -> None:
        """Count a tensor."""
        if isinstance(made, Tensor):
            self.tensors -= made.numel() * made.element_size()
            if self.tensors < 0:
                raise RefusedError("holds tensors that are larger than the numbers in the file")


class Stepping(dict):
    """The handlers of the opcodes, counting each that is asked for."""

    def __init__(self, handlers: dict[int, Callable], budget: Budget):
        super().__init__(handlers)
        self._budget = budget

    def __getitem__(self, opcode: int) -> Callable:
        self._budget.step()
        return super().__getitem__(opcode)


class BoundedFile:
    """A file of which a pickle can ask for no more than there is: Python makes room for what is asked for first."""

    def __init__(self, file: BinaryIO, most: int):
        self._file, self._left = file, most

    def read(self, count: int) -> bytes:
        """Return `count` bytes."""
        if not 0 <= count <= self._left:
            raise EOFError(f"{count} bytes are claimed, and {self._left} can be there")
        return self._counted(self._file.read(count))

    def readline(self) -> bytes:
        """Return the bytes up to the end of a line."""
        return self._counted(self._file.readline(self._left))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


class DataUnpickler(pickle._Unpickler):
    """The stack machine with the rules of this module.

    It is the implementation in Python: the one in C has no place where calls can be looked at.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        file: BinaryIO,
        load_storage: Callable[[Any], Any] | None = None,
        file_size: int = 0,
        *,
        ultralytics: bool = False,
    ):
        """Read from `file`; `load_storage` turns a persistent id into a flat tensor.

        file_size: that of the whole checkpoint, in bytes, with the numbers of its tensors.
        ultralytics: whether it may name the modules of detectors of that package, too.
        """
        super().__init__(BoundedFile(file, MOST_BYTES), encoding="utf-8")
        self._load_storage, self._takes_ultralytics = load_storage, ultralytics
        self._budget = Budget(MOST_STEPS, MOST_BYTES, SPARE_TENSOR_BYTES + 4 * file_size)
        self.dispatch = Stepping(self.dispatch, self._budget)

    def find_class(self, module: str, name: str) -> Any:
        """Return the recipe or the data that the file calls `module`.`name`; raise RefusedNameError for the rest."""
        if self.proto < 3:
            module, name = todays_name(module, name)
        if (module, name) in RECIPES:
            return RECIPES[module, name]
        if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        # Not getattr: looking up a missing attribute makes torch import things.
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if self._takes_ultralytics and (recipe := recipe_of_ultralytics(module, name)):
            return recipe
        cls = find_module_class(module, name)
        if cls is None:
            raise RefusedNameError(module, name)
        return recipe_for_module(cls)

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that the file refers to."""
        if self._load_storage is None:
            raise RefusedError("refers to a storage where none can be")
        check_kind(pid, tuple, "a storage")
        return self._load_storage(pid)

    def load_call(self) -> None:
        """Call a recipe: for the two opcodes that apply a callable to arguments."""
        arguments, recipe = self.stack.pop(), self.stack.pop()
        if type(recipe) is not Recipe:
            raise RefusedError(f"calls a {type(recipe).__name__}")
        check_kind(arguments, tuple, "the arguments of a call")
        self._budget.copy(arguments)
        made = recipe.make(*arguments)
        self._budget.tensor(made)
        self.append(made)

    def load_state(self) -> None:
        """Fill the object on top of the stack."""
        state, target = self.stack.pop(), self.stack[-1]
        check_kind(state, (dict, tuple), "a state")
        self._budget.copy(state)
        if isinstance(target, (NumpyType, NumpyArray)):
            target.__setstate__(state)
            return
        if type(state) is not dict:
            raise RefusedError(f"gives a {type(target).__name__} a state that is no dictionary")
        if isinstance(target, nn.Module):
            check_module_state(target, state)
            target.__setstate__(without_hooks(state))
        elif isinstance(target, argparse.Namespace) or (
            isinstance(target, OrderedDict) and set(state) == {"_metadata"}
        ):
            vars(target).update(state)
        else:
            raise RefusedError(f"sets the state of a {type(target).__name__}")

    def load_integer(self) -> None:
        """Read a number that says how long it is."""
        (size,) = struct.unpack("<i", self.read(4))
        if not 0 <= size <= LONGEST_INTEGER:
            raise RefusedError(f"holds a number of {size} bytes")
        self.append(pickle.decode_long(self.read(size)))

    def count_keys(self, keys: list | tuple) -> None:
        """Check keys that go into containers; RefusedError for those that models have not, or not as many."""
        self._budget.odd -= check_keys(keys, self._budget.odd)

    def load_refused(self) -> None:
        """Refuse opcodes that no checkpoint needs."""
        raise RefusedError("uses an opcode that no checkpoint needs")

    dispatch.update(dict.fromkeys([pickle.REDUCE[0], pickle.NEWOBJ[0]], load_call))
    dispatch[pickle.BUILD[0]] = load_state
    dispatch[pickle.LONG4[0]] = load_integer
    BUFFERS: ClassVar = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
    EXTENSIONS: ClassVar = (pickle.EXT1, pickle.EXT2, pickle.EXT4)
    REFUSED: ClassVar = (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, *EXTENSIONS, *BUFFERS)
    dispatch.update(dict.fromkeys([opcode[0] for opcode in REFUSED], load_refused))


def _filling(
    opcode: bytes,
    kind: type,
    find_target: Callable[[DataUnpickler], Any],
    find_keys: Callable[[DataUnpickler], list] = lambda machine: [],
) -> Callable[[DataUnpickler], None]:
    """Return the handler of an opcode that fills a container, for real ones only: others may call theirs `append`.

    find_keys: what of the stack is hashed
    """
    fill = pickle._Unpickler.dispatch[opcode[0]]

    def fill_checked(self: DataUnpickler) -> None:
        target = find_target(self)
        if not isinstance(target, kind):
            raise RefusedError(f"adds entries to a {type(target).__name__}")
        self.count_keys(find_keys(self))
        fill(self)

    return fill_checked


def _making(opcode: bytes, every: int) -> Callable[[DataUnpickler], None]:
    """Return the handler of an opcode that makes a container of what is on the stack, of which it hashes every nth."""
    make = pickle._Unpickler.dispatch[opcode[0]]

    def make_checked(self: DataUnpickler) -> None:
        self.count_keys(self.stack[::every])
        make(self)

    return make_checked


def _below_mark(machine: DataUnpickler) -> Any:
    return machine.metastack[-1][-1]


DataUnpickler.dispatch.update(
    {
        pickle.APPEND[0]: _filling(pickle.APPEND, list, lambda machine: machine.stack[-2]),
        pickle.APPENDS[0]: _filling(pickle.APPENDS, list, _below_mark),
        pickle.SETITEM[0]: _filling(
            pickle.SETITEM, dict, lambda machine: machine.stack[-3], lambda machine: machine.stack[-2:-1]
        ),
        pickle.SETITEMS[0]: _filling(pickle.SETITEMS, dict, _below_mark, lambda machine: machine.stack[::2]),
        pickle.ADDITEMS[0]: _filling(pickle.ADDITEMS, set, _below_mark, lambda machine: machine.stack),
        pickle.DICT[0]: _making(pickle.DICT, 2),
        pickle.FROZENSET[0]: _making(pickle.FROZENSET, 1),
    }
)


def check_module_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Refuse a state that would replace a method of the module, or has no place for submodules and tensors."""
    if not all(isinstance(state.get(name), dict) for name in ("_modules", "_parameters", "_buffers")):
        raise RefusedError(f"gives a {type(module).__name__} no tables of submodules and tensors")
    levels = state.get("nl", 1)
    if type(levels) is not int or not 0 <= levels <= MOST_LEVELS:
        raise RefusedError(f"has a head of {str(levels)[:20]} levels")
    for name, value in state.items():
        if type(name) is not str:
            raise RefusedError(f"names an attribute of a {type(module).__name__} by a {type(name).__name__}")
        is_own_method = name == "forward" and getattr(value, "__self__", None) is module
        if (callable(value) or name == "forward") and hasattr(type(module), name) and not is_own_method:
            raise RefusedError(f"replaces {type(module).__name__}.{name}")


def without_hooks(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a module without what torch keeps for itself: a file brings no code, so it has no hooks to call."""
    kept = {key: value for key, value in state.items() if "_hook" not in key and key != "_compiled_call_impl"}
    if type(kept.get("_non_persistent_buffers_set")) is not set:
        kept["_non_persistent_buffers_set"] = set()
    return kept | {key: OrderedDict() for key in ("_forward_hooks", "_backward_hooks")}


def todays_name(module: str, name: str) -> tuple[str, str]:
    """Return the name that a global has today: pickles of protocol 2, which torch writes, use those of Python 2."""
    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))


def find_module_class(module: str, name: str) -> type[nn.Module] | None:
    """Return the class of torch.nn or of this tree that a checkpoint calls `module`.`name`; None where there is none."""
    if module.startswith("torch.nn.modules."):
        # Never imported by the name in the file: what torch has is there already.
        return _module_class(sys.modules.get(module), name, module)
    if source := tree_module(module):
        candidates = (_module_class(source, each, ("models.", "utils.")) for each in (name, ALIASES.get(name)))
        return next((cls for cls in candidates if cls), None)
    if module == "__main__" or module.startswith("models."):
        # A block of one's own, which was defined somewhere else at the time of training.
        return _module_class(tree_module("models.common"), name, "models.")
    return None


def tree_module(name: str) -> types.ModuleType | None:
    """Return a module of the tree by its name in TREE_MODULES; None for any other name, which is not imported.

    It is imported when a file asks for one of its classes, not before: the reader lies below the tree, and works without it.
    """
    return importlib.import_module(name) if name in TREE_MODULES else None


def _module_class(source: Any, name: str | None, origin: str | tuple[str, ...]) -> type[nn.Module] | None:
    """Return `name` of the Python module `source` if it is an nn.Module class that a module under `origin` defines."""
    cls = vars(source).get(name) if source else None
    if not isinstance(cls, type) or not issubclass(cls, nn.Module) or name in NOT_DATA:
        return None
    return cls if cls.__module__.startswith(origin) else None
