"""Fixtures that tests of several packages ask for."""

import pytest
from tiny_data import make_dataset
from tiny_media import two_colours, write_video


@pytest.fixture
def folder(tmp_path):
    """A folder with three pictures, a video, a text, and another folder with a picture."""
    for name in ("b.jpg", "a.PNG", "ä ö.jpg"):
        two_colours().save(tmp_path / name)
    write_video(tmp_path / "a.mp4")
    (tmp_path / "notes.md").write_text("no picture", encoding="utf-8")
    (tmp_path / "sub.jpg").mkdir()
    two_colours().save(tmp_path / "sub.jpg" / "c.png")
    return tmp_path


@pytest.fixture
def squares(tmp_path):
    """The folder of a data set of coloured squares, with its squares.yaml."""
    return make_dataset(tmp_path / "set").parent
