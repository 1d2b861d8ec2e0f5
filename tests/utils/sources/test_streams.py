"""Streams: fresh pictures, ends, losses, names."""

import threading

import cv2
import numpy as np
import pytest
from tiny_media import write_video

from utils.sources import streams as stream_module
from utils.sources.streams import LoadStreams, clean_str


def test_a_stream_that_ends_gives_its_pictures_and_stops(tmp_path):
    video = write_video(tmp_path / "a b.mp4", frames=4, fps=60)
    before = set(threading.enumerate())
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
    assert set(threading.enumerate()) <= before


def test_several_streams_come_as_one_batch_with_one_shape(tmp_path, capsys):
    wide, high = write_video(tmp_path / "w.mp4", size=(64, 32)), write_video(tmp_path / "h.mp4", size=(32, 64))
    listing = tmp_path / "two.streams"
    listing.write_text(f"{wide}\n\n# a comment\n{high}\n", encoding="utf-8")
    with LoadStreams(str(listing), img_size=64) as streams:
        sources, im, im0, _, _ = next(streams)
    assert len(sources) == len(im0) == 2
    assert im.shape == (2, 3, 64, 64)
    assert "differ in shape" in capsys.readouterr().err


def test_closing_streams_ends_their_threads(tmp_path):
    before = set(threading.enumerate())
    streams = LoadStreams(str(write_video(tmp_path / "a.mp4", frames=20, fps=2)), img_size=64)
    next(streams)
    streams.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(StopIteration):
        next(streams)


def test_a_stream_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(OSError, match=r"gone\.mp4 cannot be opened"):
        LoadStreams(str(tmp_path / "gone.mp4"))
    with pytest.raises(FileNotFoundError, match=r"cams\.streams does not exist"):
        LoadStreams(str(tmp_path / "cams.streams"))
    (tmp_path / "no.streams").write_text("\n", encoding="utf-8")
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
    monkeypatch.setattr(stream_module, "RECONNECT_SECONDS", 0.001)
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
