"""The files that detect.py leaves: pictures, videos, labels, a table, crops. Every failed write raises OSError."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.base.boxes import xyxy2xywh
from utils.base.image_io import writable_suffix, write_image
from utils.base.logger import LOGGER
from utils.base.media import IMG_FORMATS, VID_FORMATS
from utils.base.paths import (
    FailedWriteError,
    ResultFolder,
    UniqueNames,
    append_whole,
    file_name,
    naming_failed_writes,
    part_of,
    writing_whole,
)
from utils.detecting.detector import Found
from utils.detecting.options import DetectOptions
from utils.plots import save_one_box
from utils.sources.pictures import Picture
from utils.sources.streams import DEFAULT_FPS

HEADER = ("Image Name", "Prediction", "Confidence")
# A name leaves room for the number of a frame, or of a crop.
LONGEST_NUMBER = " " * 10


class OutputNames:
    """Names the results of every source after its file, so that no two sources write to the same one.

    Where labels or crops are saved too, which have no suffix of the source, `a.jpg` and `a.png` must differ as well.
    """

    def __init__(self, *, by_stem: bool) -> None:
        self._unique = UniqueNames(by_stem=by_stem)
        self._given: dict[tuple[str, int], str] = {}

    def __call__(self, path: str, mode: str, index: int = 0) -> str:
        """Return the file name for the picture or video of a source; `index` tells streams of one name apart."""
        key = (path, index)
        if key not in self._given:
            wanted = file_name(*_output_name(path, mode))
            self._given[key] = self._unique(wanted)
            if self._given[key] != wanted:
                LOGGER.info(f"{path}: {wanted} is taken by another source of this run, saving as {self._given[key]}")
            elif mode == "image" and wanted != Path(path).name:
                LOGGER.info(f"{path}: pictures cannot be written in this format, saving as {wanted}")
        return self._given[key]


def _output_name(path: str, mode: str) -> tuple[str, str]:
    """Return stem and suffix of the file for what is found in a source."""
    name = Path(path)
    if mode == "image":
        return name.stem, name.suffix if writable_suffix(name.suffix) else ".jpg"
    # A dot in the address of a camera begins no suffix.
    is_file = name.suffix[1:].lower() in VID_FORMATS + IMG_FORMATS
    return name.stem if is_file else name.name or "stream", ".mp4"


@dataclass
class OpenVideo:
    """A video that is being written: where it grows, until it is whole and goes to `path`; `size` is (width, height)."""

    path: Path
    part: Path
    size: tuple[int, int]
    writer: cv2.VideoWriter
    frames: int = 0

    def add(self, frame_bgr: np.ndarray) -> None:
        """Add a frame."""
        if frame_bgr.shape[1::-1] != self.size:
            # A writer drops frames of another size, as a camera may send after reconnecting.
            frame_bgr = cv2.resize(frame_bgr, self.size)
        self.writer.write(frame_bgr)
        self.frames += 1

    def close(self) -> None:
        """Put the video in its place; FailedWriteError where it lacks frames, as on a full disk."""
        self.writer.release()
        try:
            if _count_frames(self.part) < self.frames:
                raise FailedWriteError(f"{self.path} cannot be written; is there space, and may you write there?")
            with naming_failed_writes(self.path):
                self.part.replace(self.path)
        finally:
            with suppress(OSError):
                self.part.unlink(missing_ok=True)


class VideoFiles:
    """Writes videos as .mp4, one open per stream at a time; `close()` them all at the end, which makes them appear."""

    def __init__(self) -> None:
        self._open: dict[int, OpenVideo] = {}

    def write(self, path: Path, frame_bgr: np.ndarray, *, fps: float, index: int = 0) -> None:
        """Add a frame to the video `path` of stream `index`; another path closes the stream's video before.

        Raises:
            OSError: when the video cannot be written.
        """
        if index in self._open and self._open[index].path != path:
            self._open.pop(index).close()
        if index not in self._open:
            self._open[index] = _open_video(path, fps, frame_bgr.shape[1::-1])
        self._open[index].add(frame_bgr)

    def close(self) -> None:
        """Close all videos.

        Raises:
            OSError: naming the first that could not be written.
        """
        failed = []
        while self._open:
            try:
                self._open.popitem()[1].close()
            except OSError as error:
                failed.append(error)
        for error in failed:
            raise error


def _open_video(path: Path, fps: float, size: tuple[int, int]) -> OpenVideo:
    with naming_failed_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path, ".mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps if fps > 0 else DEFAULT_FPS, size)
    if path.is_dir() or not writer.isOpened():
        writer.release()
        part.unlink(missing_ok=True)
        raise FailedWriteError(f"{path} cannot be written as a video of {size[0]}x{size[1]} pixels")
    return OpenVideo(path, part, size, writer)


def _count_frames(path: Path) -> int:
    """Return how many frames a video has; 0 where it cannot be opened."""
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def write_labels(path: Path, found: Found, *, save_format: int, save_conf: bool) -> None:
    """Write a line per detection, the most confident last: class, box, and the confidence with `save_conf`.

    The box is x centre, y centre, width, height (`save_format` 0) or x1, y1, x2, y2 (1), each as a share of the picture.
    """
    height, width = found.shape
    boxes, confidence, category = found.boxes.flip(0).split((4, 1, 1), dim=1)
    corners = boxes / boxes.new_tensor([width, height, width, height])
    coordinates = corners if save_format else xyxy2xywh(corners)
    rows = torch.cat((category, coordinates, confidence) if save_conf else (category, coordinates), dim=1)
    lines = (" ".join(f"{value:g}" for value in row) for row in rows.tolist())
    with naming_failed_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def append_csv(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Append rows (image name, class name, confidence) to a table, which gets a header when it is new; all or none."""
    append_whole(path, _csv_text([_as_cell(text) for text in row] for row in rows), header=_csv_text([HEADER]))


def _csv_text(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as lines of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _as_cell(text: str) -> str:
    """Return a name or a number as a cell that no spreadsheet takes for a formula: an apostrophe goes before such a name."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def save_crops(folder: Path, stem: str, found: Found, *, im_bgr: np.ndarray, names: Mapping[int, str]) -> None:
    """Save what is in each box as `folder`/class name/`stem`.jpg, then `stem`2.jpg and so on."""
    for *xyxy, _, category in reversed(found.boxes.tolist()):
        class_folder = names[int(category)].replace("/", "_").replace("\\", "_").strip(".") or "_"
        path = folder / file_name(class_folder) / f"{stem}.jpg"
        save_one_box(xyxy, im_bgr, path, BGR=True)


class ResultFiles:
    """Writes what the options ask for into the folder of a run; use it in a `with` block, which makes the
    folder and closes the videos.

    Attributes:
        folder: of the run.
    """

    def __init__(self, folder: Path, options: DetectOptions, names: Mapping[int, str]) -> None:
        self.folder, self.options, self.names = folder, options, names
        self._output_names = OutputNames(by_stem=options.save_txt or options.save_crop)
        self._videos = VideoFiles()

    def output_name(self, picture: Picture) -> str:
        """Return the name of the file that the annotated picture goes to."""
        return self._output_names(picture.path, picture.mode, picture.index)

    def check_there(self) -> None:
        """Raise FailedWriteError where the folder was deleted or moved."""
        self._watched.check()

    def save_detections(self, picture: Picture, found: Found) -> None:
        """Write labels, table and crops; the picture must not be drawn on yet."""
        if not len(found):
            return
        self.check_there()
        options, stem = self.options, Path(self.output_name(picture)).stem
        stem = file_name(stem, LONGEST_NUMBER + ".jpg").removesuffix(LONGEST_NUMBER + ".jpg")
        if options.save_txt:
            label_name = stem if picture.mode == "image" else f"{stem}_{picture.frame}"
            path = self.folder / "labels" / f"{label_name}.txt"
            write_labels(path, found, save_format=options.save_format, save_conf=options.save_conf)
        if options.save_csv:
            rows = [
                (Path(picture.path).name, self.names[int(c)], f"{p:.2f}") for *_, p, c in reversed(found.boxes.tolist())
            ]
            append_csv(self.folder / "predictions.csv", rows)
        if options.save_crop:
            save_crops(self.folder / "crops", stem, found, im_bgr=picture.im_bgr, names=self.names)

    def save_picture(self, picture: Picture) -> None:
        """Write an annotated picture, or add it to its video."""
        self.check_there()
        path = self.folder / self.output_name(picture)
        if picture.mode == "image":
            write_image(path, picture.im_bgr)
        else:
            self._videos.write(path, picture.im_bgr, fps=picture.fps, index=picture.index)

    def labels_saved(self) -> int:
        """Return the number of label files in the folder."""
        return len(list(self.folder.glob("labels/*.txt")))

    def __enter__(self) -> ResultFiles:
        self._watched = ResultFolder(self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is not None:
            # What ended the run is not to be hidden by what comes of it.
            with suppress(OSError):
                self._videos.close()
            return
        self._videos.close()
        self.check_there()
