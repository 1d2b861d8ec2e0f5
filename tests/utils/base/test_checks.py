"""Checks of what users give."""

import shutil
import subprocess
import sys

import pytest

from utils.base import checks
from utils.base.checks import (
    check_file,
    check_img_size,
    check_imshow,
    check_requirements,
    check_suffix,
    check_yaml,
    print_args,
)
from utils.base.paths import ROOT


def test_an_existing_file_is_returned_as_it_is(tmp_path):
    file = tmp_path / "ä b.yaml"
    file.touch()
    assert check_file(file) == str(file)


def test_a_name_is_searched_in_the_tree():
    assert check_file("coco128.yaml") == str(ROOT / "data" / "coco128.yaml")
    assert check_yaml("data/coco128.yaml").endswith("coco128.yaml")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        check_file("nowhere.yaml")


def test_a_name_found_twice_lists_both(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    for folder in ("data/a", "data/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.yaml").touch()
    with pytest.raises(FileNotFoundError, match="ambiguous"):
        check_file("x.yaml")
    assert check_file("b/x.yaml") == str(tmp_path / "data" / "b" / "x.yaml")


def test_a_url_is_fetched_once_into_the_working_folder(tmp_path, monkeypatch):
    source = tmp_path / "there" / "my photo.jpg"
    source.parent.mkdir()
    source.write_bytes(b"picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.base.downloads.safe_download", lambda file, url: shutil.copy(source, file))
    assert check_file("https://host/my%20photo.jpg?size=large") == "my photo.jpg"
    assert (tmp_path / "my photo.jpg").read_bytes() == b"picture"


def test_a_wrong_suffix_names_the_allowed_ones():
    check_suffix("a.PT")
    check_suffix(["a.pt", "folder/no_suffix"])
    with pytest.raises(ValueError, match=r"a\.onnx ends in \.onnx; allowed is \.pt"):
        check_suffix(["b.pt", "a.onnx"])


@pytest.mark.parametrize(
    ("given", "stride", "expected"), [(640, 32, 640), (641, 32, 672), ([100, 64], 64, [128, 64]), (1, 32, 32)]
)
def test_image_sizes_are_rounded_up_to_the_stride(given, stride, expected):
    assert check_img_size(given, s=stride) == expected


def test_a_rounded_image_size_is_logged_and_an_impossible_one_refused(capsys):
    check_img_size(640)
    assert capsys.readouterr().err == ""
    check_img_size(650)
    assert "taking 672" in capsys.readouterr().err
    with pytest.raises(ValueError, match="image size 0"):
        check_img_size(0)


def test_without_a_display_nothing_is_shown_and_nothing_breaks(monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not check_imshow()
    assert capsys.readouterr().err == ""
    assert not check_imshow(warn=True)
    assert "cannot be shown" in capsys.readouterr().err


def test_missing_requirements_are_reported_with_the_command(capsys):
    assert check_requirements(("numpy", "opencv-python>=1.0", "torch>=1.0; python_version<'3'"))
    assert capsys.readouterr().err == ""
    assert not check_requirements(["numpy>=999", "no-such-package-here"], exclude=("pandas",))
    line = capsys.readouterr().err
    assert 'pip install "numpy>=999" "no-such-package-here"' in line


def test_a_requirements_file_is_read_and_names_can_be_left_out(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# comment\n-r other.txt\nnumpy>=1.0  # why\nno-such-package-here\n", encoding="utf-8")
    assert not check_requirements(file)
    assert check_requirements(file, exclude=["no-such-package-here"])


def test_arguments_are_logged_without_passwords(capsys):
    def f(weights, source="rtsp://me:secret@host/1"):
        print_args(show_func=True)

    f("a.pt")
    line = capsys.readouterr().err
    assert line == "test_checks: f: weights=a.pt, source=rtsp://***@host/1\n"


def test_importing_writes_nothing_and_loads_no_torch_for_the_command(tmp_path):
    code = "import sys; import detect, utils.base.checks; print('torch' in sys.modules, 'cv2' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert answer.stdout == "False False\n", answer.stderr
    assert not list(tmp_path.iterdir())
