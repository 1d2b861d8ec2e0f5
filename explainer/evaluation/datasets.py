"""The images that a dataset YAML, a folder, a list or a single path names, and the labels that lie beside them.

As in YOLOv5 the labels of .../images/a/1.jpg are in .../labels/a/1.txt.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explainer.errors import UnreadableImageError, UsageError
from explainer.files.labels import Label, read_labels
from explainer.files.sources import Source, Unreadable

ROOT = Path(__file__).resolve().parents[2]
# Of the splits of a dataset YAML the first that it has.
SPLITS = ("val", "train")
ACCEPTED_DATA = "give a dataset YAML, a folder of images, a .txt list of them or an image"


@dataclass(frozen=True)
class LabelledImage:
    """The path of an image and its labels; none where there is no file of them."""

    path: Path
    labels: tuple[Label, ...]


def labelled_images(data: str | Path, share: float, seed: int) -> list[LabelledImage]:
    """Return a share of the images, drawn by seed, in the order of their paths; UsageError where there are none."""
    paths = sorted({path for origin in origins_of(Path(data)) for path in images_at(origin, data)})
    if not paths:
        raise UsageError(f"--data '{data}' holds no image; {ACCEPTED_DATA}")
    count = max(1, round(share * len(paths)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(paths))[:count])
    return [LabelledImage(path, labels_beside(path)) for path in (paths[index] for index in chosen)]


def origins_of(data: Path) -> list[Path]:
    """Return the folders, lists or images that `data` stands for."""
    if data.suffix.lower() not in (".yaml", ".yml"):
        return [data]
    found = next((path for path in (data, ROOT / data, ROOT / "data" / data) if path.is_file()), None)
    if found is None:
        raise UsageError(f"--data '{data}' does not exist; {ACCEPTED_DATA}")
    content = read_yaml(found)
    entry = next((content[split] for split in SPLITS if content.get(split)), None)
    if entry is None:
        raise UsageError(f"--data '{data}' names no images; a dataset YAML has a line val: or train:")
    splits = entry if isinstance(entry, list) else [entry]
    return [split_path(found, str(content.get("path") or ""), str(split)) for split in splits]


def read_yaml(path: Path) -> dict:
    """Return the content of a dataset YAML; UsageError where it has none."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8", errors="ignore"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--data '{path}' is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--data '{path}' holds no 'key: value' lines; a dataset YAML names path, train and val")
    return content


def split_path(yaml_path: Path, root: str, split: str) -> Path:
    """Return where a split lies: its path is relative to the root, and that to this tree, to the YAML or to ../datasets."""
    bases = (ROOT, yaml_path.parent, ROOT.parent / "datasets")
    candidates = [base / root / split for base in bases]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise UsageError(f"--data '{yaml_path}' names {candidates[0]}, which does not exist; val.py downloads it")
    return found


def images_at(origin: Path, data: str | Path) -> Iterator[Path]:
    """Yield the images in a folder and those below it, or in a list, or the one that the path itself names."""
    from utils.dataloaders import IMG_FORMATS

    if not origin.exists():
        raise UsageError(f"--data '{data}' does not exist; {ACCEPTED_DATA}")
    if origin.is_dir():
        paths = origin.rglob("*")
    elif origin.suffix.lower() == ".txt":
        paths = listed_in(origin)
    else:
        paths = [origin]
    yield from (path for path in paths if path.suffix[1:].lower() in IMG_FORMATS)


def listed_in(path: Path) -> list[Path]:
    """Return the paths in a list, one for each line, relative to the list's folder if they begin with a dot."""
    lines = [line for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()) if line]
    paths = [path.parent / line if line.startswith("./") else Path(line) for line in lines]
    missing = next((entry for entry in paths if not entry.is_file()), None)
    if missing:
        raise UsageError(f"--data '{path}' lists {missing}, which does not exist; one path for each line")
    return paths


def labels_beside(image: Path) -> tuple[Label, ...]:
    """Return the labels of an image of a data set, none where there is no file; UsageError for a line that is none."""
    before, images, after = str(image.absolute()).rpartition(f"{os.sep}images{os.sep}")
    path = Path(f"{before}{os.sep}labels{os.sep}{after}").with_suffix(".txt")
    return tuple(read_labels(path)) if images and path.is_file() else ()


def read_image(path: str | Path) -> np.ndarray:
    """Return an image, uint8 RGB (H, W, 3); UnreadableImageError says why it is none."""
    (found,) = Source(str(path))
    if isinstance(found, Unreadable):
        raise UnreadableImageError(found.reason)
    return found.image_rgb
