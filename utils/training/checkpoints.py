"""Checkpoints: what train.py saves after every epoch, what is left of it for detecting, and going on from one."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from explainer.checkpoints.checkpoint import read_checkpoint
from utils.base.logger import LOGGER
from utils.base.paths import ROOT, naming_failed_writes
from utils.base.texts import read_yaml
from utils.training.model_ema import ModelEMA, de_parallel
from utils.training.options import TrainOptions

# What only going on with a training needs.
TRAINING_ENTRIES = ("optimizer", "best_fitness", "ema", "updates")


def training_entries(
    model: nn.Module, ema: ModelEMA, optimizer: torch.optim.Optimizer, *, epoch: int, best_fitness: float, opt: dict
) -> dict[str, Any]:
    """Return what a checkpoint holds, models in half precision: all that is needed to go on after `epoch`."""
    return {
        "epoch": epoch,
        "best_fitness": best_fitness,
        "model": copy.deepcopy(de_parallel(model)).half(),
        "ema": copy.deepcopy(ema.ema).half(),
        "updates": ema.updates,
        "optimizer": optimizer.state_dict(),
        "opt": opt,
        "git": git_state(),
        "date": datetime.now().isoformat(),
    }


def save_checkpoint(entries: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint; it appears whole or not at all, so that a kill leaves the one before.

    Raises:
        OSError: naming the file, when it cannot be written.
    """
    # One name for all attempts: what a kill leaves is overwritten by the next one.
    part = path.with_name(f"{path.name}.part")
    try:
        with naming_failed_writes(path):
            # torch reports a full disk as RuntimeError when it writes to a path, and the system's own error to a file.
            with part.open("wb") as file:
                _save(dict(entries), file)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _save(entries: dict[str, Any], file: BinaryIO) -> None:
    """Save entries; OSError, without the complaint of torch's writer that follows it, where the file cannot be written."""
    try:
        torch.save(entries, file)
    except RuntimeError as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror) from error


def git_state() -> dict[str, str | None]:
    """Return remote, branch and commit of this tree, each None where it is no repository."""
    questions = {
        "remote": ("config", "--get", "remote.origin.url"),
        "branch": ("rev-parse", "--abbrev-ref", "HEAD"),
        "commit": ("rev-parse", "HEAD"),
    }
    return {name: _ask_git(question) for name, question in questions.items()}


def _ask_git(question: tuple[str, ...]) -> str | None:
    try:
        answer = subprocess.run(["git", *question], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None


def strip_optimizer(f: str | Path, s: str | Path = "") -> None:
    """Reduce the checkpoint `f` to what detecting needs, in half precision; write it to `s`, or in place."""
    entries = read_checkpoint(f)
    entries["model"] = entries["ema"] if entries.get("ema") is not None else entries["model"]
    entries.update(dict.fromkeys(TRAINING_ENTRIES))
    entries["epoch"] = -1
    entries["model"].half().requires_grad_(False)
    target = Path(s or f)
    save_checkpoint(entries, target)
    size = target.stat().st_size / 1e6
    LOGGER.info(f"Optimizer stripped from {f},{f' saved as {s},' if s else ''} {size:.1f}MB")


def intersect_dicts(
    da: Mapping[str, Tensor], db: Mapping[str, Tensor], exclude: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Return the entries of `da` that `db` has in the same shape, without those whose name holds a word of `exclude`."""
    words = tuple(exclude)
    return {
        name: value
        for name, value in da.items()
        if name in db and value.shape == db[name].shape and not any(word in name for word in words)
    }


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
    restored = restored_options(folder, entries)
    LOGGER.info(f"Resuming {last} after epoch {entries['epoch']}, up to {restored.epochs} epochs")
    return replace(restored, weights=str(last), resume=str(last), trust=options.trust), entries, folder


def restored_options(folder: Path, entries: dict[str, Any]) -> TrainOptions:
    """Return the options of a run, whose last checkpoint has `entries`; ValueError, naming the file, for damaged ones."""
    saved = _saved_options(folder, entries)
    known = {each.name for each in fields(TrainOptions)}
    try:
        return TrainOptions(**{name: value for name, value in saved.items() if name in known})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'opt.yaml'} holds options that cannot be: {error}") from error


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
        saved = read_yaml(path)
        if not isinstance(saved, dict):
            raise ValueError(f"{path} is damaged: it holds no options; delete it to take those in last.pt")
        return saved
    saved = entries.get("opt")
    if not saved:
        raise ValueError(f"{folder} has no opt.yaml, and its last.pt no options; begin anew with --weights")
    return dict(saved) if isinstance(saved, dict) else vars(saved)
