"""The imports of utils/ point one way: read from the source, also those inside functions and for type checkers."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "utils"
# A package or a file of utils/ imports only from lower floors, never from a neighbour on its own.
FLOORS = (
    {"base", "activations", "augmentations"},
    {"plots", "loss", "autobatch"},
    {"sources"},
    {"data", "detecting"},
    {"validating", "autoanchor"},
    {"training"},
)
# Paths of YOLOv5 that define nothing themselves: for code from outside, and for the explainer, which runs there too.
REEXPORTS = {"general", "dataloaders", "metrics", "torch_utils", "downloads"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(UTILS.rglob("*.py"))
    if path.name != "__init__.py"
}
USERS = [
    *(path for path in MODULES.values() if path.stem not in REEXPORTS or path.parent != UTILS),
    *(path for folder in ("models", "data/scripts", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))),
    *(ROOT / f"{name}.py" for name in ("detect", "val", "train", "hubconf")),
]


def imported_by(path):
    """Return the names that a file imports: modules, and what is imported from them, which may be modules too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(module):
    """Return the package or the file of utils/ that a module belongs to."""
    return module.split(".")[1]


def floor_of(module):
    return next(floor for floor, rooms in enumerate(FLOORS) if room_of(module) in rooms)


def test_every_package_and_file_has_its_floor():
    known = set.union(*FLOORS) | REEXPORTS
    assert {room_of(module) for module in MODULES} == known


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) not in REEXPORTS])
def test_imports_point_down(module):
    others = {name for name in imported_by(MODULES[module]) & MODULES.keys() if room_of(name) != room_of(module)}
    upward = {name for name in others if room_of(name) in REEXPORTS or floor_of(name) >= floor_of(module)}
    assert not upward


def test_no_module_imports_itself_by_a_detour():
    graph = {module: imported_by(path) & MODULES.keys() for module, path in MODULES.items()}
    # raises CycleError, which names the circle
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", USERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tree_imports_from_where_things_are_and_not_from_their_other_paths(path):
    assert not imported_by(path) & {f"utils.{name}" for name in REEXPORTS}


def test_other_paths_define_nothing_and_the_rest_does():
    empty = {
        path.stem
        for path in UTILS.glob("[!_]*.py")
        if not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    }
    assert empty == REEXPORTS


@pytest.mark.parametrize("module", MODULES)
def test_utils_knows_neither_models_nor_commands(module):
    roots = {name.split(".")[0] for name in imported_by(MODULES[module])}
    assert not roots & {"models", "detect", "val", "train", "hubconf", "tests"}


def test_only_the_command_detects():
    users = {path for path in USERS if any(name.startswith("utils.detecting.") for name in imported_by(path))}
    assert users - set((UTILS / "detecting").iterdir()) == {ROOT / "detect.py"}
