"""Go on with a training that was interrupted."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from explainer.checkpoints.checkpoint import read_checkpoint
from utils.logger import LOGGER
from utils.train_options import TrainOptions


def take_up(options: TrainOptions) -> tuple[TrainOptions, dict[str, Any], Path]:
    """Return the options of the run to go on with, its last checkpoint, and its folder.

    Raises:
        FileNotFoundError: when there is none; ValueError: when it is finished.
    """
    last = Path(options.resume) if isinstance(options.resume, str) else find_latest(Path(options.project))
    entries = read_checkpoint(last, trust=options.trust)
    if entries.get("optimizer") is None or entries.get("epoch", -1) < 0:
        raise ValueError(f"{last}: this training is finished; to train on from it, give --weights {last}")
    folder = last.resolve().parent.parent
    saved = _saved_options(folder, entries)
    known = {each.name for each in fields(TrainOptions)}
    restored = TrainOptions(**{name: value for name, value in saved.items() if name in known})
    LOGGER.info(f"Resuming {last} after epoch {entries['epoch']}, up to {restored.epochs} epochs")
    return replace(restored, weights=str(last), resume=str(last), trust=options.trust), entries, folder


def find_latest(project: Path) -> Path:
    """Return the last.pt below `project` that was written last."""
    found = sorted(project.rglob("last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"no last.pt in {project} to resume from; give its path: --resume path/to/last.pt")
    return found[-1]


def _saved_options(folder: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Return the options in the run's opt.yaml, or where there is none those in its checkpoint."""
    path = folder / "opt.yaml"
    if path.is_file():
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    saved = entries.get("opt")
    if not saved:
        raise ValueError(f"{folder} has no opt.yaml, and its last.pt no options; begin anew with --weights")
    return dict(saved) if isinstance(saved, dict) else vars(saved)
