"""Dataset YAMLs: where the images of each split are, and the names of the classes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import NoneType
from typing import Any

from explainer.checkpoints.repair import names_by_index
from utils.base.checks import check_file
from utils.base.downloads import safe_download
from utils.base.logger import LOGGER
from utils.base.paths import ROOT
from utils.base.texts import read_yaml

SPLITS = ("train", "val", "test")


def check_dataset(data: str | Path | dict, autodownload: bool = True) -> dict[str, Any]:
    """Return a dataset's description with absolute paths, and its class names by index.

    Args:
        data: a dataset YAML, or its content; one that was checked before comes back as it is.
        autodownload: whether to fetch a data set that is missing from the address that its `download` names.

    Returns:
        A dictionary with path, train, val and test (a path, a list of paths, or None), names {index: name}, nc.

    Raises:
        ValueError: for a file that is no such description; FileNotFoundError: for data that are not there.
    """
    source, content = read_dataset_yaml(data)
    missing = [key for key in ("train", "val", "names") if not content.get(key)]
    if missing:
        raise ValueError(f"{source} lacks {', '.join(missing)}: a dataset YAML names train, val and names")
    names = read_names_in(source, content)
    _check_places(source, content)
    root = _find_root(source, content)
    content |= {split: _resolve(root, content.get(split)) for split in SPLITS}
    content |= {"path": root, "names": names, "nc": len(names)}
    _check_present(source, content, autodownload)
    return content


def read_dataset_yaml(data: str | Path | dict) -> tuple[Path, dict[str, Any]]:
    """Return the path of the YAML, for messages, and a copy of its content."""
    if isinstance(data, dict):
        return Path(data.get("yaml_file", "the dataset")), dict(data)
    path = Path(check_file(data, suffix=(".yaml", ".yml")))
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'key: value' lines: a dataset YAML names train, val and names")
    return path, content | {"yaml_file": str(path)}


def read_names_in(source: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return the names by index; ValueError where there are none, indices have gaps, or they do not agree with `nc`."""
    names = content.get("names")
    if not isinstance(names, (dict, list)) or not names:
        raise ValueError(
            f"{source}: names is {_shown(names)}; give a list of class names, or one 'index: name' per line"
        )
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if set(names) != set(range(len(names))):
        raise ValueError(
            f"{source}: names has the indices {_shown(list(names))}; number the {len(names)} classes from 0 on"
        )
    for index, name in names.items():
        if isinstance(name, (dict, list, set)):
            raise ValueError(f"{source}: the name of class {index} is {_shown(name)}; give a word")
    if content.get("nc", len(names)) != len(names):
        raise ValueError(
            f"{source}: nc is {_shown(content['nc'])}, but there are {len(names)} names; correct one of them"
        )
    return names_by_index(names, len(names))


def _check_places(source: Path, content: dict[str, Any]) -> None:
    """Raise ValueError for a path or a split that is no text, or of splits a list of texts."""
    root = content.get("path")
    if not isinstance(root, (str, Path, NoneType)) or "\0" in str(root):
        raise ValueError(f"{source}: path is {_shown(root)}; give the folder that the splits are relative to")
    for split in SPLITS:
        entry = content.get(split)
        parts = entry if isinstance(entry, list) else [entry] if entry else []
        wrong = [part for part in parts if not isinstance(part, (str, Path)) or not part or "\0" in str(part)]
        if wrong:
            raise ValueError(
                f"{source}: {split} is {_shown(entry)}; give a folder of images, a list of them, or several of these"
            )


def _shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _find_root(source: Path, content: dict[str, Any]) -> Path:
    """Return the folder that the splits are relative to: beside this tree, or where there is none beside the YAML."""
    root = Path(content.get("path") or "")
    if root.is_absolute():
        return root
    beside_yaml = (source.parent / root).resolve()
    beside_tree = (ROOT / root).resolve()
    return beside_yaml if not _has_splits(beside_tree, content) and _has_splits(beside_yaml, content) else beside_tree


def _has_splits(root: Path, content: dict[str, Any]) -> bool:
    return all(path.exists() for path in _paths(_resolve(root, content["val"])))


def _resolve(root: Path, split: str | list[str] | None) -> str | list[str] | None:
    """Return the absolute path, or paths, of a split."""
    if not split:
        return None
    if isinstance(split, list):
        return [str(root / part) for part in split]
    return str(root / split)


def _paths(split: str | list[str] | None) -> list[Path]:
    return [Path(part) for part in (split if isinstance(split, list) else [split] if split else [])]


def _check_present(source: Path, content: dict[str, Any], autodownload: bool) -> None:
    """Fetch the data where they are missing and the YAML says from where; else raise FileNotFoundError."""
    if not _absent(content):
        return
    address = content.get("download")
    if autodownload and isinstance(address, str) and address.startswith("http") and address.endswith(".zip"):
        _fetch(address, content["path"].parent)
    if absent := _absent(content):
        hint = "; its download entry is a script, which you can run yourself" if "\n" in str(address) else ""
        raise FileNotFoundError(
            f"{source}: {', '.join(map(str, absent))} does not exist; correct path, train and val in it{hint}"
        )


def _absent(content: dict[str, Any]) -> list[Path]:
    return [path for split in ("train", "val") for path in _paths(content[split]) if not path.exists()]


def _fetch(address: str, folder: Path) -> None:
    """Download an archive and unpack it into `folder`."""
    archive = safe_download(folder / Path(address).name, address)
    LOGGER.info(f"Unpacking {archive} to {folder}...")
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise OSError(f"{archive} from {address} is no complete zip archive; delete it and try again") from error
    archive.unlink()
