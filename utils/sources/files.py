"""Images and videos in files, as an iterator over (path, model input, original picture, capture, log text)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from utils.augmentations import FrameTransform
from utils.base.image_io import read_image
from utils.base.media import find_media
from utils.base.texts import Listings, is_utf8

Item = tuple[str, np.ndarray, np.ndarray, cv2.VideoCapture | None, str]


class LoadImages:
    """Iterates over images, then over the frames of videos.

    Each step gives `path` (absolute), `im` (3, h, w) uint8 RGB, letterboxed, `im0` (H, W, 3) uint8 BGR, `cap` (the open
    video, None before the first) and a text for the log such as `image 1/3 /path/bus.jpg: `.

    A file that cannot be read raises OSError with its name; the loader has moved on by then, so that the caller may
    catch the error and call `next()` again.

    Attributes:
        files: absolute paths, the images before the videos; nf: their number; count: how many are done or begun.
        mode: "image" or "video", of the last item.
        frame, frames: number of the current frame from 1 on, and how many the video has at this stride, as it says.
        max_pixels: images that are larger count as unreadable; None for the limit of `utils.base.image_io`.
    """

    def __init__(
        self,
        path: str | Path | Iterable[str | Path],
        img_size: int | tuple[int, int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], np.ndarray] | None = None,
        vid_stride: int = 1,
    ) -> None:
        """Find the files of `path` (see `utils.base.media.find_media`); every `vid_stride`-th frame of a video is given.

        Raises:
            FileNotFoundError: when there is none.
        """
        images, videos = find_media(path)
        named = [path] if isinstance(path, str | Path) else list(path)
        self._listings = Listings(item for item in named if str(item).lower().endswith(".txt"))
        self.files = images + videos
        self.nf = len(self.files)
        self.video_flag = [False] * len(images) + [True] * len(videos)
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self.vid_stride = vid_stride
        self.mode = "image"
        self.max_pixels: float | None = None
        self.cap: cv2.VideoCapture | None = None
        self.count = self.frame = self.frames = 0
        self._to_input = FrameTransform(img_size, stride, auto, transforms)

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> LoadImages:
        self.close()
        self.count = 0
        return self

    def __next__(self) -> Item:
        while self.count < self.nf:
            path = self.files[self.count]
            im0 = self._next_frame(path) if self.video_flag[self.count] else self._image(path)
            if im0 is not None:
                return path, self._to_input(im0), im0, self.cap, self._log_text(path)
        self.close()
        raise StopIteration

    def _image(self, path: str) -> np.ndarray:
        self.mode = "image"
        self.count += 1
        try:
            return read_image(path, self.max_pixels)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} does not exist{self._listings.where(path)}") from error

    def _next_frame(self, path: str) -> np.ndarray | None:
        """Return the video's next frame, or None after the last one."""
        self.mode = "video"
        if not is_utf8(path):
            # OpenCV ends the process at it.
            self.count += 1
            raise OSError(f"{path} cannot be read: its name is no text in UTF-8; rename it")
        if self.cap is None or not self.cap.isOpened():
            self._open_video(path)
        skipped = all(self.cap.grab() for _ in range(self.vid_stride))
        found, im0 = self.cap.retrieve() if skipped else (False, None)
        if found:
            self.frame += 1
            return im0
        self.count += 1
        self.cap.release()
        if not self.frame:
            raise OSError(f"{path} cannot be read: it is damaged, or no video in a format that OpenCV knows")
        return None

    def _open_video(self, path: str) -> None:
        self.cap = cv2.VideoCapture(path)
        self.frame = 0
        self.frames = int(self.cap.get(cv2.CAP_PROP_FRAME_COUNT) / self.vid_stride)

    def _log_text(self, path: str) -> str:
        if self.mode == "image":
            return f"image {self.count}/{self.nf} {path}: "
        return f"video {self.count + 1}/{self.nf} ({self.frame}/{self.frames}) {path}: "

    def close(self) -> None:
        """Release the open video."""
        if self.cap is not None:
            self.cap.release()
            self.cap = None
