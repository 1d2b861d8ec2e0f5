"""The pictures of the README and of docs/pictures.md: each is there, small, and drawn by a command that is right."""

import re
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from evidence_demo import DEMO, WEIGHTS

from docs.draw_pictures import (
    MOST_BYTES,
    MOST_WIDTH,
    PAGES,
    Picture,
    as_small_jpeg,
    draw,
    pictures_on,
    result_of,
    run_notebook,
)
from explainer.command.options import build_options
from explainer.explainer import parse_opt

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/pictures"
PICTURES = [picture for page in PAGES for picture in pictures_on(page)]
LEAST_WIDTH, MOST_BYTES_TOGETHER = 250, 1_500_000


def name_of(picture: Picture) -> str:
    return picture.path.stem


@pytest.fixture
def page(tmp_path):
    """Return a function that writes a page of Markdown and returns its pictures."""

    def call(text: str) -> list[Picture]:
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        return list(pictures_on(tmp_path / "page.md"))

    return call


def test_the_pictures_of_the_pages_are_those_of_the_folder():
    assert [page.name for page in PAGES] == ["README.md", "pictures.md"]
    named = [picture.path.resolve() for picture in PICTURES]
    assert sorted(named) == sorted(FOLDER.iterdir())


@pytest.mark.parametrize("picture", PICTURES, ids=name_of)
def test_a_picture_is_small(picture):
    assert picture.path.stat().st_size <= MOST_BYTES
    assert LEAST_WIDTH <= cv2.imread(str(picture.path)).shape[1] <= MOST_WIDTH


def test_all_pictures_together_are_small():
    assert sum(picture.path.stat().st_size for picture in PICTURES) <= MOST_BYTES_TOGETHER


@pytest.mark.parametrize("picture", PICTURES, ids=name_of)
def test_the_command_above_a_picture_is_one_that_the_explainer_takes(picture):
    options = build_options(vars(parse_opt(list(picture.options))))
    for path in (options.source, options.labels):
        assert path is None or (ROOT / path).exists()


def test_every_picture_of_a_page_is_found_and_described():
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("![") == sum(1 for _ in pictures_on(page))
        assert all(len(words) > 10 for words in re.findall(r"!\[([^\]]*)\]", page.read_text(encoding="utf-8")))


def test_the_options_in_headings_are_those_of_the_commands_below():
    sections = (ROOT / "docs/pictures.md").read_text(encoding="utf-8").split("\n### ")[1:]
    assert len(sections) > 10
    for heading, _, body in (section.partition("\n") for section in sections):
        for option in re.findall(r"`(--[\w-]+)`", heading):
            assert re.search(rf"^    python .*{option}\b", body, re.MULTILINE), option


def test_the_nth_picture_is_that_of_the_nth_command_and_its_title_says_which_file(page):
    one, two, three = page(
        "    python explainer/explainer.py --weights a.pt\n\nText.\n\n"
        "    python explainer/explainer.py\n    python explainer/explainer.py --boxes 1 2 3 4 'dining table'\n\n"
        '| ![first](p/one.jpg) | ![second](p/two.jpg) | ![third](p/three.jpg "b/scales.jpg") |\n'
    )
    assert (one.path.name, one.options, one.result) == ("one.jpg", (), None)
    assert (two.path.name, two.options[-1], two.result) == ("two.jpg", "dining table", None)
    assert (three.path.name, three.options, three.result) == ("three.jpg", two.options, "b/scales.jpg")


def test_a_picture_without_a_command_is_refused(page):
    with pytest.raises(ValueError, match=r"no command above p/one\.jpg"):
        page("![first](p/one.jpg)\n")


def test_pictures_are_what_the_commands_draw(tmp_path):
    scene = DEMO / "images/00008.jpg"
    options = ("--weights", str(WEIGHTS), "--source", str(scene), "--imgsz", "320", "--backward-per-class")
    whole = Picture(tmp_path / "p/whole.jpg", options, None)
    ring = Picture(tmp_path / "p/ring.jpg", options, "00008/ring.jpg")
    draw([whole, ring], tmp_path / "runs")
    for picture in (whole, ring):
        drawn, source = (
            cv2.imread(str(path)) for path in (picture.path, result_of(tmp_path / "runs/0", picture.result))
        )
        assert drawn.shape[0] == drawn.shape[1] <= source.shape[1]
        assert np.abs(cv2.resize(drawn, source.shape[1::-1]).astype(int) - source).mean() < 15
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["0"]


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"--weights nowhere\.pt"):
        draw([Picture(tmp_path / "one.jpg", ("--weights", "nowhere.pt", "--source", str(DEMO)), None)], tmp_path)


def test_a_picture_becomes_as_small_as_it_must():
    noise = np.random.default_rng(0).integers(0, 256, (500, 1600, 3), np.uint8)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    data = as_small_jpeg(noise)
    assert len(data) <= MOST_BYTES
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1] <= MOST_WIDTH


def test_a_notebook_is_stored_with_what_it_shows_and_without_warnings(tmp_path):
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [nbformat.v4.new_code_cell("import sys\nprint('shown')\nprint('a warning', file=sys.stderr)")]
    nbformat.write(book, tmp_path / "book.ipynb")
    run_notebook(tmp_path / "book.ipynb")
    stored = nbformat.read(tmp_path / "book.ipynb", as_version=4)
    assert [output.text for output in stored.cells[0].outputs] == ["shown\n"]
    assert stored.metadata == book.metadata
    assert stored.cells[0].metadata == {}
