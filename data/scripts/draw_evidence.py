"""Draw the Evidence set: scenes in which the reason for every class is known.

python data/scripts/draw_evidence.py --out ../datasets/evidence --train 3000 --val 200 --size 480 --nearest 2 --seed 0

Bodies lie on a textured background. The box is the body's; its class is decided by the small emblem on it, and by
nothing else. A scene depends on the seed and its own number alone. Below the output folder there are
images/{train,val} (JPEG), labels/{train,val} (YOLO), and for each scene masks/{train,val}/NAME_body.png and
NAME_emblem.png, whose values are the line of the object in the label file, from 1 on; 0 is neither.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    sys.path.insert(0, str(ROOT))

from data.scripts.evidence.composing import compose  # noqa: E402
from data.scripts.evidence.rendering import Picture, render  # noqa: E402

JPEG_QUALITY = 92


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT.parent / "datasets/evidence", help="folder to write to")
    parser.add_argument("--train", type=int, default=3000, help="scenes to train on")
    parser.add_argument("--val", type=int, default=200, help="scenes held out")
    parser.add_argument("--size", type=int, default=480, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="what all that is random depends on")
    parser.add_argument(
        "--nearest",
        type=float,
        default=2.0,
        help="enlarge things to train on up to so many times, those held out never",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw at the same time")
    return parser.parse_args(arguments)


def main(opt: argparse.Namespace) -> None:
    """Draw and write all scenes; those held out have the numbers before those to train on."""
    parts = {"val": (range(opt.val), 1.0), "train": (range(opt.val, opt.val + opt.train), opt.nearest)}
    with ProcessPoolExecutor(opt.workers) as pool:
        for part, (indices, nearest) in parts.items():
            for _ in pool.map(partial(draw, opt, part, nearest), indices, chunksize=4):
                pass
            print(f"{len(indices)} scenes in {opt.out / 'images' / part}")


def draw(opt: argparse.Namespace, part: str, nearest: float, index: int) -> None:
    """Draw the scene with this number and write it."""
    write(opt.out, part, f"{index:05}", render(compose(opt.seed, index, opt.size, nearest)))


def write(folder: Path, part: str, name: str, picture: Picture) -> None:
    """Write the image, the labels and the masks of one scene."""
    image_bgr = cv2.cvtColor(picture.image_rgb, cv2.COLOR_RGB2BGR)
    write_image(folder / "images" / part / f"{name}.jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_image(folder / "masks" / part / f"{name}_body.png", picture.bodies)
    write_image(folder / "masks" / part / f"{name}_emblem.png", picture.emblems)
    labels = folder / "labels" / part / f"{name}.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{int(index)} " + " ".join(f"{value:.6f}" for value in box) for index, *box in picture.labels)
    labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_image(path: Path, image, options: tuple | list = ()) -> None:
    """Write an image; OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image, list(options)):
        raise OSError(f"{path} could not be written")


if __name__ == "__main__":
    main(parse_opt())
