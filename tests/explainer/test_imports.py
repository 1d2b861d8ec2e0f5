"""The folder explainer/ stands on its own: it needs from the tree only what every YOLOv5 checkout has."""

import ast
import sys
from pathlib import Path

import pytest
from fresh_interpreter import modules_after

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "explainer").rglob("*.py"))
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


def imports_of(path):
    """Yield (module, names) of every import of a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module, {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_tree_is_used_only_where_every_checkout_has_it(path):
    for module, names in imports_of(path):
        if module.split(".")[0] in ("models", "utils", "data", "detect", "train", "val"):
            assert module in IN_EVERY_CHECKOUT
            assert names <= IN_EVERY_CHECKOUT[module]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_imports_the_command(path):
    assert "explainer.explainer" not in {module for module, _ in imports_of(path)}


def test_no_file_is_called_like_a_module_of_the_standard_library_or_a_folder_of_the_tree():
    names = {path.stem for path in (ROOT / "explainer").iterdir()}
    assert not names & (sys.stdlib_module_names - {"__init__"})
    assert not names & {"models", "utils", "data", "tests", "detect", "train", "val"}


def test_importing_the_command_imports_nothing_heavy():
    loaded = modules_after("import explainer.explainer")
    assert not {"torch", "cv2", "pandas", "matplotlib", "pytorch_grad_cam", "torchvision"} & loaded


def test_importing_makes_no_files(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); sys.path.insert(0, {str(ROOT)!r}); import explainer.explain"
    modules_after(code)
    assert not list(tmp_path.iterdir())
