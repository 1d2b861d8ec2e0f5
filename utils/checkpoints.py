"""Checkpoints: what train.py saves after every epoch, and what is left of it for detecting."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explainer.checkpoints.checkpoint import read_checkpoint
from utils.ema import ModelEMA, de_parallel
from utils.logger import LOGGER
from utils.paths import ROOT, naming_failed_writes

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
                torch.save(dict(entries), file)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
        answer = subprocess.run(["git", *question], cwd=ROOT, capture_output=True, text=True, check=True)
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
