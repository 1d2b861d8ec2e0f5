"""What a run says: one line per image as detect.py does, why a map is empty, what is suspect, and how it ended."""

import platform
import re
import shlex
import sys
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from explainer.command.options import ROOT
from explainer.command.running import Tally, log_end
from explainer.detectors.predictions import FALSE_ALARM, GIVEN, HIT, MISS, NEAR_MISS, Detection
from explainer.errors import printable
from explainer.files.results import Finished
from explainer.files.sources import Frame
from explainer.pictures.sheets import Tile, detection_tile, detection_title, sheet
from explainer.settings import as_tuple
from utils.general import LOGGER

PLURALS = {HIT: "hits", FALSE_ALARM: "false alarms", MISS: "misses", GIVEN: "given boxes"}


@dataclass(frozen=True, order=True)
class Suspect:
    """One detection: the share of its heatmap inside its box, what is said about it, and its picture."""

    energy_in_box: float
    line: str = field(compare=False)
    tile: Tile = field(compare=False)


class Suspects:
    """Keeps the `count` detections with the least of their heatmap inside their box, the most suspect first.

    Where the evidence lies most outside, a model may have learnt the background.
    """

    def __init__(self, count: int):
        self.count = count
        self.kept: list[Suspect] = []

    def add(self, frame: Frame, answer, rows: Iterable[dict[str, object]]) -> None:
        """Look at the detections of one image; `rows` are those of the answer's table."""
        explained = [(each, entry) for each in answer.explanations for entry in each.detections]
        known = (row for row in rows if "class" in row)
        for (explanation, entry), row in zip(explained, known, strict=True):
            if entry.detection.was_found and self._counts(row["energy_in_box"]):
                insort(self.kept, suspect(frame, explanation, entry, row))
                del self.kept[self.count :]

    def _counts(self, energy: float | None) -> bool:
        """Return whether a detection is among the most suspect ones so far; one without a heatmap is not."""
        return energy is not None and (
            len(self.kept) < self.count or (self.kept and energy < self.kept[-1].energy_in_box)
        )

    @property
    def sheet(self) -> np.ndarray:
        """Their pictures side by side, RGB uint8 (H, W, 3)."""
        return sheet([entry.tile for entry in self.kept])


def suspect(frame: Frame, explanation, entry, row: dict[str, object]) -> Suspect:
    """Return a detection as a suspect."""
    energy, found = row["energy_in_box"], entry.detection
    peak = "peak inside" if row["peak_in_box"] else "peak outside"
    figures = f"{energy:.0%} of the evidence in the box, {row['enrichment']:.1f} times chance, {peak}"
    number = f" frame {frame.number}" if frame.number else ""
    model = f"{explanation.model}: " if explanation.model else ""
    where = f"{printable(str(frame.path))}{number}"
    line = f"{where}: {model}{found.name} {found.confidence:.2f}, {explanation.method}: {figures}"
    title = f"{model}{detection_title(found, entry.layers, energy)}, {Path(frame.path).name}{number}"
    heatmap = entry.heatmap_at(explanation.image_rgb.shape[:2])
    return Suspect(energy, line, detection_tile(explanation.image_rgb, heatmap, found, title))


@dataclass
class Findings(Tally):
    """What a run has done and found so far: also the last picture, what became of detections by model, and suspects.

    paint   gives the overlay of the last image, None before there is one
    saving  seconds spent on drawing and writing
    """

    paint: Callable[[], np.ndarray | None] | None = None
    saving: float = 0.0
    outcomes: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    suspects: Suspects = field(default_factory=lambda: Suspects(0))

    @property
    def image_rgb(self) -> np.ndarray | None:
        """The overlay of the last image, RGB uint8 (H, W, 3); None where there is none."""
        return self.paint and self.paint()

    def add(self, answer, seconds: float) -> None:
        """Count one image that was explained within so many seconds."""
        self.done += 1
        self.seconds += seconds
        for model, found in answer.found.items():
            self.outcomes[model].update(detection.outcome for detection in found)


def count_finished(finished: Iterable[Finished], findings: Findings, ways: int) -> None:
    """Count what became of the detections of a stopped run; its table has each once for each of the ways to explain."""
    for done in finished:
        for model, outcomes in done.outcomes.items():
            findings.outcomes[model].update({outcome: count // ways for outcome, count in outcomes.items()})


def log_frame(frame, answer, seconds: float, verbose: bool) -> None:
    """Log one line per image as detect.py does, why a map is empty, and each detection where it is asked for."""
    found = "; ".join(of_model(model, found_in_words(entries)) for model, entries in answer.found.items())
    height, width = answer.image_rgb.shape[:2]
    LOGGER.info(f"{printable(frame.caption)}{height}x{width} {found}, {seconds * 1e3:.1f}ms")
    for note in answer.notes:
        LOGGER.info(f"  {printable(frame.path.name)}: {note}")
    if verbose:
        for explanation in answer.explanations:
            log_detections(explanation)


def log_detections(answer) -> None:
    """Log one line per detection of one answer."""
    for entry in answer.detections:
        read = f"layer {' '.join(entry.layers)}, {answer.method} score {entry.score:.4g}"
        LOGGER.info(f"  {of_model(answer.model, entry.title)}, {read}{'; ' * bool(entry.note)}{entry.note}")


def of_model(model: str, text: str) -> str:
    """Return a text about a model after its name, where it has one because there are several."""
    return f"{model}: {text}" if model else text


def log_suspects(suspects: Suspects) -> None:
    """Log the detections whose evidence lies most outside their box, the most suspect first."""
    for entry in suspects.kept:
        LOGGER.info(f"Suspect: {entry.line}")


def log_closing(findings: Findings, folder: Path, judged: bool) -> None:
    """Log where the results are, how long an image took and, if they were judged, what became of the detections."""
    if judged:
        for model, outcomes in findings.outcomes.items():
            LOGGER.info(f"Labels: {of_model(model, judged_in_words(outcomes))}")
    if findings.done:
        explaining, saving = (1e3 * seconds / findings.done for seconds in (findings.seconds, findings.saving))
        LOGGER.info(f"Speed: {explaining:.1f}ms explain, {saving:.1f}ms draw and save per image")
    log_end(findings, folder)


@contextmanager
def reporting(results, options, findings: Findings) -> Iterator[object | None]:
    """Give the page of a run in the making, None where none is asked for. It is written at the end, whatever ends the run."""
    if not options.report:
        yield None
        return
    from explainer.pictures.report import Report

    facts, warnings = facts_of("explainer.py", options), ["the run was stopped before its end."]
    with results.page() as page:
        report = Report(page, title="Explanations", about=asked_of(options), facts=facts, style=options.style)
        try:
            yield report
            warnings.clear()
        finally:
            if len(page):
                log_page(report.write(warnings=warnings + warnings_of(findings)))
            else:
                LOGGER.warning("WARNING ⚠️ no report: no image was explained")


def asked_of(options) -> str:
    """Return in a line which methods and weights a page is about."""
    weights = [Path(entry).name for entry in weights_of(options) if isinstance(entry, (str, Path))]
    return " · ".join(filter(None, (", ".join(as_tuple(options.method)), ", ".join(weights))))


def weights_of(options) -> tuple:
    """Return the weights of a run, or those that it compares."""
    return as_tuple(getattr(options, "compare", None) or options.weights)


def warnings_of(tally: Tally) -> list[str]:
    """Return what a page has to say about images that were skipped."""
    return [f"{several(tally.skipped, 'image')} could not be read; the log says which."] if tally.skipped else []


def log_page(written: tuple[Path, Path | None]) -> None:
    """Log where a page is, and the folder with its pictures where they do not lie in it."""
    path, beside = written
    LOGGER.info(f"Report: {path}" + (f", with its pictures in {beside}; keep them together" if beside else ""))


def facts_of(script: str, options) -> dict[str, list[str]]:
    """Return what is needed to repeat a run, as texts: the command, the date, versions, the weights with their SHA-256."""
    return {
        "command": [command_of(script, options)],
        "date": [datetime.now().astimezone().isoformat(" ", "seconds")],
        "versions": [", ".join(versions())],
        "weights": [weights_in_words(entry) for entry in weights_of(options)],
    }


def command_of(script: str, options) -> str:
    """Return the command that was typed or, where `run` was called, a call that does the same."""
    # To go on is not to repeat: the call has the options that the run was started with.
    if Path(sys.argv[0]).name == script and not any(word.startswith("--res") for word in sys.argv):
        return shlex.join(["python", *sys.argv])
    usual = type(options)()
    given = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    changed = {name: value for name, value in given.items() if value != getattr(usual, name)}
    return f"run({', '.join(f'{name}={value_in_words(value)}' for name, value in changed.items())})"


def value_in_words(value: object) -> str:
    """Return a value of an option as it is written in Python; the kind of a model that was already loaded."""
    if isinstance(value, Path):
        return repr(str(value))
    return repr(value) if isinstance(value, (bool, int, float, str, tuple, list)) else type(value).__name__


def versions() -> list[str]:
    """Return the versions of what computes the maps, a text each."""
    known = [f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    # The checkout that the folder was copied into has a project file of its own.
    if found := re.search(r'name = "(yolov5-explainer)"\nversion = "(.+)"', text):
        known.insert(0, " ".join(found.groups()))
    for package in ("torch", "grad-cam", "numpy", "opencv-python-headless", "opencv-python"):
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return known


def weights_in_words(entry: object) -> str:
    """Return the name of a file of weights and its SHA-256, where it is a file."""
    if not isinstance(entry, (str, Path)):
        return f"a model that was already loaded: {type(entry).__name__}"
    path = Path(entry)
    return f"{path.name}, SHA-256 {sha256_of(path)}" if path.is_file() else str(entry)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def found_in_words(detections: Iterable[Detection]) -> str:
    """Return what was found in an image and, where its labels are known, what became of it: '2 dogs (1 hit, ...)'.

    Where nothing was found, it says which prediction came closest.
    """
    detections = list(detections)
    counts = Counter(found.name for found in detections if found.was_found)
    names = ", ".join(several(count, name) for name, count in counts.items()) or "(no detections)"
    outcomes = Counter(found.outcome for found in detections if found.outcome)
    if outcomes[NEAR_MISS]:
        return ", ".join((names, *(found.remark for found in detections)))
    if outcomes[GIVEN]:
        return counted(outcomes[GIVEN], GIVEN)
    return f"{names} ({judged_in_words(outcomes)})" if outcomes else names


def several(count: int, name: str) -> str:
    """Return so many of a class in words."""
    return f"{count} {name}" if count == 1 or name.endswith("s") else f"{count} {name}s"


def judged_in_words(outcomes: Mapping[str, int]) -> str:
    """Return how many detections and labels came to what, such as '3 hits, 0 false alarms, 1 miss'."""
    return ", ".join(counted(outcomes.get(outcome, 0), outcome) for outcome in (HIT, FALSE_ALARM, MISS))


def counted(count: int, outcome: str) -> str:
    """Return so many of an outcome in words."""
    word = {GIVEN: "given box"}.get(outcome, outcome) if count == 1 else PLURALS[outcome]
    return f"{count} {word}"
