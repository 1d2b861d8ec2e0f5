"""From what the user names as weights to a model that gradients can be taken of."""

from pathlib import Path

from explainer.errors import UsageError


def check_weights(weights) -> tuple:
    """Return the weights as a tuple; UsageError for a file that cannot hold what an explanation needs."""
    entries = tuple(weights) if isinstance(weights, (list, tuple)) else (weights,)
    for entry in entries:
        if isinstance(entry, (str, Path)) and Path(entry).suffix.lower() != ".pt":
            raise UsageError(
                f"weights '{entry}' is no .pt checkpoint, and an exported model has no gradients; "
                "give the .pt file that it was made from"
            )
    return entries


def open_model(weights, *, device: str = "", half: bool = False, data: str | None = None, trust: bool = False):
    """Return a detection model in evaluation mode and on its device; a list of several for an ensemble.

    weights: the path or official name of a .pt checkpoint, or several, or a model that is already loaded, which comes
    back as it is. data: a dataset YAML whose class names replace those of the checkpoint.
    Nothing but an official checkpoint that is not at hand is downloaded. UsageError says what is wrong with a file.
    """
    from torch import nn

    entries = check_weights(weights)
    place = open_device(device) if any(isinstance(entry, (str, Path)) for entry in entries) else None
    models = [load(entry, place, half, trust) if isinstance(entry, (str, Path)) else entry for entry in entries]
    if data:
        for model in models:
            model.names = class_names_of(data, len(model.names))
    return models[0] if len(models) == 1 else nn.ModuleList(models)


def load(path: str | Path, device, half: bool, trust: bool):
    """Return the model of one checkpoint, fused; UsageError for a file that is none or is not there."""
    from explainer.checkpoint import load_model
    from utils.general import LOGGER

    model = load_model(find_or_download(path), trust=trust).to(device).fuse().eval()
    if half and device.type == "cpu":
        LOGGER.warning("WARNING ⚠️ half precision needs a GPU; going on in full precision")
    return model.half() if half and device.type != "cpu" else model


def find_or_download(path: str | Path) -> str | Path:
    """Return the path of a checkpoint that is there, after a download if it has an official name."""
    from utils.downloads import attempt_download

    if Path(path).exists():
        return path
    try:
        return attempt_download(path)
    except OSError as error:
        raise UsageError(str(error)) from error


def open_device(device: str):
    """Return the torch device for 'cpu', '0' or ''; UsageError for one that is not there."""
    from utils.torch_utils import select_device

    # A stock checkout asserts that the device is there; this tree raises ValueError.
    try:
        return select_device(device)
    except (ValueError, AssertionError) as error:
        raise UsageError(str(error)) from error


def class_names_of(data: str, count: int) -> dict[int, str]:
    """Return the class names that a dataset YAML gives; UsageError unless there are `count`."""
    import yaml

    try:
        names = yaml.safe_load(Path(data).read_text(encoding="utf-8"))["names"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"--data '{data}' is no dataset YAML with class names: {error}") from error
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if sorted(names) != list(range(count)):
        raise UsageError(f"--data '{data}' names {len(names)} classes, and the checkpoint has {count}")
    return names
