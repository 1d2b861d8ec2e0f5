"""What a run leaves on disk: pictures, videos and the table. The only module of the explainer that writes files."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from explainer.errors import UsageError
from explainer.explanation import Explanation
from explainer.sources import Frame

WHAT = ("image", "class", "name", "confidence", "x1", "y1", "x2", "y2", "stride")
WHY = ("method", "layer", "item", "score", "energy_in_box", "peak_x", "peak_y", "frame", "note")
COLUMNS = WHAT + WHY
DIGITS = dict.fromkeys(("x1", "y1", "x2", "y2"), ".2f") | {"confidence": ".5f", "score": ".6g", "energy_in_box": ".4f"}
# Suffixes that OpenCV can write; pictures of other formats become .png.
WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Results:
    """The folder of one run, made when it is entered; leaving it closes the table and the videos."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._taken: set[str] = set()
        self._videos: dict[tuple[Path, int], object] = {}
        self._folders: dict[tuple[Path, int], Path] = {}

    def __enter__(self) -> "Results":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._table = (self.folder / "explanations.csv").open("a", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._table, COLUMNS)
        if not self._table.tell():
            self._rows.writeheader()
        return self

    def __exit__(self, *error) -> None:
        self._table.close()
        for video in self._videos.values():
            video.release()

    def add_rows(self, frame: Frame, explanation: Explanation) -> None:
        """Write one row per detection, or one that says why there is none; they are on disk when this returns."""
        self._rows.writerows(table_rows(frame, explanation))
        self._table.flush()

    def save(self, frame: Frame, picture_rgb: np.ndarray) -> None:
        """Write the overlay under the image's own name, or append it to the video of its source."""
        if frame.number:
            self._append(frame, picture_rgb)
        else:
            suffix = frame.path.suffix if frame.path.suffix.lower() in WRITABLE else ".png"
            write_picture(self.folder / self._free_name(frame.path.stem, suffix), picture_rgb)

    def save_beside(self, frame: Frame, name: str, picture_rgb: np.ndarray) -> None:
        """Write a further picture of an image as <image>/<name>.jpg."""
        write_picture(self._beside(frame, name, ".jpg"), picture_rgb)

    def save_arrays(self, frame: Frame, explanation: Explanation) -> None:
        """Write the raw maps of an image, in cells of their layers, with boxes and names, as <image>/maps.npz.

        heatmap     (H, W) float16, 0..1, at the original size
        xyxy        (D, 4) float32 in image pixels; confidence (D,) float32; names (D,)
        <d>:<layer> (h, w) float16, the map of detection d at a layer over the letterboxed input, divided by its largest
                    magnitude, which is <d>:<layer>:scale
        """
        path = self._beside(frame, "maps", ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **raw_maps(explanation))

    def _beside(self, frame: Frame, name: str, suffix: str) -> Path:
        """Return the path of something further about an image; that of a frame carries the frame's number."""
        count = f"_{frame.number}" if frame.number else ""
        return self._folder_of(frame) / f"{safe_name(name)}{count}{suffix}"

    def _free_name(self, stem: str, suffix: str = "") -> str:
        """Return stem and suffix as the name of a file or folder, with a number if this run has used that name already."""
        name, count = f"{stem}{suffix}", 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}{suffix}"
        self._taken.add(name)
        return name

    def _folder_of(self, frame: Frame) -> Path:
        """Return the folder for further pictures of an image or a video; the same for all frames of one."""
        origin = frame.path, frame.stream
        if origin not in self._folders:
            self._folders[origin] = self.folder / self._free_name(safe_name(frame.path.stem))
        return self._folders[origin]

    def _append(self, frame: Frame, picture_rgb: np.ndarray) -> None:
        """Append a picture to the video of its source; OSError if that cannot be opened."""
        origin = frame.path, frame.stream
        if origin not in self._videos:
            path = self.folder / self._free_name(safe_name(frame.path.stem), ".mp4")
            self._videos[origin] = open_video(path, frame.fps, picture_rgb.shape)
        self._videos[origin].write(np.ascontiguousarray(picture_rgb[..., ::-1]))


def raw_maps(explanation: Explanation) -> dict[str, np.ndarray]:
    """Return the arrays of an explanation by name, as `Results.save_arrays` describes them."""
    found = [entry.detection for entry in explanation.detections]
    arrays = {
        "heatmap": explanation.heatmap.astype(np.float16),
        "xyxy": np.float32([box.xyxy for box in found]).reshape(-1, 4),
        "confidence": np.float32([box.confidence for box in found]),
        "names": np.array([box.name for box in found], dtype=str),
    }
    for index, entry in enumerate(explanation.detections):
        for layer, cam in zip(entry.layers, entry.cams, strict=True):
            # Gradients are small numbers that half precision alone would round to zero.
            scale = np.abs(cam).max() or np.float32(1)
            arrays |= {
                f"{index}:{layer}": (cam / scale).astype(np.float16),
                f"{index}:{layer}:scale": np.float32(scale),
            }
    return arrays


def write_picture(path: Path, picture_rgb: np.ndarray) -> None:
    """Write an RGB image in the format of its suffix; OSError if that fails."""
    import cv2

    encoded, data = cv2.imencode(path.suffix, picture_rgb[..., ::-1])
    if not encoded:
        raise OSError(f"{path}: no encoder for an image of {picture_rgb.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def open_video(path: Path, fps: float, shape: tuple[int, ...]):
    """Return OpenCV's writer of an mp4 file for pictures of this shape; OSError if it cannot be opened."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (shape[1], shape[0]))
    if not writer.isOpened():
        raise OSError(f"{path}: no video can be written there")
    return writer


def safe_name(name: str) -> str:
    """Return a class name or an address as a file name: characters that a file system may refuse become '_'."""
    return re.sub(r'[\\/:*?"<>|]+', "_", name).strip() or "_"


def free_folder(project: str | Path, name: str, exist_ok: bool) -> Path:
    """Return the folder for a run, project/name with a number if there is one already; UsageError if it cannot be made."""
    from utils.general import increment_path

    folder = Path(increment_path(Path(project) / name, exist_ok=exist_ok))
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"results cannot be written to {folder}: {existing} is not writable; try --project FOLDER")
    return folder


def table_rows(frame: Frame, explanation: Explanation) -> Iterator[dict]:
    """Yield the rows of the table for one image; boxes and peaks in image pixels, empty cells where nothing is known."""
    common = {
        "image": str(frame.path),
        "method": explanation.method,
        "item": "+".join(explanation.items),
        "frame": frame.number or None,
    }
    for entry in explanation.detections:
        row = entry.row()
        yield common | row | {name: format(row[name], DIGITS[name]) for name in DIGITS if row[name] is not None}
    if not explanation.detections:
        yield common | {"note": "; ".join(explanation.notes)}
