"""The files that a detection leaves: names, labels, crops, videos."""

import numpy as np
import pytest
import torch

from utils.detecting.detector import Found
from utils.detecting.files import OutputNames, ResultFiles, VideoFiles, save_crops, write_labels
from utils.detecting.options import DetectOptions
from utils.sources.pictures import Picture

BOXES = torch.tensor([[10.0, 20, 30, 60, 0.9, 1], [0, 0, 100, 200, 0.5, 0]])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def found(boxes=BOXES):
    return Found(boxes, (200, 100), boxes[:, 6:])


def test_labels_are_written_in_both_formats(tmp_path):
    path = tmp_path / "labels" / "a.txt"
    write_labels(path, found(), save_format=0, save_conf=False)
    assert path.read_text(encoding="utf-8") == "0 0.5 0.5 1 1\n1 0.2 0.2 0.2 0.2\n"
    write_labels(path, found(), save_format=1, save_conf=True)
    assert path.read_text(encoding="utf-8") == "0 0 0 1 1 0.5\n1 0.1 0.1 0.3 0.3 0.9\n"


def test_crops_stay_inside_the_folder(tmp_path):
    im = np.zeros((200, 100, 3), np.uint8)
    save_crops(tmp_path / "crops", "a", found(), im_bgr=im, names={0: "..", 1: "../../x"})
    assert files(tmp_path) == ["crops/_.._x/a.jpg", "crops/_/a.jpg"]


@pytest.mark.parametrize(
    ("path", "mode", "name"),
    [
        ("x/a.jpg", "image", "a.jpg"),
        ("x/a.dng", "image", "a.jpg"),
        ("x/a.b.mov", "video", "a.b.mp4"),
        ("0", "stream", "0.mp4"),
        ("rtsp_//192.168.1.10", "stream", "192.168.1.10.mp4"),
    ],
)
def test_results_are_named_after_their_source(path, mode, name):
    assert OutputNames(by_stem=False)(path, mode) == name


def test_streams_of_one_name_get_files_of_their_own():
    names = OutputNames(by_stem=False)
    assert [names("a/live", "stream", 0), names("b/live", "stream", 1)] == ["live.mp4", "live_2.mp4"]
    assert names("a/live", "stream", 0) == "live.mp4"


def test_a_video_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "v.mp4").mkdir()
    with pytest.raises(OSError, match=r"v\.mp4 cannot be written"):
        VideoFiles().write(tmp_path / "v.mp4", np.zeros((48, 64, 3), np.uint8), fps=30)


def test_a_video_appears_when_it_is_whole(tmp_path):
    videos, frame = VideoFiles(), np.zeros((48, 64, 3), np.uint8)
    for _ in range(3):
        videos.write(tmp_path / "v.mp4", frame, fps=30)
    assert "v.mp4" not in files(tmp_path)
    videos.write(tmp_path / "w.mp4", frame, fps=30)
    assert "v.mp4" in files(tmp_path)
    videos.close()
    assert files(tmp_path) == ["v.mp4", "w.mp4"]


def test_a_video_of_which_frames_are_lost_is_an_error_and_not_there(tmp_path, monkeypatch):
    videos = VideoFiles()
    for index, name in enumerate(("v.mp4", "w.mp4")):
        videos.write(tmp_path / name, np.zeros((48, 64, 3), np.uint8), fps=30, index=index)
    monkeypatch.setattr("utils.detecting.files._count_frames", lambda path: 0)
    with pytest.raises(OSError, match=r"w\.mp4 cannot be written"):
        videos.close()
    assert files(tmp_path) == []


def test_crops_and_labels_of_long_names_are_saved(tmp_path):
    picture = Picture(f"{'n' * 251}.mp4", np.zeros((200, 100, 3), np.uint8), mode="video", frame=1234567)
    options = DetectOptions(save_txt=True, save_crop=True, nosave=True)
    with ResultFiles(tmp_path, options, {0: "c" * 300, 1: "\ud800"}) as results:
        results.save_detections(picture, found())
    assert sorted(path.rpartition("/")[0] for path in files(tmp_path)) == ["crops/_", f"crops/{'c' * 255}", "labels"]
