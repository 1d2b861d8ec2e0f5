"""The files that a detection leaves: names, labels, crops, videos."""

import numpy as np
import pytest
import torch

from utils.detecting.detector import Found
from utils.detecting.files import OutputNames, VideoFiles, save_crops, write_labels

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
