"""What a run leaves on disk: pictures, videos, arrays and the table. The only writer, with that of an evaluation."""

import csv
import errno
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile
from typing import BinaryIO
from zlib import crc32

import numpy as np

from explainer.errors import UsageError
from explainer.files.sources import Frame

WHAT = ("image", "class", "name", "confidence", "x1", "y1", "x2", "y2", "stride")
WHY = ("method", "layer", "item", "score")
WHERE = ("energy_in_box", "energy_in_mask", "peak_x", "peak_y", "enrichment", "peak_in_box")
ANSWER_COLUMNS = (*WHAT, *WHY, *WHERE, "frame", "model", "outcome", "note")
DIGITS = dict.fromkeys(("x1", "y1", "x2", "y2"), ".2f") | {"confidence": ".5f", "score": ".6g"}
DIGITS |= {"energy_in_box": ".4f", "energy_in_mask": ".4f", "enrichment": ".3f"}
# What a spreadsheet takes for a formula, after any marks that say it is none.
FORMULA, MARKED = re.compile("'*[=+@\\-\t\r]"), re.compile("'+[=+@\\-\t\r]")
# Suffixes that OpenCV can write; pictures of other formats become .png.
WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# A page whose pictures take more bytes is slow to send and to open; they then lie beside it.
PAGE_BYTES = 50 * 2**20
# What file systems take for one name. A name that is no text in UTF-8, and NUL, only some of them take.
NAME_BYTES = 255
NO_NAME = re.compile("[\0\ud800-\udfff]+")
TABLE_OF_ANSWERS, OPTIONS = "explanations.csv", "options.yaml"


class Results:
    """The folder of one run, made when it is entered; leaving it closes the table and the videos."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._taken: set[str] = set()
        # The image or frame that was last written about, and the names of what lies beside it.
        self._about: tuple[tuple | None, set[str]] = None, set()
        self._videos: dict[tuple[Path, int], Video] = {}
        self._folders: dict[tuple[Path, int], Path] = {}

    def __enter__(self) -> "Results":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._table = self._open_table()
        return self

    def _open_table(self) -> "GrowingTable":
        """Return what takes the rows."""
        return GrowingTable(self.folder / TABLE_OF_ANSWERS, ANSWER_COLUMNS)

    def __exit__(self, kind, *error) -> None:
        self._table.close()
        failed = []
        for video in self._videos.values():
            try:
                video.close()
            except OSError as reason:
                failed.append(reason)
        # What ends the run is not to be hidden by what comes of it.
        if kind is None:
            self._table.check_there()
            for reason in failed:
                raise reason

    def add_rows(self, frame: Frame, rows: Iterable[dict[str, object]]) -> None:
        """Write the rows of one image, values by column name; they are on disk when this returns, or none of them is."""
        common = {"image": str(frame.path), "frame": frame.number or None}
        self._table.append(common | formatted(row) for row in rows)

    def save(self, frame: Frame, picture_rgb: np.ndarray) -> Path:
        """Write the overlay under the image's own name, or append it to the video of its source; return the path."""
        self._table.check_there()
        if frame.number:
            return self._append(frame, picture_rgb)
        path = self.folder / self._picture_name(frame.path)
        write_picture(path, picture_rgb)
        return path

    def save_overview(self, name: str, picture_rgb: np.ndarray) -> None:
        """Write a picture of the whole run as <name>.jpg."""
        self._table.check_there()
        write_picture(self.folder / self._free_name(name, ".jpg"), picture_rgb)

    def save_beside(self, frame: Frame, names: tuple[str, ...], picture_rgb: np.ndarray) -> None:
        """Write a further picture of an image as <image>/<name>.jpg, or in folders below if there are several names."""
        write_picture(self._beside(frame, names, ".jpg"), picture_rgb)

    def save_arrays(self, frame: Frame, names: tuple[str, ...], arrays: dict[str, np.ndarray]) -> None:
        """Write arrays that belong to an image as <image>/<name>.npz."""
        path = self._beside(frame, names, ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def page(self) -> "Page":
        """Return report.html of this run in the making; what lies beside it shares its name with no image's folder."""
        return Page(self.folder, self._free_name("report"))

    def _beside(self, frame: Frame, names: tuple[str, ...], suffix: str) -> Path:
        """Return the path of something further about an image; that of a frame carries the frame's number."""
        self._table.check_there()
        if self._about[0] != (frame.path, frame.stream, frame.number):
            self._about = (frame.path, frame.stream, frame.number), set()
        count = f"_{frame.number}" if frame.number else ""
        name = free_name("/".join(map(safe_name, names)) + count, suffix, self._about[1])
        return self._folder_of(frame) / name

    def take_names(self, done: "Finished", *, pictures: bool, folder: bool) -> None:
        """Take the names of what a stopped run has written about a file, so that those that follow get their own."""
        if pictures and done.frames:
            self._free_name(safe_name(done.path.stem), ".mp4")
        elif pictures:
            for _ in range(done.times):
                self._picture_name(done.path)
        if folder:
            self._folder_of(Frame(done.path, np.empty((0, 0, 3), np.uint8), ""))

    def _picture_name(self, path: Path) -> str:
        """Return the name of the picture of an image."""
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
        return self._free_name(NO_NAME.sub("_", path.stem), suffix)

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
            self._videos[origin] = Video(path, frame.fps, picture_rgb.shape)
        self._videos[origin].append(picture_rgb)
        return self._videos[origin].path


class GrowingTable:
    """A CSV table to whose end rows are added, all that are given at once or none of them.

    A table that is there already is gone on with. Text that is no UTF-8, as a file's name can hold, is spelled out.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self._columns = path, columns
        self._file = path.open("ab", buffering=0)
        self._opened = os.fstat(self._file.fileno())
        if not self._opened.st_size:
            self._write(csv_bytes(columns, [], header=True))

    def append(self, rows: Iterable[dict[str, object]]) -> None:
        """Write rows, values by column; OSError, naming the table, where it is no longer there or the disk is full."""
        self.check_there()
        self._write(csv_bytes(self._columns, rows))

    def check_there(self) -> None:
        """Raise FileNotFoundError where the table was deleted or moved, with its folder or alone."""
        try:
            if os.path.samestat(self._opened, self.path.stat()):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise FileNotFoundError(errno.ENOENT, "was deleted or moved while results were written to it", str(self.path))

    def close(self) -> None:
        """Close the file; `check_there` still answers."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        length = os.fstat(self._file.fileno()).st_size
        try:
            with naming(self.path):
                written = 0
                while written < len(data):
                    written += self._file.write(data[written:])
        except BaseException:
            os.ftruncate(self._file.fileno(), length)
            raise


class Video:
    """A video in the making, mp4: it takes its place when it is closed."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...]):
        """Begin a video of pictures of this shape (H, W, 3); OSError if it cannot be opened."""
        self.path, self._size, self._count = path, (shape[1], shape[0]), 0
        self._part = part_of(path, ".mp4")
        self._writer = open_video(self._part, fps, shape)

    def append(self, picture_rgb: np.ndarray) -> None:
        """Add a picture, RGB uint8; one of another size, which a writer would leave out, is brought to that of the first."""
        import cv2

        if picture_rgb.shape[1::-1] != self._size:
            picture_rgb = cv2.resize(picture_rgb, self._size)
        self._writer.write(np.ascontiguousarray(picture_rgb[..., ::-1]))
        self._count += 1

    def close(self) -> None:
        """Put the video in its place; OSError where that fails, or not all frames arrived on the disk."""
        self._writer.release()
        try:
            if frames_in(self._part) < self._count:
                raise OSError(errno.EIO, "the video could not be written whole; is the disk full?", str(self.path))
            with naming(self.path):
                self._part.replace(self.path)
        finally:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)


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
        with naming(self.folder / "report.html"):
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
                with naming(beside):
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
        path = self.folder / "report.html"
        # A file's name can hold bytes that are no text.
        with (
            written_whole(path) as part,
            part.open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file,
        ):
            file.writelines(pieces)
        return path


@dataclass
class Finished:
    """What the table of a run says about a file, an image or a whole video, that the run has finished.

    end         of its rows, in bytes from the start of the table
    frames      how many of a video there are; 0 of an image
    times       how often an image comes one after the other
    has_boxes   whether there was anything to explain
    outcomes    how many rows came to what, by model
    energies    the shares of heatmaps inside their boxes, each after its outcome
    """

    path: Path
    end: int = 0
    frames: int = 0
    times: int = 1
    has_boxes: bool = False
    outcomes: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    energies: list[tuple[str, float]] = field(default_factory=list)
    _last_frame: str = field(default="", init=False, repr=False)

    def add(self, row: dict[str, str], end: int) -> None:
        """Count one row, and where it ends."""
        self.end = end
        if row["frame"] != self._last_frame:
            self.frames, self._last_frame = self.frames + 1, row["frame"]
        self.has_boxes |= bool(row["class"])
        if row["class"]:
            self.outcomes[row["model"]][row["outcome"]] += 1
        if row["energy_in_box"]:
            self.energies.append((row["outcome"], float(row["energy_in_box"])))


def finished_files(path: Path, begin: int) -> list[Finished]:
    """Return what a stopped run has finished by the rows that its table has from a byte on: all files but the last.

    That one may lack rows or pictures, wherever a stop or a full disk has cut it. UsageError for a table of other columns.
    """
    files: list[Finished] = []
    if not path.exists():
        return files
    with path.open("rb") as table:
        titles = table.readline()
        if titles.endswith(b"\n") and titles.decode("utf-8-sig", "replace").strip() != ",".join(ANSWER_COLUMNS):
            raise UsageError(f"{path} has other columns than this version writes; explain anew, without --resume")
        table.seek(max(begin, len(titles)))
        for row, end in rows_with_ends(table):
            image = Path(row["image"])
            if not files or files[-1].path != image:
                files.append(Finished(image))
            files[-1].add(row, end)
    return files[:-1]


def rows_with_ends(table: BinaryIO) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the rows of a table from its place on, and where each ends in bytes, up to the first that is not whole."""
    end = table.tell()

    def lines() -> Iterator[str]:
        nonlocal end
        for line in table:
            # A number that was cut short is still a number.
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield line.decode("utf-8", "surrogateescape")

    rows = csv.DictReader(lines(), ANSWER_COLUMNS)
    try:
        for row in rows:
            if None in row or None in row.values():
                return
            yield from_cells(row), end
    except csv.Error:
        return


@dataclass(frozen=True)
class Saved:
    """What was saved of one answer: the rows of its table and, if pictures were wanted, its picture and where that is."""

    rows: list[dict[str, object]]
    picture_rgb: np.ndarray | None = None
    path: Path | None = None


def save_answer(
    results: Results, frame: Frame, answer, *, style, pictures: bool, per_detection: bool, arrays: bool
) -> Saved:
    """Write an answer, an `Explanation` or a `Comparison`: its rows in any case, and its pictures and raw maps if wanted.

    style: how pictures are drawn. per_detection: also those of each detection. OSError if something cannot be written.
    """
    rows = list(answer.rows())
    results.add_rows(frame, rows)
    picture = path = None
    if pictures:
        picture = answer.overlay(style)
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
    with written_whole(path) as part:
        part.write_bytes(data)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the path of a file to write in place of this one, which it becomes when the context is left.

    After any error it is removed, and what was there before is as it was. An OSError names `path`.
    """
    part = part_of(path)
    try:
        with naming(path):
            yield part
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have what the operating system reports inside the context name this file; a full disk, for one, names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def part_of(path: Path, suffix: str = "") -> Path:
    """Return where a file is made before it takes its place: beside it, hidden, with a name that is short in any case."""
    return path.with_name(f".{crc32(path.name.encode('utf-8', 'surrogatepass')):08x}.{os.getpid()}.part{suffix}")


def csv_bytes(columns: Sequence[str], rows: Iterable[dict[str, object]], *, header: bool = False) -> bytes:
    """Return rows, values by column, as lines of a CSV table in UTF-8, if asked for after one with the columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(map(as_cells, rows))
    return as_utf8(text.getvalue()).encode("utf-8")


def as_utf8(text: str) -> str:
    """Return a text as UTF-8 can hold it: the bytes of a file's name that are no text are spelled out, as \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def frames_in(path: Path) -> int:
    """Return how many frames a video has: none where it cannot be opened."""
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        return int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    finally:
        video.release()


def open_video(path: Path, fps: float, shape: tuple[int, ...]):
    """Return OpenCV's writer of an mp4 file for pictures of this shape; OSError if it cannot be opened."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (shape[1], shape[0]))
    if not writer.isOpened():
        raise OSError(f"{path}: no video can be written there")
    return writer


def free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """Return stem and suffix as a name that is not taken, with a number if need be, and mark it as taken.

    The stem, which may name folders before it, is cut where the whole were too long for a file system.
    """
    folders, _, last = stem.rpartition("/")
    count = 1
    while True:
        end = f"_{count}{suffix}" if count > 1 else suffix
        name = f"{folders}/{trimmed(last, end)}" if folders else trimmed(last, end)
        if name not in taken:
            taken.add(name)
            return name
        count += 1


def trimmed(stem: str, end: str = "") -> str:
    """Return a name with its end, of whose stem as much is left out as a file system would refuse."""
    kept = stem.encode("utf-8", "replace")[: NAME_BYTES - len(end.encode("utf-8"))]
    return kept.decode("utf-8", "ignore") + end


def safe_name(name: str) -> str:
    """Return a class name or an address as a file name: characters that a file system may refuse become '_'."""
    name = re.sub(r'[\x00-\x1f\x7f-\x9f\\/:*?"<>|\ud800-\udfff]+', "_", name).strip()
    return trimmed(name) or "_"


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
    <d>:mask    (H, W) bool, the pixels of the image that detection d covers, where the model says which
    """
    found = [entry.detection for entry in entries]
    arrays = {
        "heatmap": heatmap.astype(np.float16),
        "xyxy": np.float32([box.xyxy for box in found]).reshape(-1, 4),
        "confidence": np.float32([box.confidence for box in found]),
        "names": np.array([box.name for box in found], dtype=str),
    }
    for index, entry in enumerate(entries):
        if entry.mask is not None:
            arrays[f"{index}:mask"] = entry.mask
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


def write_options(folder: Path, options: dict[str, object]) -> None:
    """Write the options of a run into its folder, so that it can be gone on with; older ones stay until they are complete."""
    import yaml

    values = {name: plain(value) for name, value in options.items() if name != "resume"}
    with written_whole(folder / OPTIONS) as part:
        part.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def plain(value: object) -> object:
    """Return a value of an option as YAML knows it: tuples as lists, numbers as Python's own, anything else as text."""
    if isinstance(value, (tuple, list)):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else str(value)
