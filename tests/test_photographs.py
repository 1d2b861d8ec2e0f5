"""The photographs of data/images, which the commands look at when no source is named."""

import re
from pathlib import Path

import cv2
import pandas as pd
import pytest
from evidence_demo import WEIGHTS

import detect
from explainer import explainer
from explainer.command.options import build_options
from utils.dataloaders import LoadImages
from utils.detecting.options import DetectOptions

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT / "data/images"
NAMES = ["camera.jpg", "chelsea.jpg", "coffee.jpg"]
MOST_BYTES = 150_000


def test_the_folder_is_the_default_of_both_commands():
    assert Path(DetectOptions().source) == PHOTOGRAPHS
    assert build_options({"weights": "best.pt"}).source == PHOTOGRAPHS


def test_every_photograph_can_be_read_and_what_describes_them_is_skipped():
    assert (PHOTOGRAPHS / "README.md").is_file()
    assert [Path(path).name for path, *_ in LoadImages(PHOTOGRAPHS)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_is_small_and_its_author_and_licence_are_named(name):
    assert (PHOTOGRAPHS / name).stat().st_size <= MOST_BYTES
    assert cv2.imread(str(PHOTOGRAPHS / name)).shape[2] == 3
    page = (PHOTOGRAPHS / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}` \| [^|]+ \| [A-Z][^|]+ \| CC0 \|$", page, re.MULTILINE)


@pytest.mark.parametrize("command", [detect, explainer])
def test_a_command_without_a_source_goes_through_the_folder(command, tmp_path):
    arguments = ["--weights", str(WEIGHTS), "--imgsz", "320", "--project", str(tmp_path)]
    assert command.main(command.parse_opt(arguments)) == 0
    assert sorted(path.name for path in (tmp_path / "exp").glob("*.jpg")) == NAMES


def test_official_weights_find_what_is_there(assets, tmp_path):
    weights = str(assets / "weights/yolov5n.pt")
    assert explainer.main(explainer.parse_opt(["--weights", weights, "--project", str(tmp_path)])) == 0
    table = pd.read_csv(tmp_path / "exp/explanations.csv")
    found = set(zip(table["image"].map(lambda path: Path(path).name), table["name"], strict=True))
    assert found >= {("camera.jpg", "person"), ("chelsea.jpg", "cat"), ("coffee.jpg", "cup")}
    assert (table["energy_in_box"] > 0).all()
