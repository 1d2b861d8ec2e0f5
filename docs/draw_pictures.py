"""Draw the pictures of README.md and docs/pictures.md anew, each by the command that stands above it there.

python docs/draw_pictures.py
python docs/draw_pictures.py --only signed scales
python docs/draw_pictures.py --notebook  # runs demo.ipynb, which keeps its pictures itself

It needs yolov5n.pt, which is downloaded once, and for the picture of a page playwright and Chromium; without these two the
picture of the page stays as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))

PAGES = (ROOT / "README.md", ROOT / "docs/pictures.md")
NOTEBOOK = ROOT / "demo.ipynb"
COMMAND = "python explainer/explainer.py"
LINE_OR_PICTURE = re.compile(
    rf"^ {{4}}{re.escape(COMMAND)}(?P<options> .*)?$|!\[[^\]]*\]\((?P<path>[^\s)]+)(?: \"(?P<result>[^\"]+)\")?\)",
    re.MULTILINE,
)
MOST_WIDTH, MOST_BYTES = 800, 60_000
# The whole picture at a good quality first.
SCALES, QUALITIES = (1, 0.85, 0.7, 0.55), (88, 80, 72)
WINDOW = {"width": 1200, "height": 1150}


@dataclass(frozen=True)
class Picture:
    """A picture on a page: its file, the options of the command above it, and which of the run's files it shows.

    result  below the folder of the run; None for the only picture that lies in the folder itself
    """

    path: Path
    options: tuple[str, ...]
    result: str | None


def pictures_on(page: Path) -> Iterator[Picture]:
    """Yield the pictures of a Markdown page; ValueError for one that stands below no command.

    The n-th picture below a block of commands is that of the n-th command; the last command has those that are left. A
    picture's title says which file of the run it is: ![what is seen](pictures/scales.jpg "coffee/scales.jpg")
    """
    commands, drawn, end = [], 0, -1
    for found in LINE_OR_PICTURE.finditer(page.read_text(encoding="utf-8")):
        if found["path"] is None:
            if found.start() != end + 1:
                commands, drawn = [], 0
            commands.append(tuple(shlex.split(found["options"] or "")))
            end = found.end()
        elif not commands:
            raise ValueError(f"{page}: no command above {found['path']}")
        else:
            options = commands[min(drawn, len(commands) - 1)]
            drawn += 1
            yield Picture(page.parent / found["path"], options, found["result"])


def draw(pictures: list[Picture], folder: Path) -> None:
    """Run the commands of pictures, each once, with results in a folder; then write the pictures."""
    from explainer.explainer import main, parse_opt

    runs: dict[tuple[str, ...], Path] = {}
    for picture in pictures:
        if picture.options not in runs:
            runs[picture.options] = folder / str(len(runs))
            if main(parse_opt([*picture.options, "--project", str(folder), "--name", runs[picture.options].name])):
                raise RuntimeError(f"for {picture.path}: {COMMAND} {shlex.join(picture.options)}")
        result = result_of(runs[picture.options], picture.result)
        image_bgr = photograph_of(result) if result.suffix == ".html" else read(result)
        if image_bgr is not None:
            picture.path.parent.mkdir(parents=True, exist_ok=True)
            picture.path.write_bytes(as_small_jpeg(image_bgr))


def result_of(run: Path, name: str | None) -> Path:
    """Return the file of a run by its name, or the only picture in the run's folder."""
    if name:
        return run / name
    (only,) = run.glob("*.jpg")
    return only


def read(path: Path) -> np.ndarray:
    """Return a picture, BGR uint8 (H, W, 3); FileNotFoundError if there is none."""
    import cv2

    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)


def photograph_of(page: Path) -> np.ndarray | None:
    """Return what a browser shows of a page, BGR uint8 (H, W, 3); None, and a line, where there is no browser."""
    import cv2

    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the picture of the page is left as it is: pip install playwright")
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        print("the picture of the page is left as it is: there is no Chromium")
        return None
    with sync_playwright() as playwright:
        # The sandbox of Chromium refuses the root user of a container; the page is our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport=WINDOW)
        opened.goto(page.as_uri())
        opened.wait_for_load_state("networkidle")
        png = opened.screenshot()
        browser.close()
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def as_small_jpeg(image_bgr: np.ndarray) -> bytes:
    """Return a JPEG file of at most MOST_WIDTH pixels' width and MOST_BYTES; ValueError if that is not to be had."""
    import cv2

    widest = min(MOST_WIDTH / image_bgr.shape[1], 1)
    for scale in SCALES:
        small = cv2.resize(image_bgr, None, fx=widest * scale, fy=widest * scale, interpolation=cv2.INTER_AREA)
        for quality in QUALITIES:
            data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            if data.size <= MOST_BYTES:
                return data.tobytes()
    raise ValueError(f"a picture of {image_bgr.shape} takes more than {MOST_BYTES} bytes at every quality")


def run_notebook(path: Path) -> None:
    """Run a notebook from top to bottom in the root of the repository, and store it with its pictures, without warnings."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=300, record_timing=False, resources=resources).execute()
    # The version of Python and the like would change with the machine.
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pictures by name, such as signed; all by default")
    parser.add_argument("--notebook", action="store_true", help="run demo.ipynb and store it, instead")
    return parser.parse_args(arguments)


def main(opt: argparse.Namespace) -> None:
    """Draw all pictures, or those asked for, or run the notebook."""
    if opt.notebook:
        run_notebook(NOTEBOOK)
        return
    pictures = [picture for page in PAGES for picture in pictures_on(page)]
    names = [picture.path.stem for picture in pictures]
    if opt.only and not set(opt.only) <= set(names):
        raise SystemExit(f"--only knows: {' '.join(names)}; given: {' '.join(opt.only)}")
    # The commands name files from here.
    os.chdir(ROOT)
    with TemporaryDirectory() as folder:
        draw([picture for picture in pictures if not opt.only or picture.path.stem in opt.only], Path(folder))


if __name__ == "__main__":
    main(parse_opt())
