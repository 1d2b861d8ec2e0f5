"""The folder explainer/ is a house: its rooms import downwards, and it needs from the tree only what every checkout has."""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest
from fresh_interpreter import modules_after, tree

from explainer.methods.catalogue import METHOD_ALIASES, METHODS

HOUSE = tree() / "explainer"
SOURCES = sorted(HOUSE.rglob("*.py"))
TESTS = Path(__file__).parents[1]
OF_TREE = ("models", "utils", "data", "detect", "train", "val")
HEAVY = {"torch", "cv2", "pandas", "matplotlib", "pytorch_grad_cam", "torchvision"}
MOST_FILES = 72

# From the ground to the roof. What stands on one floor does not know each other.
FLOORS = (
    ("errors",),
    ("maps", "checkpoints"),
    ("files",),
    ("detectors",),
    ("methods", "pictures"),
    ("settings", "explanation"),
    ("subjects",),
    ("attribution",),
    ("combining",),
    ("explain",),
    ("comparing",),
    ("evaluation",),
    ("command",),
    ("explainer", "evaluate"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What stock YOLOv5, v7.0 and later, has at the same path.
IN_EVERY_CHECKOUT = {
    "models.common": {"DetectMultiBackend", "AutoShape", "Detections"},
    "models.experimental": {"attempt_load"},
    "models.yolo": {"Detect", "DetectionModel"},
    "utils.dataloaders": {"LoadImages", "LoadScreenshots", "LoadStreams", "IMG_FORMATS", "VID_FORMATS"},
    "utils.augmentations": {"letterbox"},
    "utils.general": {
        "LOGGER", "check_file", "check_img_size", "check_imshow", "check_requirements", "increment_path",
        "non_max_suppression", "print_args", "scale_boxes", "xywh2xyxy", "Profile",
    },
    "utils.plots": {"Annotator", "colors"},
    "utils.torch_utils": {"select_device", "smart_inference_mode"},
    "utils.downloads": {"attempt_download"},
}  # fmt: skip

# What only a detector knows of its model.
INSIDES = re.compile(r"\[:,5:\]|\.na\b|model\[-1\]|\banchors\b|\bobjectness\b")


def name_of(path):
    """Return the dotted name of a file below the root of the tree."""
    return ".".join(path.relative_to(tree()).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Yield (module, names) of every import of a file, inside functions and for annotations alone too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module, {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)


NAMES = {name_of(path) for path in SOURCES}


def files_imported_by(path):
    """Return the names of the files of the house that a file imports; of a room that is imported, those in it."""
    found = set()
    for module, names in imports_of(path):
        if module.split(".")[0] == "explainer":
            parts = {f"{module}.{name}" for name in names} & NAMES
            found |= parts or {module}
    return found


def room_of(name):
    """Return the room that a file is, or lies in."""
    return name.split(".")[1] if "." in name else ""


def code_of(path):
    """Return the lines of a file without strings, comments and spaces, by their number."""
    left_out = {tokenize.STRING, tokenize.COMMENT, *(getattr(tokenize, f"FSTRING_{part}", -1) for part in ("MIDDLE",))}
    lines = {}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type not in left_out:
            between = " " if re.match(r"\w", token.string) and re.search(r"\w$", lines.get(token.start[0], "")) else ""
            lines[token.start[0]] = lines.get(token.start[0], "") + between + token.string.strip()
    return lines


def inside(path):
    return path.relative_to(tree()).as_posix()


every_file = pytest.mark.parametrize("path", SOURCES, ids=inside)


@every_file
def test_the_tree_is_used_only_where_every_checkout_has_it(path):
    for module, names in imports_of(path):
        if module.split(".")[0] in OF_TREE:
            assert module in IN_EVERY_CHECKOUT
            assert names <= IN_EVERY_CHECKOUT[module]


@every_file
def test_rooms_import_downwards(path):
    name = name_of(path)
    if name == "explainer":
        assert not files_imported_by(path)
        return
    assert room_of(name) in FLOOR, "give the new room a floor"
    for other in files_imported_by(path):
        assert other in NAMES
        lower = FLOOR[room_of(other)] < FLOOR[room_of(name)]
        assert lower or room_of(other) == room_of(name), f"{name} imports {other}"


def test_no_files_import_each_other_in_a_circle():
    left = {name_of(path): files_imported_by(path) for path in SOURCES}
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, f"a circle among {sorted(left)}"


@pytest.mark.parametrize("path", sorted((HOUSE / "checkpoints").glob("*.py")), ids=inside)
def test_the_reader_of_checkpoints_needs_nothing_of_the_tree(path):
    for module, _ in imports_of(path):
        top = module.split(".")[0]
        assert top in {"torch", "numpy", *sys.stdlib_module_names} or room_of(module) in ("checkpoints", "errors")


def test_the_tree_needs_of_the_house_its_reader_and_its_errors_alone():
    commands = (tree() / name for name in ("detect.py", "train.py", "val.py", "export.py"))
    rooms = {
        room_of(module)
        for path in [*(tree() / "models").rglob("*.py"), *(tree() / "utils").rglob("*.py"), *commands]
        if path.is_file()
        for module, _ in imports_of(path)
        if module and module.split(".")[0] == "explainer"
    }
    assert rooms <= {"checkpoints", "errors"}


@every_file
def test_only_detectors_know_the_insides_of_a_model(path):
    if path.parent.name not in ("detectors", "checkpoints"):
        assert {number: line for number, line in code_of(path).items() if INSIDES.search(line)} == {}


def test_strings_and_comments_are_no_code(tmp_path):
    (tmp_path / "a.py").write_text(
        'x = "anchors"  # anchors\n"""\nmodel[-1]\n"""\nmodel [-1]\nraw[:, 5:]\n', encoding="utf-8"
    )
    found = code_of(tmp_path / "a.py")
    assert [number for number, line in found.items() if INSIDES.search(line)] == [5, 6]


def test_no_public_name_is_defined_twice():
    defined = Counter(
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    )
    assert {name for name, count in defined.items() if count > 1} <= {"main", "run", "parse_opt"}


@every_file
def test_the_name_of_a_method_is_compared_in_the_table_alone(path):
    known = {*METHODS, *METHOD_ALIASES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Compare, ast.MatchValue)) and name_of(path) != "explainer.methods.catalogue":
            compared = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            assert not {value for value in compared if isinstance(value, str)} & known


@every_file
def test_nothing_imports_the_command(path):
    assert not files_imported_by(path) & {"explainer.explainer", "explainer.evaluate"}


def test_no_file_is_called_like_a_module_of_the_standard_library_or_a_folder_of_the_tree():
    names = {path.stem for path in HOUSE.iterdir()}
    assert not names & (sys.stdlib_module_names - {"__init__"})
    assert not names & {*OF_TREE, "tests"}


def test_the_house_has_no_more_rooms_than_one_can_look_through():
    assert len(SOURCES) <= MOST_FILES


@pytest.mark.parametrize("module", ["explainer.explainer", "explainer.settings"])
def test_importing_what_the_help_is_made_of_imports_nothing_heavy(module):
    assert not HEAVY & modules_after(f"import {module}")


def test_importing_makes_no_files(tmp_path):
    modules_after(
        f"import os; os.chdir({str(tmp_path)!r}); sys.path.insert(0, {str(tree())!r}); import explainer.explain"
    )
    assert not list(tmp_path.iterdir())


# The tests of the house


def with_helpers(path):
    """Return a test file and all helpers beside the tests that it needs."""
    found, todo = set(), [path]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo += [helper for module, _ in imports_of(current) if (helper := TESTS / f"{module}.py").is_file()]
    return found


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix()
)
def test_tests_use_of_the_tree_what_every_checkout_has_and_scripts_of_this_repository(path):
    for file in with_helpers(path):
        for module, names in imports_of(file):
            if module.split(".")[0] in OF_TREE and not module.startswith("data.scripts."):
                assert module in IN_EVERY_CHECKOUT, f"{file.name} imports {module}"
                assert names <= IN_EVERY_CHECKOUT[module], f"{file.name} imports {names} of {module}"
