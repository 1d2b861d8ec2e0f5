"""The notebook runs from top to bottom, without a network, and is stored small and with its pictures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "demo.ipynb"
# The cell that says where results go, and the one that needs weights which may have to be downloaded.
SETTINGS, PHOTOGRAPH = 3, -2


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def pictures(cell) -> list:
    return [output for output in cell.get("outputs", []) if "image/jpeg" in output.get("data", {})]


def test_the_notebook_runs_from_top_to_bottom_without_a_network(notebook, monkeypatch, tmp_path):
    # Nothing listens there, so that every download fails at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    stored = [bool(pictures(cell)) for cell in notebook.cells]
    notebook.cells[SETTINGS].source += f"\nRESULTS = {str(tmp_path)!r}"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = [bool(pictures(cell)) for cell in notebook.cells]
    assert sum(stored) >= 7
    assert stored[PHOTOGRAPH]
    shown[PHOTOGRAPH] |= "Skipped: " in str(notebook.cells[PHOTOGRAPH].outputs)
    assert shown == stored


def test_the_stored_notebook_is_small_and_names_no_place_of_a_machine(notebook):
    assert NOTEBOOK.stat().st_size < 1_000_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert len(printed) >= 8
    assert not any(place in text for place in ("/home/", "/root/", "/tmp/", str(ROOT)) for text in printed)
