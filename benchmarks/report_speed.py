"""How long does the page of `--report` take: to be made, for each image, and to open in a browser?

    python benchmarks/report_speed.py --images 200

The images are noise of the size of photographs, which takes more bytes than these, with two detections each. Making is held
against encoding the photograph as JPEG alone. Opening is the time until the page is read (DOMContentLoaded) and until its
first picture is drawn, in a headless Chromium that is running already; the median of several rounds. Needs playwright and
chromium.
"""

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from types import SimpleNamespace

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from explainer.files.results import Page  # noqa: E402
from explainer.pictures.report import QUALITY, Report  # noqa: E402

HEIGHT, WIDTH = 480, 640
ARGUMENTS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()
BUDGET = 3.0
EVENT = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def smooth(seed: int, height: int, width: int, cells: int, channels: int = 1) -> np.ndarray:
    """Return noise in 0..1 of so many cells along the longer side, (h, w) or (h, w, channels) float32."""
    noise = np.random.default_rng(seed).random((cells, cells, channels), dtype=np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def answer(seed: int) -> tuple[SimpleNamespace, list[dict]]:
    """Return an answer about a picture, and the rows of its table."""
    image_rgb = np.uint8(255 * smooth(seed, HEIGHT, WIDTH, 160, 3))
    entries = []
    for index, name in enumerate(("dog", "cat")):
        xyxy = np.float32([40 + 300 * index, 60, 280 + 300 * index, 420])
        detection = SimpleNamespace(xyxy=xyxy, name=name, confidence=0.9, outcome="", was_found=True)
        own = smooth(seed + index, 240, 320, 20)
        entries.append(SimpleNamespace(detection=detection, has_sign=False, shown_at=lambda size, own=own: own))
    whole = SimpleNamespace(
        image_rgb=image_rgb, shown=smooth(seed, HEIGHT, WIDTH, 20), has_sign=False, detections=entries
    )
    whole.method, whole.model, whole.notes, whole.found = "GradCAM", "", (), {"": [each.detection for each in entries]}
    whole.explanations = (whole,)
    figures = {"energy_in_box": 0.5, "enrichment": 2.0, "peak_in_box": True, "stride": 8, "layer": "model.17"}
    rows = [{"name": each.detection.name, "confidence": 0.9, "method": "GradCAM"} | figures for each in entries]
    return whole, rows


def make(folder: Path, count: int) -> tuple[Path, float, float]:
    """Write a page; return its path, and the seconds that an image took, and that its photograph takes as JPEG alone."""
    making, encoding = [], []
    with Page(folder) as page:
        report = Report(page, title="Explanations", about="", facts={})
        for number in range(count):
            whole, rows = answer(number)
            started = perf_counter()
            report.add(SimpleNamespace(path=Path(f"{number:05}.jpg"), number=0), whole, rows)
            made = perf_counter()
            cv2.imencode(".jpg", whole.image_rgb, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
            making.append(made - started)
            encoding.append(perf_counter() - made)
        started = perf_counter()
        path, beside = report.write()
        print(
            f"written in {perf_counter() - started:.2f} s, {path.stat().st_size / 2**20:.1f} MiB, beside it: {beside}"
        )
    return path, median(making), median(encoding)


def open_once(browser, path: Path) -> tuple[float, float]:
    """Return the seconds until a page is read, and until its first picture is drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    started = perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("#image-0[data-loaded]", state="attached")
    drawn = perf_counter() - started
    read = page.evaluate(EVENT) / 1000
    page.close()
    return read, drawn


def main() -> None:
    """Make a page and open it several times."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="how many there are on the page")
    parser.add_argument("--rounds", type=int, default=5, help="how often it is opened")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of the browser")
    args = parser.parse_args()
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        path, making, encoding = make(Path(folder), args.images)
        print(f"each image: {1e3 * making:.1f} ms, its photograph alone {1e3 * encoding:.1f} ms")
        browser = driver.chromium.launch(executable_path=args.chromium, args=ARGUMENTS)
        read, drawn = (
            median(times) for times in zip(*(open_once(browser, path) for _ in range(args.rounds)), strict=True)
        )
        print(
            f"{args.images} images: read after {read:.2f} s, first picture drawn after {drawn:.2f} s (budget {BUDGET} s)"
        )
        browser.close()


if __name__ == "__main__":
    main()
