"""What a run says: one line per image as detect.py does, why a map is empty, and what it came to in the end."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from explainer.counting import found_in_words, judged_in_words
from explainer.suspects import Suspects
from utils.general import LOGGER


@dataclass
class Tally:
    """What a run has done so far: the last picture, images explained and skipped, seconds spent, detections judged."""

    image_rgb: np.ndarray | None = None
    explained: int = 0
    skipped: int = 0
    explaining: float = 0.0
    saving: float = 0.0
    outcomes: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    suspects: Suspects = field(default_factory=lambda: Suspects(0))

    def add(self, answer, seconds: float) -> None:
        """Count one image that was explained within so many seconds."""
        self.explained += 1
        self.explaining += seconds
        for model, found in answer.found.items():
            self.outcomes[model].update(detection.outcome for detection in found)


def log_skipped(unreadable, tally: Tally) -> None:
    """Report and count one file that could not be explained."""
    LOGGER.warning(f"WARNING ⚠️ skipped {unreadable.path}: {unreadable.reason}")
    tally.skipped += 1


def log_frame(frame, answer, seconds: float, verbose: bool) -> None:
    """Log one line per image as detect.py does, why a map is empty, and each detection where it is asked for."""
    found = "; ".join(named(model, found_in_words(entries)) for model, entries in answer.found.items())
    height, width = answer.image_rgb.shape[:2]
    LOGGER.info(f"{frame.caption}{height}x{width} {found}, {seconds * 1e3:.1f}ms")
    for note in answer.notes:
        LOGGER.info(f"  {frame.path.name}: {note}")
    if verbose:
        for explanation in answer.explanations:
            log_detections(explanation)


def log_detections(answer) -> None:
    """Log one line per detection of one answer."""
    for entry in answer.detections:
        LOGGER.info(
            f"  {named(answer.model, entry.title)}, layer {' '.join(entry.layers)}, {answer.method} score {entry.score:.4g}"
            f"{'; ' * bool(entry.note)}{entry.note}"
        )


def named(model: str, text: str) -> str:
    """Return a text about a model after its name, where it has one because there are several."""
    return f"{model}: {text}" if model else text


def log_suspects(suspects: Suspects) -> None:
    """Log the detections whose evidence lies most outside their box, the most suspect first."""
    for entry in suspects.kept:
        LOGGER.info(f"Suspect: {entry.line}")


def log_closing(tally: Tally, folder: Path, judged: bool) -> None:
    """Log where the results are, how long an image took and, if they were judged, what became of the detections."""
    if judged:
        for model, outcomes in tally.outcomes.items():
            LOGGER.info(f"Labels: {named(model, judged_in_words(outcomes))}")
    if tally.explained:
        explaining, saving = (1e3 * seconds / tally.explained for seconds in (tally.explaining, tally.saving))
        LOGGER.info(f"Speed: {explaining:.1f}ms explain, {saving:.1f}ms draw and save per image")
    if tally.skipped:
        LOGGER.warning(f"WARNING ⚠️ {tally.skipped} of {tally.skipped + tally.explained} images skipped")
    LOGGER.info(f"Results saved to {folder}")
