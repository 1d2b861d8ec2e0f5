"""Fetch weights and files that the user named, and nothing else."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from itertools import product
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from utils.base.logger import LOGGER

RELEASE_URL = "https://github.com/{repo}/releases/download/{release}/{name}"
OFFICIAL_WEIGHTS = tuple(f"yolov5{size}{kind}.pt" for kind, size in product(("", "6", "-seg", "-cls"), "nsmlx"))
CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30


def attempt_download(file: str | Path, repo: str = "ultralytics/yolov5", release: str = "v7.0") -> str:
    """Return the path of weights: `file` itself where it exists, else after fetching it.

    Args:
        file: a path; the name of official weights, alone or in a folder, which are fetched to just there, with or without
            their .pt; or an address (http, https), which is fetched into the working folder.
        repo: the GitHub repository with the official weights.
        release: the tag of its release.

    Raises:
        FileNotFoundError: for a file that does not exist and is not among the official weights.
        OSError: when the download fails.
    """
    if str(file).startswith(("http://", "https://")):
        return _fetched(Path(unquote(urlsplit(str(file)).path)).name, str(file))
    path = _with_suffix(Path(file))
    if path.name not in OFFICIAL_WEIGHTS or path.exists():
        return str(_checked_existing(path))
    return _fetched(path, RELEASE_URL.format(repo=repo, release=release, name=path.name))


def _with_suffix(path: Path) -> Path:
    """Return a path as it is, but an official name such as yolov5n with its .pt."""
    whole = path.with_name(f"{path.name}.pt")
    return whole if whole.name in OFFICIAL_WEIGHTS and not path.is_file() else path


def _checked_existing(path: Path) -> Path:
    if not path.exists():
        known = ", ".join(OFFICIAL_WEIGHTS)
        raise FileNotFoundError(f"{path} does not exist; give an existing file, or official weights: {known}")
    return path


def _fetched(file: str | Path, url: str) -> str:
    """Return the path of a file that is fetched where it is missing."""
    if Path(file).is_file():
        LOGGER.info(f"{url} is already here as {file}")
    else:
        safe_download(file, url)
    return str(file)


def safe_download(file: str | Path, url: str, *, min_bytes: int = 1) -> Path:
    """Fetch `url` to `file` with a progress bar; the file appears when it is complete, or not at all.

    Raises:
        OSError: naming both, when the download fails, stops half-way, or gives less than `min_bytes`.
    """
    path = Path(file)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    LOGGER.info(f"Downloading {url} to {path}...")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, min_bytes)
        part.replace(path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OSError(
            f"{path} could not be downloaded from {url} ({_reason(error)}); "
            f"check the network and the address, or put the file there yourself"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(url: str, part: Path, min_bytes: int) -> None:
    """Write what `url` answers to `part`, and check its length."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, part.open("wb") as out:
        announced = int(answer.headers.get("Content-Length") or 0)
        _copy(answer, out, announced)
        size = out.tell()
    if size < max(announced, min_bytes):
        raise OSError(f"it ended after {size} of {max(announced, min_bytes)} bytes")


def _copy(answer: BinaryIO, out: BinaryIO, total: int) -> None:
    """Copy a stream in pieces under a progress bar."""
    from tqdm import tqdm

    with tqdm(total=total or None, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        while chunk := answer.read(CHUNK_BYTES):
            out.write(chunk)
            bar.update(len(chunk))


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
