"""The files that detect.py leaves: pictures, videos, labels, a table, crops. Every failed write raises OSError."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.base.boxes import xyxy2xywh
from utils.base.image_io import writable_suffix, write_image
from utils.base.logger import LOGGER
from utils.base.media import IMG_FORMATS, VID_FORMATS
from utils.base.paths import UniqueNames, naming_failed_writes
from utils.detecting.detector import Found
from utils.detecting.options import DetectOptions
from utils.plots import save_one_box
from utils.sources.pictures import Picture
from utils.sources.streams import DEFAULT_FPS


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
            wanted = _output_name(path, mode)
            self._given[key] = self._unique(wanted)
            if self._given[key] != wanted:
                LOGGER.info(f"{path}: {wanted} is taken by another source of this run, saving as {self._given[key]}")
            elif mode == "image" and wanted != Path(path).name:
                LOGGER.info(f"{path}: pictures cannot be written in this format, saving as {wanted}")
        return self._given[key]


def _output_name(path: str, mode: str) -> str:
    name = Path(path)
    if mode == "image":
        return name.name if writable_suffix(name.suffix) else f"{name.stem}.jpg"
    # A dot in the address of a camera begins no suffix.
    is_file = name.suffix[1:].lower() in VID_FORMATS + IMG_FORMATS
    return f"{name.stem if is_file else name.name or 'stream'}.mp4"


class VideoFiles:
    """Writes videos as .mp4, one open per stream at a time; `close()` them all at the end."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Path, cv2.VideoWriter, tuple[int, int]]] = {}

    def write(self, path: Path, frame_bgr: np.ndarray, *, fps: float, index: int = 0) -> None:
        """Add a frame to the video `path` of stream `index`; another path closes the stream's video before.

        Raises:
            OSError: when the video cannot be written.
        """
        if index not in self._open or self._open[index][0] != path:
            self._close(index)
            size = frame_bgr.shape[1::-1]
            self._open[index] = path, _open_writer(path, fps, size), size
        _, writer, size = self._open[index]
        if frame_bgr.shape[1::-1] != size:
            # A writer drops frames of another size, as a camera may send after reconnecting.
            frame_bgr = cv2.resize(frame_bgr, size)
        writer.write(frame_bgr)

    def _close(self, index: int) -> Path | None:
        """Close a stream's video and return its path if nothing arrived on the disk."""
        if index not in self._open:
            return None
        path, writer, _ = self._open.pop(index)
        writer.release()
        return None if path.is_file() and path.stat().st_size else path

    def close(self) -> None:
        """Close all videos.

        Raises:
            OSError: naming one that is empty.
        """
        empty = [path for path in map(self._close, list(self._open)) if path]
        if empty:
            raise OSError(f"{empty[0]} cannot be written; is there space, and may you write there?")


def _open_writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    with naming_failed_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps if fps > 0 else DEFAULT_FPS, size)
    if not writer.isOpened():
        raise OSError(f"{path} cannot be written as a video of {size[0]}x{size[1]} pixels")
    return writer


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
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def append_csv(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Append rows (image name, class name, confidence) to a table, which gets a header when it is new."""
    with naming_failed_writes(path):
        is_new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(("Image Name", "Prediction", "Confidence"))
            writer.writerows([_as_cell(text) for text in row] for row in rows)


def _as_cell(text: str) -> str:
    """Return a name or a number as a cell that no spreadsheet takes for a formula: an apostrophe goes before such a name."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def save_crops(folder: Path, stem: str, found: Found, *, im_bgr: np.ndarray, names: Mapping[int, str]) -> None:
    """Save what is in each box as `folder`/class name/`stem`.jpg, then `stem`2.jpg and so on."""
    for *xyxy, _, category in reversed(found.boxes.tolist()):
        class_folder = names[int(category)].replace("/", "_").replace("\\", "_").strip(".") or "_"
        save_one_box(xyxy, im_bgr, folder / class_folder / f"{stem}.jpg", BGR=True)


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

    def save_detections(self, picture: Picture, found: Found) -> None:
        """Write labels, table and crops; the picture must not be drawn on yet."""
        if not len(found):
            return
        options, stem = self.options, Path(self.output_name(picture)).stem
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
        path = self.folder / self.output_name(picture)
        if picture.mode == "image":
            write_image(path, picture.im_bgr)
        else:
            self._videos.write(path, picture.im_bgr, fps=picture.fps, index=picture.index)

    def labels_saved(self) -> int:
        """Return the number of label files in the folder."""
        return len(list(self.folder.glob("labels/*.txt")))

    def __enter__(self) -> ResultFiles:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._videos.close()
