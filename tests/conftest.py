"""Fixtures that every test may ask for, and the tree that the tests of the explainer run in."""

import os
import sys
from pathlib import Path

import pytest
import torch

# Tiny models are quicker on one thread than on several that wait for each other.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
# What a tree has of its own. `data` is a folder of both: its scripts are this repository's.
PACKAGES = ("explainer", "models", "utils")


def pytest_addoption(parser):
    parser.addoption(
        "--tree",
        metavar="DIR",
        help="run tests/explainer in another YOLOv5 checkout, which explainer/ was copied into",
    )


def pytest_configure(config):
    """Put the other tree before this one, while nothing of either is imported."""
    if config.getoption("--tree"):
        other = Path(config.getoption("--tree")).resolve()
        if not (other / "explainer/__init__.py").is_file():
            raise pytest.UsageError(f"--tree {other} holds no explainer/; copy it there first")
        sys.path.insert(0, str(other))


@pytest.fixture(scope="session", autouse=True)
def one_tree(request):
    """Fail in the end where a module of this repository took the place of one of the other tree."""
    yield
    if request.config.getoption("--tree"):
        assert [name for name, module in sys.modules.items() if is_stray(name, module)] == []


def is_stray(name: str, module) -> bool:
    """Return whether a module is one of this repository's packages that another tree should have given."""
    file = getattr(module, "__file__", None)
    return name.split(".")[0] in PACKAGES and bool(file) and Path(file).resolve().is_relative_to(ROOT)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the official weights, photographs, COCO128 and reference figures; skips where it is not at hand."""
    root = os.environ.get("YOLOV5_ASSETS")
    if not root:
        pytest.skip("needs the official weights and photographs: set YOLOV5_ASSETS to their folder")
    return Path(root)
