"""What the models of a comparison are called."""

from collections.abc import Sequence
from pathlib import Path

from explainer.errors import UsageError


def model_names(models: Sequence) -> list[str]:
    """Return the file name of each model, with as many folders before it as tell them apart; UsageError for one twice.

    A model that is no path, because it is already loaded, is called after its place.
    """
    parts = [
        Path(model).absolute().parts if isinstance(model, (str, Path)) else (f"model {number}",)
        for number, model in enumerate(models, start=1)
    ]
    for count in range(1, max(map(len, parts)) + 1):
        names = [Path(*entry[-count:]).as_posix() for entry in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(model for model, name in zip(models, names, strict=True) if names.count(name) > 1)
    raise UsageError(f"--compare names {twice} twice; give each model once")
