"""Where pictures come from: every source that detect.py knows, one frame at a time, and the images of a data set.

There is a word for what cannot be read. As in YOLOv5 the labels of .../images/a/1.jpg are in .../labels/a/1.txt.
"""

import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from explainer.errors import UnreadableImageError, UsageError
from explainer.files.labels import Label, read_labels, read_text

ROOT = Path(__file__).resolve().parents[2]
# Of the splits of a dataset YAML the first that it has.
SPLITS = ("val", "train")
# What Pillow raises at damaged files, of which the loader then says what is wrong; only some of it is an OSError. Packages
# that put another reader in its place raise ImportError where that reader is not there.
PILLOW_ERRORS = (
    OSError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, NotImplementedError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
# Entries of a YAML with its aliases written out, and its bytes.
MOST_YAML_ENTRIES, MOST_YAML_BYTES = 1_000_000, 8_000_000
# What the YAML reader raises at values that do not suit their own tag, such as !!int x, a date in month 13, or depth.
YAML_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
ACCEPTED_DATA = "give a dataset YAML, a folder of images, a .txt list of them or an image"


@dataclass(frozen=True)
class Frame:
    """One image to explain.

    path       file, or the address of a stream
    image_rgb  uint8 (H, W, 3) at the original size
    caption    the start of its log line, such as 'image 1/3 /data/bus.jpg: '
    number     counts the frames of a video or stream from 1; 0 for a single image
    stream     which of several streams it comes from
    fps        frames per second that a video of its explanations plays with; 0 for a single image
    """

    path: Path
    image_rgb: np.ndarray
    caption: str
    number: int = 0
    stream: int = 0
    fps: float = 0.0


@dataclass(frozen=True)
class Unreadable:
    """A file that holds no image, and what its reader said."""

    path: Path
    reason: str


class Source:
    """The frames of a source; iterate over it. `length` is the number of files, None for a stream.

    Images that claim more than `max_megapixels` count as unreadable, before memory is taken for them.
    """

    def __init__(self, source: str, vid_stride: int = 1, max_megapixels: float = math.inf):
        self.is_stream = is_stream(source)
        self._max_megapixels = max_megapixels
        # Loaders say what is wrong in different ways: a stock checkout's assert, this tree's raise OSError or ValueError.
        try:
            self.loader = open_loader(str(source), vid_stride)
        except (OSError, AssertionError, ValueError, ImportError) as error:
            told = f" ({first_line(error)})"
            empty = "holds no image or video" + told * isinstance(error, ValueError)
            wrong = empty if os.path.exists(source) else f"cannot be opened{told}"
            raise UsageError(f"source '{source}' {wrong}; {ACCEPTED}") from error
        self.length = None if self.is_stream else getattr(self.loader, "nf", None)
        if self.length is not None:
            # This tree's loader has a limit of its own, and takes any name; a stock checkout's has none, and does not.
            self._takes_any_name = hasattr(self.loader, "max_pixels")
            self.loader.max_pixels = max_megapixels * 1e6

    @classmethod
    def of_files(cls, files: Sequence[str | Path], vid_stride: int = 1, max_megapixels: float = math.inf) -> "Source":
        """Return the source of these files alone, in their order, whatever they are called; nothing is opened yet."""
        from utils.dataloaders import VID_FORMATS

        # A loader looks for what it is to load: it is given one file that is there, and then these.
        with TemporaryDirectory(prefix="explainer-") as folder:
            stand_in = Path(folder) / "stand-in.png"
            stand_in.touch()
            source = cls(str(stand_in), vid_stride, max_megapixels)
        source.loader.files = [str(path) for path in files]
        source.loader.video_flag = [Path(path).suffix[1:].lower() in VID_FORMATS for path in files]
        source.keep(range(len(files)))
        return source

    @property
    def files(self) -> list[Path]:
        """The files that the frames come from; none for a stream or a screen."""
        return [Path(path) for path in getattr(self.loader, "files", [])]

    def keep(self, numbers: Sequence[int]) -> None:
        """Leave of the files those with these numbers, from 0 and in their order."""
        loader = self.loader
        loader.files = [loader.files[number] for number in numbers]
        loader.video_flag = [loader.video_flag[number] for number in numbers]
        self.length = loader.nf = len(numbers)
        # A stock checkout's loader has opened its first video already.
        open_video = getattr(loader, "_new_video", None) or getattr(loader, "new_video", None)
        if open_video and any(loader.video_flag):
            open_video(loader.files[loader.video_flag.index(True)])

    def count_frames(self) -> int | None:
        """Return how many images and frames of videos there are to expect; None for a stream or a screen."""
        if self.length is None:
            return None
        videos = [path for path, is_video in zip(self.files, self.loader.video_flag, strict=True) if is_video]
        return self.length - len(videos) + sum(frames_of(path) // self.loader.vid_stride for path in videos)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        import cv2

        items = iter(self.loader)
        while True:
            if (refused := self._refused_next()) is not None:
                self.loader.count += 1
                yield refused
                continue
            # A stock checkout's loader asserts that a file was read; this tree's raises OSError.
            try:
                item = next(items)
            except StopIteration:
                return
            except (OSError, AssertionError, cv2.error) as error:
                path = Path(self.loader.files[self.loader.count - 1])
                yield Unreadable(path, first_line(error))
                continue
            yield from self._frames(item)

    def _refused_next(self) -> Unreadable | None:
        """Return the next file if its reader would end the process, or if it is an image that claims too many pixels."""
        if self.length is None or self.loader.count >= self.length:
            return None
        path, is_video = self.files[self.loader.count], self.loader.video_flag[self.loader.count]
        if not is_text(path) and (is_video or not self._takes_any_name):
            return Unreadable(path, "its name is no text in UTF-8, which OpenCV cannot open; rename it")
        if is_video:
            return None
        megapixels = claimed_megapixels(path)
        if megapixels <= self._max_megapixels:
            return None
        most = f"at most {self._max_megapixels:g} are read; --max-megapixels sets the limit"
        return Unreadable(path, f"it says that it has {megapixels:.0f} megapixels, {most}")

    def close(self) -> None:
        """Stop the threads and release the devices of a loader that has some."""
        close = getattr(self.loader, "close", None)
        if close:
            close()

    def _frames(self, item: tuple) -> Iterator[Frame]:
        """Yield the frames of what a loader gave: one of a file, one for each of several streams."""
        path, _, image_bgr, capture, caption = item
        if isinstance(path, list):
            for index, (address, frame_bgr) in enumerate(zip(path, image_bgr, strict=True)):
                fps = float(self.loader.fps[index]) or 30.0
                yield Frame(Path(address), rgb(frame_bgr), f"{index}: ", self.loader.count + 1, index, fps)
        elif capture is not None and getattr(self.loader, "mode", "image") == "video":
            fps = frames_per_second(capture, self.loader)
            yield Frame(Path(path), rgb(image_bgr), caption, self.loader.frame, fps=fps)
        else:
            yield Frame(Path(path), rgb(image_bgr), caption)


ACCEPTED = "give an image, a video, a folder, a glob, a .txt list, a URL, a webcam's number or 'screen 0'"


def is_stream(source: str) -> bool:
    """Return whether a source is a webcam, a list of streams, or an address that is no file to download."""
    source = str(source)
    return source.isnumeric() or source.endswith(".streams") or (is_url(source) and not names_a_file(source))


def holds_files(source: str) -> bool:
    """Return whether a source is files, which stay as they are, and no stream or screen."""
    return not is_stream(source) and not str(source).lower().startswith("screen")


def is_url(source: str) -> bool:
    """Return whether a source is the address of something on the network."""
    return source.lower().startswith(("rtsp://", "rtmp://", "http://", "https://"))


def names_a_file(source: str) -> bool:
    """Return whether a source ends in the suffix of an image or a video."""
    from utils.dataloaders import IMG_FORMATS, VID_FORMATS

    return Path(source.partition("?")[0]).suffix[1:].lower() in (*IMG_FORMATS, *VID_FORMATS)


def open_loader(source: str, vid_stride: int):
    """Return the tree's loader for a source. It leaves the images as they are; the explainer letterboxes them."""
    from utils.dataloaders import LoadImages, LoadScreenshots, LoadStreams
    from utils.general import check_file

    if source.lower().startswith("screen"):
        return LoadScreenshots(source, transforms=no_letterbox)
    if is_stream(source):
        return LoadStreams(source, transforms=no_letterbox, vid_stride=vid_stride)
    if is_url(source):
        source = check_file(source)
    return LoadImages(source, transforms=no_letterbox, vid_stride=vid_stride)


def no_letterbox(image_bgr: np.ndarray) -> np.ndarray:
    """Stand in for the loader's letterbox with one pixel, of the same shape for every stream."""
    return image_bgr[:1, :1]


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]


def rgb(image_bgr: np.ndarray) -> np.ndarray:
    """Return a BGR or BGRA image as contiguous RGB."""
    return np.ascontiguousarray(image_bgr[..., 2::-1])


def claimed_megapixels(path: Path) -> float:
    """Return how many million pixels the first bytes of an image promise, 0 where they do not tell."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width * image.height / 1e6
    except Image.DecompressionBombError as error:
        # Beyond a limit of its own Pillow tells the number alone.
        return int(re.search(r"\d+", str(error)).group()) / 1e6
    except PILLOW_ERRORS:
        return 0.0


def is_text(path: str | Path) -> bool:
    """Return whether a file's name is text; the bytes of others end the process where OpenCV is to open them itself."""
    return not re.search(r"[\ud800-\udfff]", str(path))


def frames_of(path: Path) -> int:
    """Return how many frames a video says that it has, 0 where it cannot be opened."""
    import cv2

    if not is_text(path):
        return 0
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(count, 0)


def frames_per_second(capture, loader) -> float:
    """Return the rate at which the explained frames of a video play at the video's own speed."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    return (rate if rate > 0 else 30.0) / getattr(loader, "vid_stride", 1)


@dataclass(frozen=True)
class LabelledImage:
    """The path of an image and its labels, none where there is no file of them; and where a list names it, if one does."""

    path: Path
    labels: tuple[Label, ...]
    place: str = ""


def labelled_images(data: str | Path, share: float, seed: int) -> list[LabelledImage]:
    """Return a share of the images, drawn by seed, in the order of their paths; UsageError where there are none."""
    places = {}
    for origin in origins_of(Path(data)):
        for path, place in images_at(origin, data):
            places.setdefault(path, place)
    paths = sorted(places)
    if not paths:
        raise UsageError(f"--data '{data}' holds no image; {ACCEPTED_DATA}")
    count = max(1, round(share * len(paths)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(paths))[:count])
    return [LabelledImage(path, labels_beside(path), places[path]) for path in (paths[index] for index in chosen)]


def origins_of(data: Path) -> list[Path]:
    """Return the folders, lists or images that `data` stands for."""
    if data.suffix.lower() not in (".yaml", ".yml"):
        return [data]
    found = next((path for path in (data, ROOT / data, ROOT / "data" / data) if path.is_file()), None)
    if found is None:
        raise UsageError(f"--data '{data}' does not exist; {ACCEPTED_DATA}")
    content = read_yaml(found)
    if not isinstance(content, dict):
        raise UsageError(f"--data '{data}' holds no 'key: value' lines; a dataset YAML names path, train and val")
    root = content.get("path") or ""
    if not isinstance(root, str) or "\0" in root:
        raise UsageError(
            f"--data '{data}': path is {str(root)[:60]}; give the folder that val and train are relative to"
        )
    entry = next((content[split] for split in SPLITS if content.get(split)), None)
    if entry is None:
        raise UsageError(f"--data '{data}' names no images; a dataset YAML has a line val: or train:")
    hint = "; val.py downloads it" if content.get("download") else "; correct path, train and val in it"
    return [split_path(found, root, split, hint) for split in parts_of(entry, data)]


def parts_of(entry: object, data: Path) -> list[str]:
    """Return the paths that a split of a dataset YAML names; UsageError for anything else."""
    parts = entry if isinstance(entry, list) else [entry]
    if not all(isinstance(part, str) and part and "\0" not in part for part in parts):
        raise UsageError(f"--data '{data}': {str(entry)[:60]} is no folder, list or image, nor several of these")
    return parts


def read_yaml(path: str | Path) -> object:
    """Return the content of a YAML file: no tags but YAML's own, and bounds on its size and on what aliases stand for.

    UsageError, naming the file, for what is no YAML or beyond the bounds.
    """
    import yaml

    try:
        size = Path(path).stat().st_size
        text = read_text(path) if size <= MOST_YAML_BYTES else ""
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if size > MOST_YAML_BYTES:
        raise UsageError(f"'{path}' has {size / 1e6:.0f} MB; at most {MOST_YAML_BYTES / 1e6:.0f} MB of YAML are read")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        count_entries(node, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, *YAML_VALUE_ERRORS) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UsageError(f"'{path}' is no YAML: {reason}") from error


def count_entries(node, known: dict[int, int]) -> int:
    """Return how many entries a node of a YAML has once all its aliases are written out; ValueError for too many.

    known: of nodes by id, 0 of those that are not done yet. A few short lines of aliases can stand for billions of entries.
    """
    if id(node) not in known:
        known[id(node)] = 0
        children = node.value if isinstance(node.value, list) else ()
        entries = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(count_entries(entry, known) for entry in entries)
    if not known[id(node)]:
        raise ValueError("an alias stands for something that holds it")
    if known[id(node)] > MOST_YAML_ENTRIES:
        raise ValueError(f"its aliases stand for more than {MOST_YAML_ENTRIES} entries")
    return known[id(node)]


def split_path(yaml_path: Path, root: str, split: str, hint: str) -> Path:
    """Return where a split lies: its path is relative to the root, and that to this tree, to the YAML or to ../datasets.

    UsageError where it lies nowhere, with the hint at its end.
    """
    bases = (ROOT, yaml_path.parent, ROOT.parent / "datasets")
    candidates = [base / root / split for base in bases]
    found = next((path for path in candidates if os.path.exists(path)), None)
    if found is None:
        raise UsageError(f"--data '{yaml_path}' names {candidates[0]}, which does not exist{hint}")
    return found


def images_at(origin: Path, data: str | Path) -> Iterator[tuple[Path, str]]:
    """Yield the images in a folder and those below it, or in a list, or the one that the path itself names.

    With each comes where a list names it, such as 'line 3 of val.txt'; nothing where none does.
    """
    from utils.dataloaders import IMG_FORMATS

    if not origin.exists():
        raise UsageError(f"--data '{data}' does not exist; {ACCEPTED_DATA}")
    if origin.is_dir():
        paths = ((path, "") for path in origin.rglob("*"))
    elif origin.suffix.lower() == ".txt":
        paths = listed_in(origin)
    else:
        paths = [(origin, "")]
    # What a list names and is not there is reported and counted in its turn, like an image that cannot be read.
    yield from (
        (path, place) for path, place in paths if path.suffix[1:].lower() in IMG_FORMATS or not os.path.exists(path)
    )


def listed_in(path: Path) -> list[tuple[Path, str]]:
    """Return the paths in a list, one in each line, and which line that is; UsageError where none of them is there.

    A path is relative to the working folder or else to the list's; one that begins with ./ to the list's first. Lines may
    be quoted, and written with the backslashes of Windows; empty ones and those that begin with # do not count.
    """
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except OSError as error:
        raise UsageError(f"--data '{path}' cannot be read: {error.strerror or error}") from error
    found = [
        (path_in(line, path.parent), f"line {number} of {path}")
        for number, line in enumerate(lines, start=1)
        if line and (line[0] != "#" or os.path.exists(line))
    ]
    if found and not any(os.path.exists(listed) for listed, _ in found):
        raise UsageError(
            f"--data '{path}' lists {found[0][0]}, which does not exist, nor do the others; one path per line"
        )
    return found


def path_in(line: str, folder: Path) -> Path:
    """Return what a line of a list in a folder names: the first reading of it that is there, else the plainest."""
    unquoted = line[1:-1].strip() if len(line) > 2 and line[0] == line[-1] and line[0] in "'\"" else line
    candidates = []
    for reading in dict.fromkeys((line, unquoted, unquoted.replace("\\", "/"))):
        here, beside = Path(reading), folder / reading
        candidates += (beside, here) if reading.startswith("./") else (here, beside)
    return next((path for path in candidates if os.path.exists(path)), candidates[-1])


def labels_beside(image: Path) -> tuple[Label, ...]:
    """Return the labels of an image of a data set, none where there is no file; UsageError for a line that is none."""
    before, images, after = str(image.absolute()).rpartition(f"{os.sep}images{os.sep}")
    path = Path(f"{before}{os.sep}labels{os.sep}{after}").with_suffix(".txt")
    return tuple(read_labels(path)) if images and path.is_file() else ()


def read_image(path: str | Path, max_megapixels: float = math.inf, place: str = "") -> np.ndarray:
    """Return an image, uint8 RGB (H, W, 3); UnreadableImageError says why it is none, or that it is too large.

    place: where the path is named, for the message about one that is not there.
    """
    if not os.path.isfile(path):
        raise UnreadableImageError(f"it does not exist, or is no file{place and f'; it is named in {place}'}")
    (found,) = Source(str(path), max_megapixels=max_megapixels)
    if isinstance(found, Unreadable):
        raise UnreadableImageError(found.reason)
    return found.image_rgb
