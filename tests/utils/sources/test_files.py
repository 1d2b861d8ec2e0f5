"""Images and videos in files: what each kind gives, and files that cannot be read."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_media import two_colours, write_video

from utils.sources.files import LoadImages


def test_a_missing_source_and_one_without_pictures_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg does not exist"):
        LoadImages(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"no image or video in .*; images end in bmp dng jpeg"):
        LoadImages(tmp_path)
    (tmp_path / "report.pdf").touch()
    with pytest.raises(FileNotFoundError, match="no image or video"):
        LoadImages(tmp_path / "report.pdf")


def test_a_picture_is_given_as_original_and_as_model_input(folder):
    loader = LoadImages(folder / "b.jpg", img_size=64)
    path, im, im0, cap, text = next(loader)
    assert path == str(folder / "b.jpg")
    assert (im0.shape, im0.dtype) == ((40, 60, 3), np.uint8)
    assert (im.shape, im.dtype, im.flags.c_contiguous) == ((3, 64, 64), np.uint8, True)
    assert im0[20, 5].argmax() == 2, "the original is BGR"
    assert im[:, 32, 5].argmax() == 0, "the model's input is RGB"
    assert cap is None
    assert text == f"image 1/1 {path}: "
    assert (len(loader), loader.nf, loader.mode) == (1, 1, "image")
    with pytest.raises(StopIteration):
        next(loader)
    assert len(list(loader)) == 1, "it can be iterated over again"


def test_transforms_replace_the_letterbox(folder):
    _, im, _, _, _ = next(LoadImages(folder / "b.jpg", transforms=lambda bgr: bgr[:2, :2]))
    assert im.shape == (2, 2, 3)


def test_frames_of_a_video_are_counted(folder):
    loader = LoadImages(folder / "a.mp4", img_size=64)
    items = list(loader)
    assert [text.partition(") ")[0] for *_, text in items] == [f"video 1/1 ({i}/5" for i in range(1, 6)]
    assert loader.mode == "video"
    assert not items[0][3].isOpened(), "the video is closed at the end"
    assert [round(im0.mean() / 40) for _, _, im0, _, _ in items] == [0, 1, 2, 3, 4]


def test_every_nth_frame_of_a_video_can_be_taken(folder):
    values = [round(im0.mean() / 40) for _, _, im0, _, _ in LoadImages(folder / "a.mp4", vid_stride=2)]
    assert values == [1, 3]


def test_the_capture_is_open_while_its_frames_are_given(folder):
    _, _, _, cap, _ = next(LoadImages(folder / "a.mp4"))
    assert cap.get(cv2.CAP_PROP_FPS) == 30


def test_two_videos_follow_each_other(folder):
    write_video(folder / "b.avi", frames=2, codec="MJPG")
    texts = [text.rpartition("/")[2] for *_, text in LoadImages([folder / "a.mp4", folder / "b.avi"])]
    assert texts == ["a.mp4: "] * 5 + ["b.avi: "] * 2


@pytest.mark.parametrize("name", ["text.jpg", "empty.jpg", "cut.jpg", "progressive.jpg", "cut.png", "text.mp4"])
def test_a_file_that_cannot_be_read_is_named_and_passed_over(tmp_path, name):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    bad = tmp_path / name
    if "text" in name:
        bad.write_text("this is no picture", encoding="utf-8")
    elif name == "empty.jpg":
        bad.touch()
    else:
        noise.save(bad, **({"progressive": True} if name == "progressive.jpg" else {}))
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    two_colours().save(tmp_path / "a.jpg")
    write_video(tmp_path / "z.mp4", frames=1)
    loader = LoadImages(tmp_path)
    good, errors = [], []
    while len(good) + len(errors) < 3:
        try:
            good.append(next(loader)[0])
        except OSError as error:
            errors.append(str(error))
    assert [path.rpartition("/")[2] for path in good] == ["a.jpg", "z.mp4"]
    assert len(errors) == 1
    assert name in errors[0]
    with pytest.raises(StopIteration):
        next(loader)
