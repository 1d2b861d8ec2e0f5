"""Damaged and odd inputs, made by seed: a reader answers with a value or with the kind of error that it declares, and soon.

About 20 seconds in all; FUZZ_SECONDS=600 in the environment looks for longer, FUZZ_SEED=7 at others.
"""

import io
import os
import random
import time
import warnings

import pytest
from PIL import Image
from tiny_data import make_dataset
from tiny_media import two_colours

from explainer.errors import UnreadableImageError, UsageError
from explainer.evaluation.results import kept_options
from explainer.files import labels, sources
from models.autoshape import read_picture
from utils.base.image_io import read_image
from utils.base.media import find_media
from utils.base.texts import read_list, read_yaml
from utils.data.dataset_yaml import check_dataset
from utils.data.labels import read_labels
from utils.data.scan import _examine
from utils.training.checkpoints import restored_options
from utils.training.hyperparameters import load_hyp

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
# One input may take no longer, on a busy machine.
SLOWEST_SECONDS = 10
FORMATS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"}

LABELS = [
    "0 0.5 0.5 0.2 0.3",
    "1 .1 .1 .5 .1 .5 .5",
    "nan inf 1e400 -1 0_5",
    "99999999999999999999999 0.5 0.5 0.1 0.1",
    "٠ 0 0 1 1",
]
LISTS = ["a.jpg", "# no path", '"a.jpg"', ".\\images\\a.jpg", "*.png", "a" * 300, "/", "rtsp://host", "."]
YAMLS = [
    "path: set", "train: images", "val: images", "val: 5", "val: [null]", "names: [a, b]", "names: {0: a, 1: b}", "nc: -1",
    "a: &a [x, x]", "b: &b [*a, *a]", "<<: *a", "names: *b", "x: !!int y", "x: !!timestamp z", "x: !!python/name:os.system",
    "? [a]\n: b", "- a", "lr0: 0.1", "epochs: [1]", "steps: many", "download: 5", "x: 2001-13-41", "\t- b", "%YAML 9", "---",
]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return data with some bits turned, bytes replaced, or a part cut out, doubled or left off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            at = rng.randrange(min(64, len(data)))
            data[at] = rng.randrange(256)
        elif kind == 3 and rng.random() < 0.2:
            del data[at:]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 9)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 9)]
    return bytes(data)


def image_bytes(rng: random.Random) -> tuple[bytes, str]:
    suffix = rng.choice(list(FORMATS))
    mode = rng.choice(("RGB", "L", "P", "1"))
    file = io.BytesIO()
    image = two_colours().convert("RGB" if suffix == "jpg" and mode in "P1" else mode)
    image.save(file, FORMATS[suffix])
    return damaged(file.getvalue(), rng), suffix


def text_bytes(lines: list[str], rng: random.Random) -> bytes:
    text = rng.choice(("\n", "\r\n")).join(rng.choices(lines, k=rng.randrange(1, 8)))
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "gb18030")))
    return damaged(data, rng) if rng.random() < 0.6 else data


def read_with_explainer(path):
    return list(sources.Source(str(path)))


def scanned(path):
    return _examine(str(path), "/nowhere.txt")


IMAGE_READERS = {
    read_image: OSError,
    lambda path: read_picture(path, "x"): OSError,
    scanned: (),
    read_with_explainer: (),
    sources.read_image: UnreadableImageError,
}
TEXT_READERS = [
    ("txt", LABELS, {read_labels: ValueError, labels.read_labels: UsageError}),
    (
        "txt",
        LISTS,
        {
            read_list: (ValueError, FileNotFoundError),
            find_media: (ValueError, FileNotFoundError),
            lambda path: sources.labelled_images(path, 1.0, 0): UsageError,
        },
    ),
    (
        "yaml",
        YAMLS,
        {
            read_yaml: ValueError,
            sources.read_yaml: UsageError,
            lambda path: check_dataset(path, autodownload=False): (ValueError, OSError),
            lambda path: sources.labelled_images(path, 1.0, 0): UsageError,
            load_hyp: (ValueError, OSError),
            kept_options: UsageError,
        },
    ),
    ("yaml", YAMLS, {lambda path: restored_options(path.parent, {}): ValueError}),
]


def hold(readers: dict, path, what: str) -> None:
    """Read a file with each reader; only the errors that it declares may come, and in time."""
    for read, declared in readers.items():
        started = time.monotonic()
        try:
            read(path)
        except declared:
            pass
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} from {read}: {path.read_bytes()[:300]!r}") from error
        assert time.monotonic() - started < SLOWEST_SECONDS, f"{what}: {read} took long: {path.read_bytes()[:300]!r}"


def rounds(share: float):
    """Yield numbers for a share of the time."""
    ends, number = time.monotonic() + SECONDS * share, 0
    while time.monotonic() < ends:
        yield number
        number += 1


@pytest.fixture(autouse=True)
def quiet():
    """Let readers warn of what they read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_damaged_images_end_in_a_picture_or_the_declared_error(tmp_path):
    for number in rounds(0.5):
        rng = random.Random(f"image {SEED} {number}")
        data, suffix = image_bytes(rng)
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(data)
        hold(IMAGE_READERS, path, f"image {SEED} {number}")


@pytest.mark.parametrize("case", range(len(TEXT_READERS)), ids=["labels", "lists", "yamls", "options"])
def test_damaged_texts_end_in_a_value_or_the_declared_error(tmp_path, case, monkeypatch):
    suffix, lines, readers = TEXT_READERS[case]
    make_dataset(tmp_path / "set", count=1)
    monkeypatch.chdir(tmp_path)
    two_colours().save(tmp_path / "a.jpg")
    for number in rounds(0.125):
        rng = random.Random(f"{case} {SEED} {number}")
        path = tmp_path / f"{'opt' if case == 3 else 'x'}.{suffix}"
        path.write_bytes(text_bytes(lines, rng))
        hold(readers, path, f"{case} {SEED} {number}")


def test_an_undamaged_picture_passes_every_reader(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for read in IMAGE_READERS:
        assert read(tmp_path / "a.png") is not None
