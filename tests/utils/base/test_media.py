"""Which files a source names, and which sources are streams or screens."""

import pytest
from tiny_media import two_colours

from utils.base.media import IMG_FORMATS, VID_FORMATS, find_media, is_stream


def names(source):
    images, videos = find_media(source)
    return [path.rpartition("/")[2] for path in images + videos]


def test_a_folder_gives_its_images_then_its_videos(folder):
    assert names(folder) == ["a.PNG", "b.jpg", "ä ö.jpg", "a.mp4"]


def test_a_pattern_a_file_and_a_sequence_are_sources(folder):
    assert names(f"{folder}/*.jpg") == ["b.jpg", "ä ö.jpg"]
    assert names(f"{folder}/**/*.png") == ["c.png"]
    assert names(folder / "b.jpg") == ["b.jpg"]
    assert names([folder / "b.jpg", str(folder / "a.mp4")]) == ["b.jpg", "a.mp4"]


def test_a_list_names_files_from_the_working_folder_or_from_its_own(folder, monkeypatch):
    listing = folder / "list.txt"
    listing.write_text("b.jpg\n\nä ö.jpg\nsub.jpg/c.png\n", encoding="utf-8")
    assert names(listing) == ["b.jpg", "ä ö.jpg", "c.png"]
    monkeypatch.chdir(folder / "sub.jpg")
    listing.write_text("c.png\n", encoding="utf-8")
    assert names(listing) == ["c.png"]


def test_a_name_with_brackets_is_a_file_not_a_pattern(folder):
    two_colours().save(folder / "x[1].png")
    assert names(folder / "x[1].png") == ["x[1].png"]


@pytest.mark.parametrize(
    ("source", "stream"),
    [
        ("0", True),
        ("cams.streams", True),
        ("rtsp://host/a.mp4", True),
        ("http://host/video", True),
        ("https://host/a.JPG?x=1", False),
        ("a.mp4", False),
        ("screenshots/a.jpg", False),
    ],
)
def test_streams_are_told_from_files(source, stream):
    assert is_stream(source) == stream


def test_the_formats_are_known_by_name():
    assert {"jpg", "png", "tiff", "webp", "pfm", "mpo"} <= set(IMG_FORMATS)
    assert {"mp4", "mov", "avi", "gif", "mkv"} <= set(VID_FORMATS)
