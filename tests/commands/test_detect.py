"""detect.py from end to end, with tiny random models and, where they are at hand, the official weights."""

import csv
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from tiny_media import claiming_jpeg
from tiny_models import tiny_detector, tiny_segmenter

import detect
from utils.base.image_io import read_image
from utils.base.paths import ROOT
from utils.detecting.detector import Found
from utils.detecting.files import append_csv
from utils.detecting.options import DetectOptions
from utils.plots import colors


def save_eager(model, path):
    """Save a checkpoint of a random model after its head was made to find something everywhere."""
    model.names = {0: "cat", 1: "dog", 2: "a/b"}
    head = model.model[-1]
    with torch.no_grad():
        for conv in head.m:
            conv.bias.view(head.na, -1)[:, 4 : 5 + head.nc] = 0
    torch.save({"model": model}, path)
    return path


@pytest.fixture
def weights(tmp_path):
    """A detector with three classes that finds something in every picture."""
    return save_eager(tiny_detector(), tmp_path / "tiny.pt")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(("a.jpg", "b c.png")):
        noise = np.random.default_rng(i).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), noise)
    return folder


@pytest.fixture
def run_detect(tmp_path, weights):
    """Run with the tiny model and a low threshold; results go below tmp_path/runs."""

    def run(source, **options):
        defaults = {"weights": weights, "project": tmp_path / "runs", "imgsz": 64, "conf_thres": 0.01, "max_det": 5}
        return detect.run(**{**defaults, "source": source, **options})

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_video(path, frames=3, size=(64, 48), fps=12):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    writer.release()
    return path


def test_pictures_are_saved_under_their_own_names(run_detect, photos, capsys):
    summary = run_detect(photos)
    assert (summary.seen, summary.unreadable) == (2, 0)
    assert files(summary.folder) == ["a.jpg", "b c.png"]
    assert read_image(summary.folder / "b c.png").shape == (40, 60, 3)
    assert (read_image(summary.folder / "b c.png") != read_image(photos / "b c.png")).any()
    log = capsys.readouterr().err
    assert f"image 1/2 {photos}/a.jpg: 64x64 " in log
    assert "ms pre-process" in log
    assert f"Results saved to {summary.folder}" in log


def test_runs_are_numbered_unless_they_may_share_a_folder(run_detect, photos):
    assert [run_detect(photos, nosave=True).folder.name for _ in range(2)] == ["exp", "exp2"]
    assert run_detect(photos, exist_ok=True).folder.name == "exp"


def test_labels_table_and_crops_hold_every_detection(run_detect, photos):
    summary = run_detect(photos / "a.jpg", save_txt=True, save_conf=True, save_csv=True, save_crop=True, nosave=True)
    labels = (summary.folder / "labels" / "a.txt").read_text(encoding="utf-8").splitlines()
    with open(summary.folder / "predictions.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["Image Name", "Prediction", "Confidence"]
    assert len(labels) == len(rows) == 5
    assert all(row[0] == "a.jpg" and row[1] in ("cat", "dog", "a/b") for row in rows)
    assert [float(line.split()[-1]) for line in labels] == pytest.approx([float(row[2]) for row in rows], abs=0.006)
    crops = [name for name in files(summary.folder) if name.startswith("crops")]
    assert len(crops) == 5
    assert {name.split("/")[1] for name in crops} <= {"cat", "dog", "a_b"}
    assert "a.jpg" not in files(summary.folder)


def test_only_wanted_classes_are_found(run_detect, photos):
    summary = run_detect(photos, classes=1, save_txt=True)
    lines = [
        line for path in (summary.folder / "labels").iterdir() for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert lines
    assert all(line.startswith("1 ") for line in lines)


def test_a_video_becomes_an_mp4_with_its_rate_and_a_label_file_per_frame(run_detect, tmp_path):
    summary = run_detect(write_video(tmp_path / "my clip.avi"), save_txt=True)
    assert summary.seen == 3
    assert files(summary.folder) == [*(f"labels/my clip_{i}.txt" for i in (1, 2, 3)), "my clip.mp4"]
    video = cv2.VideoCapture(str(summary.folder / "my clip.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 12
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_streams_are_saved_as_one_video_each(run_detect, tmp_path):
    first, second = write_video(tmp_path / "one.mp4", fps=60), write_video(tmp_path / "two.mp4", fps=60)
    (tmp_path / "both.streams").write_text(f"{first}\n{second}\n", encoding="utf-8")
    summary = run_detect(tmp_path / "both.streams")
    assert files(summary.folder) == ["one.mp4", "two.mp4"]
    assert summary.seen >= 2
    assert cv2.VideoCapture(str(summary.folder / "two.mp4")).read()[0]


def test_an_unreadable_picture_is_skipped_and_makes_the_exit_code_1(tmp_path, weights, photos, capsys):
    (photos / "aa.jpg").write_text("no picture", encoding="utf-8")
    arguments = ["--weights", str(weights), "--source", str(photos), "--project", str(tmp_path), "--imgsz", "64"]
    assert detect.main(detect.parse_opt(arguments)) == 1
    assert files(tmp_path / "exp") == ["a.jpg", "b c.png"]
    log = capsys.readouterr().err
    assert "aa.jpg cannot be read" in log
    assert "1 of the sources could not be read" in log


def test_a_picture_that_claims_too_many_pixels_is_skipped_like_an_unreadable_one(tmp_path, weights, photos, capsys):
    claiming_jpeg(photos / "aa.jpg", 30000, 30000)
    arguments = ["--weights", str(weights), "--source", str(photos), "--project", str(tmp_path), "--imgsz", "64"]
    assert detect.main(detect.parse_opt(arguments)) == 1
    assert files(tmp_path / "exp") == ["a.jpg", "b c.png"]
    assert "aa.jpg is too large" in capsys.readouterr().err


def test_two_files_of_one_name_do_not_overwrite_each_other(run_detect, photos, capsys):
    (photos / "sub").mkdir()
    cv2.imwrite(str(photos / "sub" / "a.jpg"), np.zeros((50, 50, 3), np.uint8))
    summary = run_detect(f"{photos}/**/a.jpg", save_txt=True)
    assert files(summary.folder) == ["a.jpg", "a_2.jpg", "labels/a.txt", "labels/a_2.txt"]
    assert read_image(summary.folder / "a_2.jpg").shape == (50, 50, 3)
    assert "saving as a_2.jpg" in capsys.readouterr().err


def test_an_ensemble_detects(run_detect, weights, photos, tmp_path):
    other = save_eager(tiny_detector(seed=1), tmp_path / "other.pt")
    summary = run_detect(photos, weights=[weights, other])
    assert summary.seen == 2


def test_a_segmentation_model_detects_its_own_classes(run_detect, photos, tmp_path):
    path = save_eager(tiny_segmenter(), tmp_path / "seg.pt")
    summary = run_detect(photos / "b c.png", weights=path, save_txt=True)
    labels = (summary.folder / "labels" / "b c.txt").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in labels} <= {"0", "1", "2"}
    assert len(labels) == 5


def test_feature_maps_are_saved_on_request(run_detect, photos):
    summary = run_detect(photos / "a.jpg", visualize=True, nosave=True)
    assert any(name.startswith("a/stage0_Conv") for name in files(summary.folder))


def test_augmented_detection_runs(run_detect, photos):
    assert run_detect(photos, augment=True, nosave=True).seen == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--source", "gone.jpg"], "gone.jpg does not exist"),
        (["--weights", "gone.pt"], "gone.pt does not exist"),
        (["--classes", "7"], "class 7 is unknown; this model has 0 cat, 1 dog"),
        (["--conf-thres", "2"], "--conf-thres 2.0 is no fraction"),
        (["--device", "99"], "device '99'"),
        (["--source", "screen 1 2"], "names no part of a screen"),
        (["--data", "gone.yaml"], "gone.yaml does not exist"),
        (["--imgsz", "1", "2", "3"], "is no size"),
        (["--save-format", "2"], "--save-format 2 is unknown"),
        (["--vid-stride", "0"], "--vid-stride 0 is too small"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(change, words, tmp_path, weights, photos, capsys):
    arguments = ["--weights", str(weights), "--source", str(photos), "--project", str(tmp_path / "runs"), *change]
    assert detect.main(detect.parse_opt(arguments)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("detect.py: ")
    assert words in last
    assert not (tmp_path / "runs").exists()


def test_weights_that_do_not_detect_are_a_mistake(tmp_path, photos, capsys):
    (tmp_path / "bad.pt").write_text("no weights", encoding="utf-8")
    arguments = ["--weights", str(tmp_path / "bad.pt"), "--source", str(photos), "--project", str(tmp_path)]
    assert detect.main(detect.parse_opt(arguments)) == 2
    assert "bad.pt" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_option_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        detect.parse_opt(["--sorce", "x"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "detect.py: unrecognized arguments: --sorce x; --help lists all options\n"


def test_a_folder_that_cannot_be_written_is_a_mistake(tmp_path, weights, photos, capsys):
    (tmp_path / "file").touch()
    arguments = ["--weights", str(weights), "--source", str(photos), "--project", str(tmp_path / "file")]
    assert detect.main(detect.parse_opt(arguments)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failed_write_ends_with_a_line_that_names_the_file(tmp_path, weights, photos, capsys):
    project = tmp_path / "runs"
    (project / "exp" / "a.jpg").mkdir(parents=True)
    arguments = f"--weights {weights} --source {photos} --project {project} --exist-ok --imgsz 64".split()
    assert detect.main(detect.parse_opt(arguments)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{project}/exp/a.jpg: cannot be written" in last


def test_ctrl_c_closes_the_video_and_exits_with_130(monkeypatch, tmp_path, weights):
    video = write_video(tmp_path / "clip.mp4", frames=5)
    lines = []

    def stop_at_the_third(*args):
        lines.append(args)
        if len(lines) == 3:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(detect, "log_line", stop_at_the_third)
    arguments = f"--weights {weights} --source {video} --project {tmp_path} --imgsz 64".split()
    assert detect.main(detect.parse_opt(arguments)) == 130
    assert cv2.VideoCapture(str(tmp_path / "exp" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_the_command_and_run_share_options_and_defaults():
    assert DetectOptions(**vars(detect.parse_opt([]))) == DetectOptions()
    options = DetectOptions()
    assert options.imgsz == (640, 640)
    assert (options.conf_thres, options.iou_thres, options.max_det) == (0.25, 0.45, 1000)
    assert options.source == str(ROOT / "data" / "images")
    with pytest.raises(TypeError, match="no_such_option"):
        detect.run(no_such_option=1)


@pytest.mark.parametrize("flag", ["--imgsz", "--img", "--img-size"])
def test_the_image_size_has_three_spellings(flag):
    assert detect.parse_opt([flag, "320", "640"]).imgsz == [320, 640]


def test_help_is_quick_and_works_from_any_folder(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "detect.py"), "--help"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert answer.returncode == 0
    assert "--conf-thres" in answer.stdout
    assert not {"torch", "cv2", "numpy"} & {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}


def test_masks_are_drawn_under_the_boxes():
    prototypes = torch.ones(1, 10, 20)
    prototypes[0, :, 10:] = -1
    boxes = torch.tensor([[5.0, 5, 195, 95, 0.9, 1]])
    masked = Found(boxes, (100, 200), torch.tensor([[9.0]]), prototypes)
    im = np.zeros((100, 200, 3), np.uint8)
    detect.draw(im, masked, DetectOptions(hide_labels=True), {1: "dog"})
    full = np.array(colors(1, bgr=True))
    assert im[50, 50].tolist() == (full // 2).tolist()
    assert im[50, 150].tolist() == [0, 0, 0]
    assert im[50, 5].tolist() == full.tolist()


def test_the_official_weights_find_what_they_should(assets, tmp_path):
    weights, images = assets / "weights" / "yolov5n.pt", assets / "images"
    summary = detect.run(weights=weights, source=images, project=tmp_path, save_txt=True, save_format=1)
    golden = json.loads((assets / "golden" / "yolov5n_predictions.json").read_text(encoding="utf-8"))
    for photo, expected in golden.items():
        lines = (summary.folder / "labels" / f"{photo[:-4]}.txt").read_text(encoding="utf-8").splitlines()
        got = np.array([line.split() for line in lines], float)[::-1]
        wanted = np.array(expected["boxes_in_image"])
        height, width = expected["im0_hw"]
        assert got[:, 0].tolist() == wanted[:, 5].tolist()
        assert np.abs(got[:, 1:] * [width, height, width, height] - wanted[:, :4]).max() <= 0.51


def test_a_name_that_a_spreadsheet_takes_for_a_formula_is_marked(tmp_path):
    append_csv(tmp_path / "predictions.csv", [("-1.jpg", "=1+1", "0.50"), ("a.jpg", "cat", "0.25")])
    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["'-1.jpg,'=1+1,0.50", "a.jpg,cat,0.25"]


def test_classes_without_a_name_are_kept(run_detect, photos, tmp_path):
    model = tiny_detector()
    path = save_eager(model, tmp_path / "short.pt")
    model.names = ["cat"]
    model.model[-1].m[0].bias.data.view(model.model[-1].na, -1)[:, 7] = 9.0
    torch.save({"model": model}, path)
    summary = run_detect(photos, weights=path, save_csv=True)
    rows = list(csv.reader((summary.folder / "predictions.csv").open(encoding="utf-8")))
    assert "class2" in {row[1] for row in rows}


@pytest.mark.parametrize("flags", [[], ["--nosave", "--save-csv"], ["--visualize"]])
def test_a_folder_that_is_deleted_while_the_run_goes_on_is_an_error(
    tmp_path, weights, photos, capsys, monkeypatch, flags
):
    log_line = detect.log_line

    def delete(*arguments):
        shutil.rmtree(tmp_path / "exp", ignore_errors=True)
        return log_line(*arguments)

    monkeypatch.setattr(detect, "log_line", delete)
    arguments = f"--weights {weights} --source {photos} --project {tmp_path} --imgsz 64 --conf-thres 0.01".split()
    assert detect.main(detect.parse_opt([*arguments, *flags])) == 1
    log = capsys.readouterr().err
    assert "Results saved" not in log
    assert log.splitlines()[-1] == (f"detect.py: {tmp_path}/exp: was deleted or moved while results were written to it")
    assert not (tmp_path / "exp").exists()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[1:] = sys.argv[2:]
import detect
sys.exit(detect.main(detect.parse_opt()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize(("limit", "name"), [(100, "predictions.csv"), (500, "a.jpg"), (0, "labels/a.txt")])
def test_a_run_without_room_on_the_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path, weights, photos, limit, name
):
    options = f"--weights {weights} --source {photos} --project {tmp_path} --imgsz 64 --conf-thres 0.01 --max-det 5"
    extra = ["--save-csv"] if limit else ["--save-txt"]
    command = [sys.executable, "-c", LIMITED, str(limit), *options.split(), *extra]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.splitlines()[-1] == f"detect.py: {tmp_path}/exp/{name}: cannot be written: File too large"
    left = {path: (tmp_path / "exp" / path).read_bytes() for path in files(tmp_path / "exp")}
    assert {path for path in left if path != "predictions.csv"} == set()
    assert len(left.get("predictions.csv", b"").splitlines()) in (0, 6)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take only names that are text")
def test_a_file_whose_name_is_no_text_is_looked_at_like_any_other(run_detect, photos):
    (photos / "a.jpg").rename(photos / os.fsdecode(b"caf\xe9.jpg"))
    summary = run_detect(photos, save_csv=True, save_txt=True)
    assert files(summary.folder) == ["b c.png", "caf_.jpg", "labels/b c.txt", "labels/caf_.txt", "predictions.csv"]
    assert "caf\\udce9.jpg," in (summary.folder / "predictions.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take only names that are text")
def test_a_video_whose_name_is_no_text_is_skipped_and_does_not_end_the_process(run_detect, photos):
    write_video(photos / "clip.mp4", frames=2).rename(photos / os.fsdecode(b"caf\xe9.mp4"))
    summary = run_detect(photos)
    assert files(summary.folder) == ["a.jpg", "b c.png"]
    assert summary.unreadable == 1
