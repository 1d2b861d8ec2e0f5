"""Fetching weights and files, under the path that code written for YOLOv5 imports it from."""

from utils.base.downloads import (
    CHUNK_BYTES,
    OFFICIAL_WEIGHTS,
    RELEASE_URL,
    TIMEOUT_SECONDS,
    attempt_download,
    safe_download,
)
from utils.base.logger import LOGGER

__all__ = [
    "CHUNK_BYTES",
    "LOGGER",
    "OFFICIAL_WEIGHTS",
    "RELEASE_URL",
    "TIMEOUT_SECONDS",
    "attempt_download",
    "safe_download",
]
