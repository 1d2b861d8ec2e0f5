"""Loaders: which files a source names, what each kind of file gives, streams and screens."""

import sys
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import utils.streams
from utils.dataloaders import IMG_FORMATS, VID_FORMATS, LoadImages, LoadScreenshots, LoadStreams, exif_transpose
from utils.image_io import read_image, write_image
from utils.screenshots import parse_screen_source
from utils.sources import find_media, is_screen, is_stream
from utils.streams import clean_str


def two_colours(width=60, height=40):
    """An RGB picture: red on the left, blue on the right."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2, 0] = 255
    rgb[:, width // 2 :, 2] = 255
    return Image.fromarray(rgb)


def write_video(path, frames=5, size=(64, 48), fps=30, codec="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), i * 40 % 256, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "ä ö.jpg"):
        two_colours().save(tmp_path / name)
    write_video(tmp_path / "a.mp4")
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "sub.jpg").mkdir()
    two_colours().save(tmp_path / "sub.jpg" / "c.png")
    return tmp_path


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
    listing.write_text("c.png\n")
    assert names(listing) == ["c.png"]


def test_a_name_with_brackets_is_a_file_not_a_pattern(folder):
    two_colours().save(folder / "x[1].png")
    assert names(folder / "x[1].png") == ["x[1].png"]


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
        bad.write_text("this is no picture")
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


def test_what_cameras_write_behind_a_picture_does_no_harm(tmp_path):
    two_colours().save(tmp_path / "a.jpg")
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"SEFT and other data of the camera")
    assert read_image(tmp_path / "a.jpg").shape == (40, 60, 3)


def sixteen_bit(path, grey):
    bgr = np.asarray(two_colours())[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(path), bgr[..., 2] if grey else bgr)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "mpo"])
def test_every_format_keeps_its_colours(tmp_path, suffix):
    two_colours().save(tmp_path / f"a.{suffix}")
    left, right = read_image(tmp_path / f"a.{suffix}")[20, [5, -5]]
    assert (left.argmax(), right.argmax()) == (2, 0)


@pytest.mark.parametrize(
    ("mode", "name"), [("RGBA", "a.png"), ("RGBA", "a.webp"), ("P", "a.png"), ("CMYK", "a.jpg"), ("CMYK", "a.tif")]
)
def test_every_kind_of_colour_becomes_bgr(tmp_path, mode, name):
    two_colours().convert(mode).save(tmp_path / name)
    im = read_image(tmp_path / name)
    assert (im.shape, im.dtype) == ((40, 60, 3), np.uint8)
    assert im[20, 5].argmax() == 2
    assert im[20, 5].max() > 200
    assert im[20, -5].argmax() == 0


@pytest.mark.parametrize(("mode", "name"), [("L", "a.jpg"), ("LA", "a.png"), ("1", "a.png")])
def test_grey_pictures_get_three_channels(tmp_path, mode, name):
    Image.new("L", (60, 40), 255).convert(mode).save(tmp_path / name)
    im = read_image(tmp_path / name)
    assert im.shape == (40, 60, 3)
    assert im.min() > 250


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    sixteen_bit(tmp_path / f"a.{suffix}", grey=False)
    sixteen_bit(tmp_path / f"g.{suffix}", grey=True)
    assert read_image(tmp_path / f"a.{suffix}")[20, 5].tolist() == [0, 0, 255]
    assert read_image(tmp_path / f"g.{suffix}")[20, [5, -5], 0].tolist() == [255, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_rotated_photo_is_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    two_colours().save(tmp_path / f"a.{suffix}", exif=exif)
    im = read_image(tmp_path / f"a.{suffix}")
    assert im.shape == (60, 40, 3)
    assert (im[5, 20].argmax(), im[-5, 20].argmax()) == (2, 0)


def test_a_pil_photo_is_turned_upright():
    image = two_colours()
    image.getexif()[0x0112] = 6
    assert exif_transpose(image).size == (40, 60)
    assert exif_transpose(two_colours()).size == (60, 40)


def test_a_write_that_fails_names_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written.*a\.jpg"):
        write_image(tmp_path / "file" / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"cannot be written as '\.dng'"):
        write_image(tmp_path / "a.dng", np.zeros((4, 4, 3), np.uint8))


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


def test_a_stream_that_ends_gives_its_pictures_and_stops(tmp_path):
    video = write_video(tmp_path / "a b.mp4", frames=4, fps=60)
    before = threading.active_count()
    with LoadStreams(str(video), img_size=64) as streams:
        assert (len(streams), streams.mode, streams.frames, streams.fps) == (1, "stream", [4], [60])
        items = list(streams)
    sources, im, im0, cap, text = items[-1]
    assert sources == [str(video)]
    assert im.shape == (1, 3, 64, 64)
    assert im0[0].shape == (48, 64, 3)
    assert (cap, text) == (None, "")
    values = [round(im0[0].mean() / 40) for _, _, im0, _, _ in items]
    assert values == sorted(set(values)), "no picture is given twice"
    assert values[-1] == 3, "nor is the last one lost"
    assert streams.count == len(items) - 1
    assert threading.active_count() == before


def test_several_streams_come_as_one_batch_with_one_shape(tmp_path, capsys):
    wide, high = write_video(tmp_path / "w.mp4", size=(64, 32)), write_video(tmp_path / "h.mp4", size=(32, 64))
    listing = tmp_path / "two.streams"
    listing.write_text(f"{wide}\n\n# a comment\n{high}\n")
    with LoadStreams(str(listing), img_size=64) as streams:
        sources, im, im0, _, _ = next(streams)
    assert len(sources) == len(im0) == 2
    assert im.shape == (2, 3, 64, 64)
    assert "differ in shape" in capsys.readouterr().err


def test_closing_streams_ends_their_threads(tmp_path):
    before = threading.active_count()
    streams = LoadStreams(str(write_video(tmp_path / "a.mp4", frames=20, fps=2)), img_size=64)
    next(streams)
    streams.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(streams)


def test_a_stream_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(OSError, match=r"gone\.mp4 cannot be opened"):
        LoadStreams(str(tmp_path / "gone.mp4"))
    with pytest.raises(FileNotFoundError, match=r"cams\.streams does not exist"):
        LoadStreams(str(tmp_path / "cams.streams"))
    (tmp_path / "no.streams").write_text("\n")
    with pytest.raises(OSError, match="names no stream"):
        LoadStreams(str(tmp_path / "no.streams"))


class FlakyCamera:
    """A live camera that gives `good` pictures, falls silent, and comes back `returns` times."""

    def __init__(self, good, returns):
        self.good, self.returns, self.left = good, returns, good

    def __call__(self, address):
        return self

    def open(self, address):
        if self.returns:
            self.returns -= 1
            self.left = self.good
        return True

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.full((32, 32, 3), self.left, np.uint8)

    def read(self):
        return self.retrieve() if self.grab() else (False, None)

    def get(self, key):
        return 0

    def release(self):
        pass


def test_a_live_stream_is_connected_again_and_its_loss_reported(monkeypatch, capsys):
    monkeypatch.setattr(utils.streams, "RECONNECT_SECONDS", 0.001)
    monkeypatch.setattr(cv2, "VideoCapture", FlakyCamera(good=3, returns=2))
    with LoadStreams("rtsp://host/live", img_size=32) as streams:
        assert streams.frames == [float("inf")]
        with pytest.raises(OSError, match="stopped answering"):
            list(streams)
        with pytest.raises(StopIteration):
            next(streams)
    assert capsys.readouterr().err.count("connecting again") == 3


def test_names_of_streams_are_safe_in_paths():
    assert clean_str("rtsp://me:pw@host/a?b=1&c") == "rtsp_//me_pw_host/a_b_1_c"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("screen", (0, None)),
        ("screen 2", (2, None)),
        ("screen 1 2 3 4", (0, (1, 2, 3, 4))),
        ("Screen 1 2 3 4 5", (1, (2, 3, 4, 5))),
    ],
)
def test_a_screen_and_its_region_are_read(source, expected):
    assert is_screen(source)
    assert parse_screen_source(source) == expected


@pytest.mark.parametrize("source", ["screen x", "screen 1 2", "screen -1", "window 1"])
def test_another_text_is_no_screen(source):
    with pytest.raises(ValueError, match="names no part of a screen"):
        parse_screen_source(source)


class FakeScreens:
    """Stands in for mss: a red screen of 100 x 50 pixels at (10, 20)."""

    monitors = [{"left": 10, "top": 20, "width": 100, "height": 50}]  # noqa: RUF012

    def grab(self, place):
        self.place = place
        bgra = np.zeros((place["height"], place["width"], 4), np.uint8)
        bgra[..., 2:] = 255
        return bgra

    def close(self):
        pass


def test_a_region_of_the_screen_is_grabbed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", SimpleNamespace(mss=FakeScreens))
    loader = LoadScreenshots("screen 0 5 6 64 32", img_size=64)
    path, im, im0, cap, text = next(loader)
    assert (path, cap, text) == ("0", None, "screen 0 (LTWH): 15,26,64,32: ")
    assert im0.shape == (32, 64, 3)
    assert im0[0, 0].tolist() == [0, 0, 255]
    assert im[:, 0, 0].tolist() == [255, 0, 0]
    assert loader.sct.place["left"] == 15
    with pytest.raises(ValueError, match="screen 3 is not there"):
        LoadScreenshots("screen 3")


def test_without_mss_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install mss"):
        LoadScreenshots("screen")


def test_the_formats_are_known_by_name():
    assert {"jpg", "png", "tiff", "webp", "pfm", "mpo"} <= set(IMG_FORMATS)
    assert {"mp4", "mov", "avi", "gif", "mkv"} <= set(VID_FORMATS)
