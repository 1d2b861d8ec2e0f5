"""Dataset YAMLs: where the images of each split are, and the names of the classes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import yaml

from utils.base.checks import check_file
from utils.base.downloads import safe_download
from utils.base.logger import LOGGER
from utils.base.paths import ROOT

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
    source, content = _read(data)
    missing = [key for key in ("train", "val", "names") if not content.get(key)]
    if missing:
        raise ValueError(f"{source} lacks {', '.join(missing)}: a dataset YAML names train, val and names")
    names = _indexed_names(source, content)
    root = _find_root(source, content)
    content |= {split: _resolve(root, content.get(split)) for split in SPLITS}
    content |= {"path": root, "names": names, "nc": len(names)}
    _check_present(source, content, autodownload)
    return content


def _read(data: str | Path | dict) -> tuple[Path, dict[str, Any]]:
    """Return the path of the YAML, for messages, and a copy of its content."""
    if isinstance(data, dict):
        return Path(data.get("yaml_file", "the dataset")), dict(data)
    path = Path(check_file(data, suffix=(".yaml", ".yml")))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8", errors="ignore"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'key: value' lines: a dataset YAML names train, val and names")
    return path, content | {"yaml_file": str(path)}


def _indexed_names(source: Path, content: dict[str, Any]) -> dict[int, str]:
    """Return the names by index; ValueError where indices have gaps or do not agree with `nc`."""
    names = content["names"]
    if not isinstance(names, (dict, list)):
        raise ValueError(f"{source}: names is {names!r}; give a list of class names, or one 'index: name' per line")
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if set(names) != set(range(len(names))):
        raise ValueError(f"{source}: names has the indices {list(names)}; number the {len(names)} classes from 0 on")
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{source}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    return {index: str(names[index]) for index in range(len(names))}


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
        hint = "; its download entry is a script, which you can run yourself" if address and "\n" in address else ""
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
