"""One picture at a time out of any loader, whatever it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from utils.base.checks import check_file
from utils.base.logger import LOGGER
from utils.base.media import find_media, is_media_file, is_screen, is_stream, is_url
from utils.sources.files import LoadImages
from utils.sources.screenshots import LoadScreenshots, parse_screen_source
from utils.sources.streams import DEFAULT_FPS, LoadStreams


@dataclass(frozen=True)
class Picture:
    """A picture to detect in.

    Attributes:
        path: the file, or the name of the stream or screen.
        im_bgr: (H, W, 3) uint8 at the original size; may be drawn on.
        mode: "image", "video" or "stream".
        index: its number among streams that are read together.
        frame: its number in a video or stream.
        fps: pictures per second of a video or stream.
    """

    path: str
    im_bgr: np.ndarray
    mode: str = "image"
    index: int = 0
    frame: int = 0
    fps: float = DEFAULT_FPS


@dataclass(frozen=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        im: (3, h, w), or (B, 3, h, w) of several streams, uint8 RGB, letterboxed.
        pictures: the original picture, or those of the streams.
        text: the beginning of the log line.
    """

    im: np.ndarray
    pictures: list[Picture]
    text: str


def check_source(source: str) -> None:
    """Raise FileNotFoundError for files that are not there, ValueError for no part of a screen.

    Whether a stream or an address can be reached shows when it is opened.
    """
    if is_screen(source):
        parse_screen_source(source)
    elif not (is_stream(source) or is_url(source)):
        find_media(source)


def open_loader(source: str, imgsz: list[int], *, stride: int, auto: bool, vid_stride: int) -> Any:
    """Return the loader for a source: LoadStreams, LoadScreenshots or LoadImages; a file on the web is fetched."""
    if is_stream(source):
        return LoadStreams(source, img_size=imgsz, stride=stride, auto=auto, vid_stride=vid_stride)
    if is_screen(source):
        return LoadScreenshots(source, img_size=imgsz, stride=stride, auto=auto)
    if is_url(source) and is_media_file(source):
        source = check_file(source)
    return LoadImages(source, img_size=imgsz, stride=stride, auto=auto, vid_stride=vid_stride)


class Batches:
    """Iterates over what a loader gives; reports, counts and passes over files that cannot be read.

    Attributes:
        unreadable: the number of those files so far.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.unreadable = 0

    def __iter__(self) -> Iterator[Batch]:
        items = iter(self.loader)
        while True:
            try:
                path, im, im0, capture, text = next(items)
            except StopIteration:
                return
            except OSError as error:
                self.unreadable += 1
                LOGGER.error(f"ERROR: {error}; skipped")
                continue
            yield Batch(im, self._pictures(path, im0, capture), text)

    def _pictures(self, path: Any, im0: Any, capture: cv2.VideoCapture | None) -> list[Picture]:
        loader = self.loader
        if isinstance(path, list):
            # The loader keeps each stream's newest picture and may give it again.
            streams = enumerate(zip(path, im0, loader.fps, strict=True))
            return [Picture(name, im.copy(), "stream", i, loader.count, fps) for i, (name, im, fps) in streams]
        if loader.mode == "video":
            return [Picture(path, im0, "video", 0, loader.frame, capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS)]
        return [Picture(path, im0, loader.mode, 0, loader.frame if loader.mode == "stream" else 0)]
