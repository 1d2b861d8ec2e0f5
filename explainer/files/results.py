"""What a run leaves on disk: pictures, videos, arrays and the table. The only writer, with that of an evaluation."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile

import numpy as np

from explainer.errors import UsageError
from explainer.files.sources import Frame

WHAT = ("image", "class", "name", "confidence", "x1", "y1", "x2", "y2", "stride")
WHY = ("method", "layer", "item", "score")
WHERE = ("energy_in_box", "peak_x", "peak_y", "enrichment", "peak_in_box")
ANSWER_COLUMNS = (*WHAT, *WHY, *WHERE, "frame", "model", "outcome", "note")
DIGITS = dict.fromkeys(("x1", "y1", "x2", "y2"), ".2f") | {"confidence": ".5f", "score": ".6g"}
DIGITS |= {"energy_in_box": ".4f", "enrichment": ".3f"}
# What a spreadsheet takes for a formula, after any marks that say it is none.
FORMULA, MARKED = re.compile("'*[=+@\\-\t\r]"), re.compile("'+[=+@\\-\t\r]")
# Suffixes that OpenCV can write; pictures of other formats become .png.
WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# A page whose pictures take more bytes is slow to send and to open; they then lie beside it.
PAGE_BYTES = 50 * 2**20


class Results:
    """The folder of one run, made when it is entered; leaving it closes the table and the videos."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._taken: set[str] = set()
        # The image or frame that was last written about, and the names of what lies beside it.
        self._about: tuple[tuple | None, set[str]] = None, set()
        self._videos: dict[tuple[Path, int], tuple[Path, object]] = {}
        self._folders: dict[tuple[Path, int], Path] = {}

    def __enter__(self) -> "Results":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._table = (self.folder / "explanations.csv").open("a", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._table, ANSWER_COLUMNS)
        if not self._table.tell():
            self._rows.writeheader()
        return self

    def __exit__(self, *error) -> None:
        self._table.close()
        for _, video in self._videos.values():
            video.release()

    def add_rows(self, frame: Frame, rows: Iterable[dict[str, object]]) -> None:
        """Write the rows of one image, values by column name; they are on disk when this returns."""
        common = {"image": str(frame.path), "frame": frame.number or None}
        self._rows.writerows(as_cells(common | formatted(row)) for row in rows)
        self._table.flush()

    def save(self, frame: Frame, picture_rgb: np.ndarray) -> Path:
        """Write the overlay under the image's own name, or append it to the video of its source; return the path."""
        if frame.number:
            return self._append(frame, picture_rgb)
        suffix = frame.path.suffix if frame.path.suffix.lower() in WRITABLE else ".png"
        path = self.folder / self._free_name(frame.path.stem, suffix)
        write_picture(path, picture_rgb)
        return path

    def save_overview(self, name: str, picture_rgb: np.ndarray) -> None:
        """Write a picture of the whole run as <name>.jpg."""
        write_picture(self.folder / self._free_name(name, ".jpg"), picture_rgb)

    def save_beside(self, frame: Frame, names: tuple[str, ...], picture_rgb: np.ndarray) -> None:
        """Write a further picture of an image as <image>/<name>.jpg, or in folders below if there are several names."""
        write_picture(self._beside(frame, names, ".jpg"), picture_rgb)

    def save_arrays(self, frame: Frame, names: tuple[str, ...], arrays: dict[str, np.ndarray]) -> None:
        """Write arrays that belong to an image as <image>/<name>.npz."""
        path = self._beside(frame, names, ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)

    def page(self) -> "Page":
        """Return report.html of this run in the making; what lies beside it shares its name with no image's folder."""
        return Page(self.folder, self._free_name("report"))

    def _beside(self, frame: Frame, names: tuple[str, ...], suffix: str) -> Path:
        """Return the path of something further about an image; that of a frame carries the frame's number."""
        if self._about[0] != (frame.path, frame.stream, frame.number):
            self._about = (frame.path, frame.stream, frame.number), set()
        count = f"_{frame.number}" if frame.number else ""
        name = free_name("/".join(map(safe_name, names)) + count, suffix, self._about[1])
        return self._folder_of(frame) / name

    def _free_name(self, stem: str, suffix: str = "") -> str:
        """Return stem and suffix as the name of a file or folder, with a number if this run has used that name already."""
        return free_name(stem, suffix, self._taken)

    def _folder_of(self, frame: Frame) -> Path:
        """Return the folder for further pictures of an image or a video; the same for all frames of one."""
        origin = frame.path, frame.stream
        if origin not in self._folders:
            self._folders[origin] = self.folder / self._free_name(safe_name(frame.path.stem))
        return self._folders[origin]

    def _append(self, frame: Frame, picture_rgb: np.ndarray) -> Path:
        """Append a picture to the video of its source and return the path; OSError if that cannot be opened."""
        origin = frame.path, frame.stream
        if origin not in self._videos:
            path = self.folder / self._free_name(safe_name(frame.path.stem), ".mp4")
            self._videos[origin] = path, open_video(path, frame.fps, picture_rgb.shape)
        path, video = self._videos[origin]
        video.write(np.ascontiguousarray(picture_rgb[..., ::-1]))
        return path


class Page:
    """The page report.html in the making: its parts, one for each image, wait on disk until the whole is written at once.

    They wait in a file without a name, which is gone with the process, however that ends. Entered for the time of a run.
    """

    def __init__(self, folder: Path, beside: str = "report"):
        self.folder, self._beside = folder, beside
        self._sizes: list[int] = []

    def __enter__(self) -> "Page":
        self._waiting = TemporaryFile(dir=self.folder)
        return self

    def __exit__(self, *error) -> None:
        self._waiting.close()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, part: str) -> None:
        """Keep the data of one image, which is JSON in ASCII."""
        self._sizes.append(self._waiting.write(part.encode("ascii")))

    def write(self, render: Callable[[Iterable[str], str], Iterable[str]]) -> tuple[Path, Path | None]:
        """Write the page, and return its path and that of the folder with its pictures, None where they lie in the page.

        render: from the parts, and the name of the folder beside in place of them or "", to the text of the page.
        An older page stays until the new one is complete; nothing is left of one that is not.
        """
        if sum(self._sizes) <= PAGE_BYTES:
            return self._write_text(render(self._parts(), "")), None
        beside = self.folder / free_name(self._beside, "", {path.name for path in self.folder.iterdir()})
        beside.mkdir()
        try:
            for number, part in enumerate(self._parts()):
                (beside / f"{number}.js").write_text(f"receive({number}, {part});\n", encoding="ascii")
            return self._write_text(render((), beside.name)), beside
        except BaseException:
            rmtree(beside)
            raise

    def _parts(self) -> Iterator[str]:
        """Yield the parts, one in memory at a time."""
        self._waiting.seek(0)
        for size in self._sizes:
            yield self._waiting.read(size).decode("ascii")

    def _write_text(self, pieces: Iterable[str]) -> Path:
        """Write a text piece by piece beside its place, and put it there when it is complete; return the path."""
        path, beside = self.folder / "report.html", self.folder / "report.html.new"
        try:
            # A file's name can hold bytes that are no text.
            with beside.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file:
                file.writelines(pieces)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        return path


@dataclass(frozen=True)
class Saved:
    """What was saved of one answer: the rows of its table, its picture, RGB uint8, and where that is, if anywhere."""

    rows: list[dict[str, object]]
    picture_rgb: np.ndarray
    path: Path | None


def save_answer(
    results: Results, frame: Frame, answer, *, style, pictures: bool, per_detection: bool, arrays: bool
) -> Saved:
    """Write an answer, an `Explanation` or a `Comparison`: its rows in any case, and its pictures and raw maps if wanted.

    style: how pictures are drawn. per_detection: also those of each detection. OSError if something cannot be written.
    """
    rows = list(answer.rows())
    results.add_rows(frame, rows)
    picture, path = answer.overlay(style), None
    if pictures:
        path = results.save(frame, picture)
        for names, further in answer.further_pictures(style, per_detection):
            results.save_beside(frame, names, further)
    if arrays:
        for names, maps in answer.raw_maps():
            results.save_arrays(frame, names, maps)
    return Saved(rows, picture, path)


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


def free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """Return stem and suffix as a name that is not taken, with a number if need be, and mark it as taken."""
    name, count = f"{stem}{suffix}", 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}{suffix}"
    taken.add(name)
    return name


def safe_name(name: str) -> str:
    """Return a class name or an address as a file name: characters that a file system may refuse become '_'."""
    return re.sub(r'[\x00-\x1f\x7f-\x9f\\/:*?"<>|]+', "_", name).strip() or "_"


def check_writable(folder: Path) -> None:
    """Raise UsageError where a folder for results cannot be made or written to, before anything is computed for it."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UsageError(f"results cannot be written to {folder}: {error.strerror}; try --project FOLDER") from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"results cannot be written to {folder}: {existing} is not writable; try --project FOLDER")


def new_folder(project: str | Path, name: str, exist_ok: bool) -> Path:
    """Make the folder for a run and return it: project/name, with a number if there is one already.

    It is made in one step with the choice of its name, so that of two runs that start together each has its own.
    UsageError if it cannot be made.
    """
    from utils.general import increment_path

    wanted = Path(project) / name
    try:
        while True:
            folder = Path(increment_path(wanted, exist_ok=exist_ok))
            try:
                folder.mkdir(parents=True, exist_ok=exist_ok)
            except FileExistsError:
                # Another run was quicker; or a link that leads nowhere is in the way, of which no number gets the better.
                if not folder.exists() or exist_ok:
                    raise
            else:
                return folder
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"results cannot be written to {wanted}: {reason}; try --project FOLDER") from error


def formatted(row: dict[str, object]) -> dict[str, object]:
    """Return a row of the table with its numbers as text of a sensible length; empty cells where nothing is known."""
    return row | {name: format(row[name], DIGITS[name]) for name in DIGITS if row.get(name) is not None}


def as_cells(row: dict[str, object]) -> dict[str, object]:
    """Return a row whose texts no spreadsheet takes for a formula: an apostrophe before what begins like one.

    Numbers stay; `from_cells` gives the texts back unchanged, those too that began so already.
    """
    return {name: f"'{value}" if is_formula(value) else value for name, value in row.items()}


def is_formula(value: object) -> bool:
    """Return whether a spreadsheet would take a text for a formula, or for one that is marked as none already."""
    return isinstance(value, str) and bool(FORMULA.match(value)) and not all(map(is_number, value.split()))


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def from_cells(row: dict[str, object]) -> dict[str, object]:
    """Return the texts of a row that `as_cells` marked, as they were."""
    return {name: value[1:] if isinstance(value, str) and MARKED.match(value) else value for name, value in row.items()}


def raw_arrays(heatmap: np.ndarray, entries: Sequence) -> dict[str, np.ndarray]:
    """Return the raw maps of an explanation as arrays to keep, by name: in cells of their layers, at half precision.

    Given are the whole heatmap (H, W) and the explanations of the detections.

    heatmap     (H, W) float16, at the original size
    xyxy        (D, 4) float32 in image pixels; confidence (D,) float32; names (D,)
    <d>:<layer> (h, w) float16, the map of detection d at a layer over the letterboxed input, divided by its largest
                magnitude, which is <d>:<layer>:scale; one that was merged from several layers is called <a>+<b>
    """
    found = [entry.detection for entry in entries]
    arrays = {
        "heatmap": heatmap.astype(np.float16),
        "xyxy": np.float32([box.xyxy for box in found]).reshape(-1, 4),
        "confidence": np.float32([box.confidence for box in found]),
        "names": np.array([box.name for box in found], dtype=str),
    }
    for index, entry in enumerate(entries):
        layers = entry.layers if len(entry.layers) == len(entry.cams) else ["+".join(entry.layers)]
        for layer, cam in zip(layers, entry.cams, strict=True):
            # Gradients are small numbers that half precision alone would round to zero.
            scale = np.abs(cam).max() or np.float32(1)
            arrays |= {
                f"{index}:{layer}": (cam / scale).astype(np.float16),
                f"{index}:{layer}:scale": np.float32(scale),
            }
    return arrays


def as_png(picture_rgb: np.ndarray) -> bytes:
    """Return an RGB image, uint8 (H, W, 3), as the contents of a PNG file."""
    import cv2

    return cv2.imencode(".png", picture_rgb[..., ::-1])[1].tobytes()
