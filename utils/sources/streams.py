"""Cameras and network streams, read in the background so that detection always sees a fresh picture."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from utils.augmentations import FrameTransform
from utils.base.logger import LOGGER
from utils.base.media import hide_password
from utils.base.texts import read_text

# A stream or a video that names no speed, or an absurd one, is taken to have this one.
DEFAULT_FPS, HIGHEST_FPS = 30.0, 300.0
# How often, and after how many seconds each, a live stream that fell silent is opened again.
RECONNECTS, RECONNECT_SECONDS = 5, 1.0
# A read from a dead network may hang; closing waits for it this long.
CLOSE_SECONDS = 5.0


class StreamReader:
    """Reads one stream in a thread and keeps its newest picture.

    Attributes:
        fps: pictures per second; frames: how many there are, inf for a live stream.
        fresh: whether the newest picture was not taken yet; ended: whether there will be no further one.
        error: why the stream ended before its time, or None.
    """

    def __init__(self, source: str, changed: threading.Condition, vid_stride: int = 1) -> None:
        """Open the stream and read its first picture; `changed` is notified of every further one, and of the end.

        Raises:
            OSError: when the stream cannot be opened.
        """
        self.source, self.vid_stride = source, vid_stride
        self._changed = changed
        self._stop = threading.Event()
        self.capture = cv2.VideoCapture(_address(source))
        found, self.image = self.capture.read()
        if not found:
            self.capture.release()
            raise OSError(
                f"stream {hide_password(source)} cannot be opened; check its address, and that it is on and free"
            )
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= HIGHEST_FPS else DEFAULT_FPS
        self.frames = max(self.capture.get(cv2.CAP_PROP_FRAME_COUNT), 0) or float("inf")
        self.fresh, self.ended = True, False
        self.error: OSError | None = None
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> np.ndarray:
        """Return the newest picture and mark it as seen."""
        self.fresh = False
        return self.image

    def close(self) -> None:
        """Stop reading and release the stream."""
        self._stop.set()
        if self._thread.ident is None:
            self.capture.release()
        else:
            self._thread.join(CLOSE_SECONDS)
        self.fresh, self.ended = False, True

    def _read_on(self) -> None:
        """Read until the end, a failure or `close()`; runs in the thread."""
        try:
            while not self._stop.is_set():
                image = self._next_image()
                if image is None:
                    break
                self._publish(image)
        except OSError as error:
            self.error = error
        finally:
            self.capture.release()
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _publish(self, image: np.ndarray) -> None:
        with self._changed:
            self.image, self.fresh = image, True
            self._changed.notify_all()

    def _next_image(self) -> np.ndarray | None:
        """Return the next picture, or None after the last one of a recording."""
        live = self.frames == float("inf")
        if not live:
            # A recording is played at its own speed: reading ahead would drop its pictures.
            self._stop.wait(self.vid_stride / self.fps)
        found, image = self._read()
        return image if found or not live else self._reconnect()

    def _read(self) -> tuple[bool, np.ndarray | None]:
        grabbed = all(self.capture.grab() for _ in range(self.vid_stride))
        return self.capture.retrieve() if grabbed else (False, None)

    def _reconnect(self) -> np.ndarray | None:
        LOGGER.warning(f"stream {hide_password(self.source)} does not answer; connecting again")
        for _ in range(RECONNECTS):
            if self._stop.wait(RECONNECT_SECONDS):
                return None
            self.capture.open(_address(self.source))
            found, image = self._read()
            if found:
                return image
        raise OSError(f"stream {hide_password(self.source)} stopped answering")


class LoadStreams:
    """Iterates over the newest pictures of one or several streams; ends when the first of them has ended.

    Each step waits until there is a picture that was not given yet, then gives `sources` (a list of names that are safe
    in paths), `im` (B, 3, h, w) uint8 RGB, letterboxed, `im0` (a list of B pictures (H, W, 3) uint8 BGR), None and ''.
    Pictures that arrive faster than they are asked for are dropped. A live stream that is lost for good raises OSError
    once, then the iteration ends.

    Use it in a `with` block or call `close()`: the streams are read in threads.
    """

    def __init__(
        self,
        sources: str = "file.streams",
        img_size: int | tuple[int, int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], np.ndarray] | None = None,
        vid_stride: int = 1,
    ) -> None:
        """Open a URL, a webcam's number or a video file, or all that a text file names, one per line.

        Raises:
            OSError: when one of them cannot be opened, or the list is empty.
        """
        addresses = _addresses(sources)
        self.sources = [clean_str(address) for address in addresses]
        self.img_size, self.stride, self.transforms, self.vid_stride = img_size, stride, transforms, vid_stride
        self.mode = "stream"
        self.count = -1
        self._changed = threading.Condition()
        self._readers: list[StreamReader] = []
        try:
            for number, address in enumerate(addresses, 1):
                self._open(address, f"{number}/{len(addresses)}")
        except OSError:
            self.close()
            raise
        self.auto = auto and (transforms is not None or self._same_shape())
        self._to_input = FrameTransform(img_size, stride, self.auto, transforms)
        for reader in self._readers:
            reader.start()

    def _open(self, address: str, number: str) -> None:
        reader = StreamReader(address, self._changed, self.vid_stride)
        self._readers.append(reader)
        height, width = reader.image.shape[:2]
        what = f"{reader.frames:g} frames {width}x{height} at {reader.fps:.2f} FPS"
        LOGGER.info(f"{number}: {hide_password(address)}... Success ({what})")

    def _same_shape(self) -> bool:
        """Whether all streams have one shape after letterboxing; only then they may keep a rectangle of their own."""
        to_input = FrameTransform(self.img_size, self.stride)
        same = len({to_input(reader.image).shape for reader in self._readers}) == 1
        if not same:
            LOGGER.warning("the streams differ in shape, so all are padded to the full frame; equal shapes are faster")
        return same

    @property
    def fps(self) -> list[float]:
        return [reader.fps for reader in self._readers]

    @property
    def frames(self) -> list[float]:
        return [reader.frames for reader in self._readers]

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> LoadStreams:
        self.count = -1
        return self

    def __next__(self) -> tuple[list[str], np.ndarray, list[np.ndarray], None, str]:
        im0 = self._fresh_images()
        self.count += 1
        return self.sources, np.stack([self._to_input(image) for image in im0]), im0, None, ""

    def _fresh_images(self) -> list[np.ndarray]:
        """Wait for a new picture of any stream, then return the newest of each."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_fresh() or self._has_ended())
            if self._has_fresh():
                return [reader.take() for reader in self._readers]
        failed = next((reader for reader in self._readers if reader.error), None)
        self.close()
        if failed:
            error, failed.error = failed.error, None
            raise error
        raise StopIteration

    def _has_fresh(self) -> bool:
        return any(reader.fresh for reader in self._readers)

    def _has_ended(self) -> bool:
        return any(reader.ended for reader in self._readers)

    def close(self) -> None:
        """Stop the threads and release the streams."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> LoadStreams:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def clean_str(text: str) -> str:
    """Return `text` with an underscore for every character that does not belong into a file name or a path."""
    return re.sub(r"[^\w./\\ -]", "_", text)


def _addresses(sources: str) -> list[str]:
    """Return the streams that `sources` names: itself, or the lines of a text file."""
    path = Path(sources)
    if not path.is_file() or path.suffix.lower() not in (".streams", ".txt"):
        if path.suffix.lower() == ".streams":
            raise FileNotFoundError(f"{sources} does not exist; give a text file with one stream per line")
        return [str(sources)]
    lines = [line.strip() for line in read_text(path).split("\n")]
    addresses = [line for line in lines if line and not line.startswith("#")]
    if not addresses:
        raise OSError(f"{sources} names no stream; write one address per line")
    return addresses


def _address(source: str) -> str | int:
    """Return what OpenCV takes: a number for a webcam, else the text."""
    return int(source) if source.isdecimal() else source
