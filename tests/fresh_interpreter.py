"""The tree whose explainer is tested, and what happens there in an interpreter that has imported nothing yet."""

import subprocess
import sys
from pathlib import Path

import explainer


def tree() -> Path:
    """Return the root of the tree that `explainer` is imported from: the repository's, or that of `--tree`."""
    return Path(explainer.__file__).resolve().parents[1]


# Whether that is another checkout than this repository.
IN_STOCK = tree() != Path(__file__).resolve().parents[1]


def run_there(code: str) -> str:
    """Return what a fresh interpreter in the root of the tree prints that runs `code`."""
    return subprocess.run([sys.executable, "-c", code], cwd=tree(), capture_output=True, text=True, check=True).stdout


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after running `code`."""
    return set(run_there(f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))").splitlines()[-1].split())
