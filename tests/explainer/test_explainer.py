"""The command from end to end on a tiny checkpoint: what it writes, and what it says about bad input."""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from fresh_interpreter import IN_STOCK, tree
from PIL import Image
from scenes import confident_detector, picture, save_checkpoint
from tiny_media import claiming_png, write_video

from explainer.errors import UnreadableImageError, UsageError
from explainer.explainer import main, parse_opt, run
from explainer.files.results import Results
from explainer.files.sources import Source


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


@pytest.fixture
def command(weights, tmp_path):
    """Run the command on a source and return (exit code, folder of results)."""

    def call(source, *arguments):
        common = ["--weights", weights, "--imgsz", "96", "--conf-thres", "0.05", "--project", str(tmp_path / "out")]
        return main(parse_opt([*common, "--source", str(source), *arguments])), tmp_path / "out" / "exp"

    call.project = tmp_path / "out"
    return call


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def save(path, image_rgb, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_rgb).save(path, **options)
    return path


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def rows_of(folder):
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_overlay_of_the_original_size_and_a_row_per_detection_are_written(command, photos):
    save(photos / "one.png", picture(50, 75))
    code, folder = command(photos)
    assert code == 0
    assert read(folder / "one.png").shape == (50, 75, 3)
    rows = rows_of(folder)
    assert len(rows) > 2
    for row in rows:
        assert row["image"] == str(photos / "one.png")
        assert row["name"] in ("ant", "bee", "cat")
        assert 0 <= float(row["x1"]) <= float(row["x2"]) <= 75
        assert 0 <= float(row["y1"]) <= float(row["y2"]) <= 50
        assert row["layer"] == {"4": "model.7", "8": "model.4"}[row["stride"]]
        assert (row["method"], row["item"]) == ("GradCAM", "class")
        assert float(row["score"]) < 0
        assert row["note"] or 0 <= float(row["energy_in_box"]) <= 1


def test_the_rows_come_with_the_columns_in_a_fixed_order(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos)
    header = (folder / "explanations.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith(
        "image,class,name,confidence,x1,y1,x2,y2,stride,method,layer,item,score,energy_in_box,energy_in_mask,peak_x,peak_y"
    )


def test_run_returns_the_last_overlay_as_rgb(weights, photos, tmp_path):
    blue = np.zeros((40, 60, 3), np.uint8)
    blue[..., 2] = 200
    save(photos / "blue.png", blue)
    nothing = {"conf_thres": 0.999, "no_near_miss": True}
    image = run(weights=weights, source=str(photos), imgsz=96, project=str(tmp_path / "out"), **nothing)
    assert image.dtype == np.uint8
    assert (image == blue).all()
    assert (read(tmp_path / "out/exp/blue.png") == blue).all()


def test_without_a_detection_the_picture_stays_and_the_table_and_the_log_say_why(command, photos, capsys):
    save(photos / "one.png", picture())
    code, folder = command(photos, "--conf-thres", "0.999", "--no-near-miss")
    assert code == 0
    assert "one.png: no detection above confidence 0.999" in capsys.readouterr().err
    assert (read(folder / "one.png") == picture()).all()
    assert [row["note"] for row in rows_of(folder)] == ["no detection above confidence 0.999"]


def test_without_a_detection_the_best_below_the_threshold_is_shown_and_the_table_and_the_log_name_it(
    command, photos, capsys
):
    save(photos / "one.png", picture())
    code, folder = command(photos, "--conf-thres", "0.999", "--suspects", "3", "--report")
    log = capsys.readouterr().err
    (row,) = rows_of(folder)
    assert (code, row["outcome"]) == (0, "below threshold")
    assert row["note"] == f"best below 0.999: {row['name']} {float(row['confidence']):.2f}"
    assert f"64x96 (no detections), {row['note']}, " in log
    assert (read(folder / "one.png") != picture()).any()
    # It is no detection to be suspected, and none to be counted.
    assert "Suspect" not in log
    assert "1 image, 1 below threshold ·" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_run_with_a_model_that_is_already_loaded_gives_the_same_picture(weights, photos, tmp_path):
    save(photos / "one.png", picture())
    options = {"source": str(photos), "imgsz": 96, "conf_thres": 0.05, "project": str(tmp_path / "out")}
    from models.common import DetectMultiBackend

    loaded = run(weights=DetectMultiBackend(weights), **options)
    assert (loaded == run(weights=weights, **options)).all()


def test_each_class_gets_its_own_picture_when_asked_for(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos, "--backward-per-class")
    names = {row["name"] for row in rows_of(folder)}
    assert len(names) > 1
    assert {path.stem for path in (folder / "one").iterdir()} == names


def test_each_detection_gets_its_own_picture_and_the_image_a_contact_sheet(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos, "--per-detection", "--max-det", "3")
    names = [f"{index}_{row['name']}_{float(row['confidence']):.2f}.jpg" for index, row in enumerate(rows_of(folder))]
    assert {path.name for path in (folder / "one").iterdir()} == {*names, "sheet.jpg"}
    assert read(folder / "one" / names[0]).shape == picture().shape
    sheet = read(folder / "one" / "sheet.jpg")
    # Five tiles of 387 x 258 pixels with a colour bar each, in two columns and three rows.
    assert sheet.shape[0] > 3 * 258
    assert sheet.shape[1] > 2 * (387 + 60)


def test_the_raw_maps_are_kept_when_asked_for(command, photos):
    save(photos / "one.png", picture(50, 75))
    _, folder = command(photos, "--save-npz")
    kept, rows = np.load(folder / "one" / "maps.npz"), rows_of(folder)
    assert kept["heatmap"].shape == (50, 75)
    assert kept["names"].tolist() == [row["name"] for row in rows]
    for index, row in enumerate(rows):
        cells = kept[f"{index}:{row['layer']}"]
        assert cells.dtype == np.float16
        assert cells.shape == (64 // int(row["stride"]), 96 // int(row["stride"]))
        assert np.abs(cells).max() == 1
        assert kept[f"{index}:{row['layer']}:scale"] > 0


def test_only_the_chosen_class_is_explained(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos, "--class-names", "bee")
    assert {row["name"] for row in rows_of(folder)} == {"bee"}


def test_crop_replaces_the_evidence_by_the_mean_colour(weights, photos, tmp_path):
    save(photos / "one.png", picture())
    options = {"imgsz": 96, "conf_thres": 0.05, "project": str(tmp_path / "out"), "keep_only_topk": 10, "crop": True}
    image = run(weights=weights, source=str(photos), hide_labels=True, line_thickness=1, max_det=3, **options)
    mean = np.uint8(picture().mean(axis=(0, 1)) + 0.5)
    share = (image == mean).all(axis=2).mean()
    assert 0.01 < share < 0.1


def test_nosave_writes_the_table_and_the_options_alone(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos, "--nosave")
    assert {path.name for path in folder.iterdir()} == {"explanations.csv", "options.yaml"}


def test_the_picture_of_each_image_is_shown_when_asked_for(command, photos, monkeypatch):
    shown = []
    monkeypatch.setattr("explainer.command.opening.check_display", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, picture_bgr: shown.append((title, picture_bgr[..., ::-1])))
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: -1)
    paths = [str(save(photos / f"{number}.png", picture(50, 75 + number))) for number in range(4)]
    _, folder = command(photos, "--view-img")
    assert [title for title, _ in shown] == paths
    assert all((image == read(folder / f"{number}.png")).all() for number, (_, image) in enumerate(shown))


def test_how_a_model_is_opened_is_handed_on(command, photos, monkeypatch):
    given = {}

    def refuse(weights, **how):
        given.update(how)
        raise UsageError("not opened")

    monkeypatch.setattr("explainer.command.opening.open_model", refuse)
    save(photos / "one.png", picture())
    assert command(photos, "--dnn", "--half", "--trust", "--device", "cpu", "--data", "my.yaml")[0] == 2
    assert given == {"arch": None, "dnn": True, "half": True, "trust": True, "device": "cpu", "data": "my.yaml"}


def test_every_run_gets_a_folder_of_its_own(command, photos):
    save(photos / "one.png", picture())
    _, folder = command(photos)
    command(photos)
    assert (folder.parent / "exp2" / "one.png").exists()


def test_two_files_of_one_name_in_different_folders_are_both_kept(command, photos):
    save(photos / "a" / "one.png", picture(seed=1))
    save(photos / "b" / "one.png", picture(seed=2))
    _, folder = command(f"{photos}/*/one.png")
    assert (read(folder / "one.png") != read(folder / "one_2.png")).any()


def test_the_classes_of_two_images_that_differ_in_suffix_alone_are_both_kept(command, photos):
    save(photos / "one.png", picture(seed=1))
    save(photos / "one.jpg", picture(seed=1))
    _, folder = command(photos, "--backward-per-class")
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"one", "one_2"}


def test_a_video_becomes_a_video_of_its_explanations(command, photos):
    writer = cv2.VideoWriter(str(photos / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for seed in range(5):
        writer.write(picture(seed=seed))
    writer.release()
    code, folder = command(photos / "clip.mp4", "--vid-stride", "2")
    assert code == 0
    video = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    assert video.read()[1].shape == (64, 96, 3)
    assert {row["frame"] for row in rows_of(folder)} <= {"1", "2", "3", "4", "5"}
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == Source(str(photos / "clip.mp4"), 2).count_frames() == 2
    assert Source(str(photos), 1).count_frames() == len(list(photos.glob("*.*"))) - 1 + 5


UNUSUAL = {
    "grey": lambda image: Image.fromarray(image).convert("L"),
    "transparent": lambda image: Image.fromarray(image).convert("RGBA"),
    "palette": lambda image: Image.fromarray(image).convert("P"),
    "sixteen-bit": lambda image: Image.fromarray(image[..., 0].astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_image_is_explained(command, photos, kind):
    UNUSUAL[kind](picture(40, 60)).save(photos / "one.png")
    code, folder = command(photos)
    assert code == 0
    assert read(folder / "one.png").shape == (40, 60, 3)


def test_a_cmyk_photo_is_explained(command, photos):
    Image.fromarray(picture(40, 60)).convert("CMYK").save(photos / "one.jpg")
    assert command(photos)[0] == 0


def test_a_photo_that_was_turned_by_its_camera_is_explained_upright(command, photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / "one.jpg", picture(40, 60), exif=exif)
    _, folder = command(photos)
    assert read(folder / "one.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (2, 40)])
def test_a_tiny_image_is_explained(command, photos, size):
    save(photos / "one.png", np.full((*size, 3), 128, np.uint8))
    code, folder = command(photos)
    assert code == 0
    assert read(folder / "one.png").shape == (*size, 3)


def test_names_with_spaces_and_letters_of_any_alphabet_are_kept(command, photos):
    save(photos / "mein Hund größer 犬.png", picture())
    code, folder = command(photos)
    assert code == 0
    assert (folder / "mein Hund größer 犬.png").exists()


def damage(folder, kind):
    path = folder / "b.jpg"
    if kind == "text called jpg":
        path.write_text("this is no picture", encoding="utf-8")
    elif kind == "empty file":
        path.touch()
    else:
        save(path, picture(200, 300))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "kind",
    [
        "text called jpg",
        "empty file",
        pytest.param("truncated jpeg", marks=pytest.mark.skipif(IN_STOCK, reason="stock YOLOv5 takes half a picture")),
    ],
)
def test_an_unreadable_image_is_reported_and_skipped_and_the_rest_is_saved(command, photos, kind, capsys):
    save(photos / "a.png", picture())
    damage(photos, kind)
    save(photos / "c.png", picture())
    code, folder = command(photos)
    assert code == 1
    log = capsys.readouterr().err
    assert f"skipped {photos / 'b.jpg'}" in log
    assert "1 of 3 images skipped" in log
    assert {path.name for path in folder.glob("*.png")} == {"a.png", "c.png"}
    assert {row["image"] for row in rows_of(folder)} == {str(photos / "a.png"), str(photos / "c.png")}


def test_an_image_that_claims_too_many_pixels_is_skipped_with_its_size_unless_they_are_allowed(command, photos, capsys):
    save(photos / "a.png", picture())
    claiming_png(photos / "b.png", 30000, 30000)
    code, folder = command(photos)
    assert code == 1
    assert (
        "b.png: it says that it has 900 megapixels, at most 200 are read; --max-megapixels" in capsys.readouterr().err
    )
    assert [path.name for path in folder.glob("*.png")] == ["a.png"]
    code, _ = command(photos / "a.png", "--max-megapixels", "0.002")
    assert code == 1


def test_run_raises_if_no_image_could_be_read(weights, photos, tmp_path):
    (photos / "a.jpg").write_text("no picture", encoding="utf-8")
    with pytest.raises(UnreadableImageError, match="no image of source"):
        run(weights=weights, source=str(photos), project=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "nowhere.jpg"], "source 'nowhere.jpg' cannot be opened"),
        (["--source", "{empty}"], "holds no image or video"),
        (["--weights", "model.onnx"], "weights 'model.onnx' is no .pt checkpoint"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--weights", "{broken}"], "broken.pt"),
        (["--layer", "99"], "unknown layer '99'; known: auto, head, neck"),
        (["--class-names", "dragon"], "unknown class name 'dragon'; known: ant, bee, cat"),
        (["--classes", "7"], "unknown class '7'; known: 0 ant, 1 bee, 2 cat"),
        (["--device", "99"], "99"),
        (["--data", "nowhere.yaml"], "--data 'nowhere.yaml'"),
        (["--project", "{file}"], "results cannot be written to"),
        (["--view-img"], "--view-img needs a display"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(command, photos, tmp_path, capsys, arguments, message):
    save(photos / "one.png", picture())
    places = {"empty": tmp_path / "empty", "broken": tmp_path / "broken.pt", "file": tmp_path / "file"}
    places["empty"].mkdir()
    places["broken"].write_bytes(b"")
    places["file"].touch()
    code, folder = command(photos, *(argument.format(**places) for argument in arguments))
    error = capsys.readouterr().err.splitlines()
    assert code == 2
    assert error[-1].startswith("explainer: error: ")
    assert message in error[-1]
    assert not folder.exists()


def test_a_full_disk_or_a_lost_folder_loses_nothing_that_was_written(weights, photos, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        save(photos / f"{name}.png", picture())
    from explainer.files import results

    write = results.write_picture

    def fails_at_c(path, picture_rgb):
        if path.stem == "c":
            raise OSError(28, "No space left on device")
        write(path, picture_rgb)

    monkeypatch.setattr(results, "write_picture", fails_at_c)
    with pytest.raises(OSError, match="No space left"):
        run(weights=weights, source=str(photos), imgsz=96, conf_thres=0.05, project=str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out/exp").glob("*.png")} == {"a.png", "b.png"}
    assert {row["image"] for row in rows_of(tmp_path / "out/exp")} >= {str(photos / "a.png"), str(photos / "b.png")}


def content_of(folder):
    """Return what a run has left by the path in its folder: bytes, of pages the data alone.

    In stock YOLOv5 the first passes of a process give other last digits than later ones: there, tables and names alone.
    """
    if IN_STOCK:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "options.yaml"]
        return {path.relative_to(folder): path.read_bytes() if path.suffix == ".csv" else b"" for path in files}
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del found["options.yaml"]
    if "report.html" in found:
        found["report.html"] = re.findall(rb"<script[^>]* id=.*?</script>", found["report.html"], re.DOTALL)
        assert found["report.html"]
    return found


def latest(project):
    return max(project.iterdir(), key=lambda folder: folder.stat().st_ctime_ns)


@pytest.fixture
def stopped(command, monkeypatch):
    """Run the command until so many pictures of images and frames are written, and return the folder of the results."""

    def call(source, *arguments, pictures):
        from explainer.files.results import Results

        write, count = Results.save, iter(range(pictures))

        def stops(self, frame, picture_rgb):
            if next(count, None) is None:
                raise KeyboardInterrupt
            return write(self, frame, picture_rgb)

        with monkeypatch.context() as patched:
            patched.setattr(Results, "save", stops)
            assert command(source, *arguments)[0] == 130
        return latest(command.project)

    return call


def going_on(folder, *arguments):
    return main(parse_opt(["--resume", str(folder), *arguments]))


@pytest.fixture
def album(photos):
    """Return a list of images of which some have the same name, one has nothing to see and one cannot be read; a video."""
    for number, name in enumerate(("a/one.png", "a/two.png", "b/one.jpg", "b/one.png", "c/one.png")):
        save(photos / name, picture(seed=number))
    (photos / "a/none.png").write_text("no picture", encoding="utf-8")
    for name in ("a/clip.mp4", "b/clip.mp4"):
        write_video(photos / name, frames=3)
    names = "a/one.png a/none.png b/one.jpg b/one.png a/two.png a/one.png c/one.png a/clip.mp4 b/clip.mp4".split()
    path = photos / "list.txt"
    path.write_text("".join(f"{photos / name}\n" for name in names), encoding="utf-8")
    return path


@pytest.mark.parametrize("arguments", [(), ("--backward-per-class", "--report", "--suspects", "4"), ("--save-npz",)])
@pytest.mark.parametrize("pictures", [0, 3, 7, 10])
def test_a_run_that_was_stopped_goes_on_and_leaves_what_one_that_was_not_leaves(
    command, stopped, album, pictures, arguments
):
    code, whole = command(album, *arguments, "--max-det", "4")
    folder = stopped(album, *arguments, "--max-det", "4", pictures=pictures)
    assert folder != whole
    assert going_on(folder) == code == 1
    assert content_of(folder) == content_of(whole)
    # Once more, after its end.
    assert going_on(folder) == 1
    assert content_of(folder) == content_of(whole)


def test_an_image_that_a_list_names_twice_in_a_row_keeps_both_of_its_pictures(command, stopped, photos):
    for number, folder in enumerate("abc"):
        save(photos / folder / "one.png", picture(seed=number))
    (photos / "list.txt").write_text("".join(f"{photos}/{folder}/one.png\n" for folder in "aabc"), encoding="utf-8")
    code, whole = command(photos / "list.txt")
    folder = stopped(photos / "list.txt", pictures=3)
    assert going_on(folder) == code == 0
    assert content_of(folder) == content_of(whole)


def test_finished_images_are_not_explained_again_but_for_the_page(command, stopped, photos):
    for number in range(6):
        save(photos / f"{number}.png", picture(seed=number))
    folder = stopped(photos, pictures=4)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert going_on(folder) == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    assert len(after) == 6
    assert before == {name: after[name] for name in ("0.png", "1.png", "2.png", "3.png")}
    assert going_on(folder, "--report", "--suspects", "2") == 0
    command(photos, "--report", "--suspects", "2")
    assert content_of(folder) == content_of(latest(command.project))


def test_a_page_that_is_full_says_how_many_images_it_lacks_also_when_a_run_has_gone_on(
    command, stopped, photos, monkeypatch
):
    from explainer.pictures import report

    monkeypatch.setattr(report, "MOST_IMAGES", 2)
    for number in range(6):
        save(photos / f"{number}.png", picture(seed=number))
    folder = stopped(photos, "--report", pictures=4)
    assert going_on(folder) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "the page holds 2 images; 4 more are in the table" in page


def test_the_labels_of_finished_images_count_once_for_all_methods(command, stopped, photos, capsys):
    for number in range(4):
        save(photos / f"{number}.png", picture(seed=number))
        (photos / f"{number}.txt").write_text("1 0.5 0.5 0.2 0.3\n", encoding="utf-8")
    arguments = ("--labels", str(photos), "--method", "GradCAM", "LayerCAM")
    command(photos, *arguments)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Labels: ")]
    folder = stopped(photos, *arguments, pictures=3)
    capsys.readouterr()
    assert going_on(folder) == 0
    assert told
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Labels: ")] == told


def test_a_killed_command_goes_on_with_nothing_lost_and_nothing_twice(weights, photos, tmp_path):
    for number in range(30):
        save(photos / f"{number:02}.png", picture(seed=number))
    root, out = tree(), tmp_path / "out"
    script = [sys.executable, str(root / "explainer/explainer.py")]
    common = [
        "--weights",
        weights,
        "--source",
        "photos",
        "--imgsz",
        "96",
        "--max-det",
        "3",
        "--project",
        str(out),
    ]
    with subprocess.Popen([*script, *common, "--report"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        table, end = out / "exp/explanations.csv", time.monotonic() + 120
        while not (table.exists() and b"02.png" in table.read_bytes()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        process.kill()
    assert process.returncode != 0
    assert not (out / "exp/report.html").exists()
    subprocess.run([*script, "--resume", str(out / "exp")], cwd=root, check=True)
    run(weights=weights, source=str(photos), imgsz=96, max_det=3, project=str(out), report=True)
    assert content_of(out / "exp") == content_of(out / "exp2")


def test_a_run_in_a_folder_with_older_rows_goes_on_behind_them(command, stopped, photos):
    for number in range(4):
        save(photos / f"{number}.png", picture(seed=number))
    command(photos, "--conf-thres", "0.1")
    folder = command.project / "exp"
    older = (folder / "explanations.csv").read_bytes()
    stopped(photos, "--exist-ok", pictures=2)
    assert going_on(folder) == 0
    command(photos, "--name", "whole")
    new = (command.project / "whole/explanations.csv").read_bytes()
    assert (folder / "explanations.csv").read_bytes() == older + new.partition(b"\n")[2]


def test_images_that_came_or_went_meanwhile_are_explained_or_reported(stopped, photos, capsys):
    for name in "bcde":
        save(photos / f"{name}.png", picture(seed=ord(name)))
    folder = stopped(photos, "--report", pictures=3)
    save(photos / "a.png", picture())
    (photos / "b.png").unlink()
    assert going_on(folder) == 1
    assert f"skipped {photos / 'b.png'}: the source no longer holds it" in capsys.readouterr().err
    assert {Path(row["image"]).stem for row in rows_of(folder)} == set("abcde")


def test_what_cannot_be_gone_on_with_is_one_line(command, photos, tmp_path, weights, capsys):
    save(photos / "one.png", picture())
    _, folder = command(photos)
    capsys.readouterr()
    options = folder / "options.yaml"
    kept = yaml.safe_load(options.read_text(encoding="utf-8"))

    def told(*arguments):
        assert main(parse_opt([*arguments])) == 2
        return capsys.readouterr().err

    assert "leave --method out" in told("--resume", str(folder), "--method", "LayerCAM")
    assert "leave --source out" in told("--resume", str(folder), "--source", "elsewhere")
    assert f"--resume '{tmp_path}' holds no options.yaml" in told("--resume", str(tmp_path))
    for source in ("0", "rtsp://camera", "screen 0"):
        options.write_text(yaml.safe_dump({**kept, "source": source}), encoding="utf-8")
        assert f"the source was '{source}', a stream or a screen" in told("--resume", str(folder))
    for content in ("- a", "method: [", "colour: red", "", "table_begins_at: -1", "{table_begins_at: 0, method: 5}"):
        options.write_text(content, encoding="utf-8")
        error = told("--resume", str(folder))
        assert "options.yaml" in error
        assert error.count("\n") == 1
    options.write_text(yaml.safe_dump(kept), encoding="utf-8")
    (folder / "explanations.csv").write_text("image,class\n", encoding="utf-8")
    assert "has other columns than this version writes" in told("--resume", str(folder))


def test_the_options_of_a_run_may_be_given_again_and_a_file_of_them_is_not_trusted(command, photos, weights):
    save(photos / "one.png", picture())
    _, folder = command(photos, "--trust")
    asked = ["--source", str(photos), "--weights", weights, "--imgsz", "96"]
    assert going_on(folder, *asked) == 0
    assert yaml.safe_load((folder / "options.yaml").read_text(encoding="utf-8"))["trust"] is False


def test_a_model_that_was_already_loaded_leaves_no_options_to_go_on_with(weights, photos, tmp_path):
    save(photos / "one.png", picture())
    common = {"source": str(photos), "imgsz": 96, "project": str(tmp_path / "out"), "exist_ok": True}
    run(weights=weights, **common)
    run(weights=confident_detector(), **common)
    with pytest.raises(UsageError, match="of checkpoints in files"):
        run(resume=str(tmp_path / "out/exp"))


def test_the_folder_works_from_any_place_as_a_script_and_as_a_module(weights, photos, tmp_path):
    root = Path(__file__).parents[2]
    save(photos / "one.png", picture())
    common = ["--weights", weights, "--source", str(photos), "--imgsz", "96", "--project", str(tmp_path / "out")]
    subprocess.run([sys.executable, str(root / "explainer/explainer.py"), *common], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "explainer.explainer", *common], cwd=root, check=True)
    assert (tmp_path / "out/exp2/one.png").exists()
    shutil.rmtree(tmp_path / "out")


def test_a_wrong_option_is_told_before_anything_heavy_is_imported():
    from fresh_interpreter import modules_after

    code = "from explainer.explainer import main, parse_opt; main(parse_opt(['--method', 'CamCAM']))"
    assert not {"torch", "cv2", "pandas", "pytorch_grad_cam"} & modules_after(code)


def test_usage_errors_are_value_errors_for_notebooks():
    with pytest.raises(ValueError, match="unknown method"):
        run(method="CamCAM")
    assert issubclass(UsageError, ValueError)


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
sys.argv[1:] = sys.argv[3:]
from explainer.explainer import main, parse_opt
sys.exit(main(parse_opt()))
"""


@pytest.mark.skipif(IN_STOCK or sys.platform == "win32", reason="needs limits of POSIX, and a tree that writes nothing")
@pytest.mark.parametrize("limit", [500, 12000])
def test_a_run_without_room_on_the_disk_is_one_line_and_leaves_nothing_half_written(weights, photos, tmp_path, limit):
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    for name in ("1.png", "2.png"):
        save(photos / name, noise)
    options = ["--weights", weights, "--imgsz", "96", "--conf-thres", "0.05", "--save-npz", "--source", str(photos)]
    command = [sys.executable, "-c", LIMITED, str(tree()), str(limit), *options, "--project", str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"})
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    last = answer.stderr.splitlines()[-1]
    assert last.startswith(f"explainer: error: {tmp_path / 'out' / 'exp'}")
    assert last.endswith("File too large")
    left = [path for path in (tmp_path / "out/exp").rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix == ".part"]
    for path in left:
        if path.suffix == ".png":
            assert read(path).shape == (60, 90, 3)
        elif path.suffix == ".npz":
            assert np.load(path)["heatmap"].shape == (60, 90)
        else:
            text = path.read_text(encoding="utf-8")
            assert not text or text.endswith("\n")
            assert all(None not in row.values() for row in rows_of(tmp_path / "out/exp"))


@pytest.mark.parametrize("flags", [(), ("--nosave",), ("--report", "--suspects", "2")])
def test_a_folder_that_is_deleted_while_the_run_goes_on_is_an_error(command, photos, capsys, monkeypatch, flags):
    for name in ("1.png", "2.png", "3.png"):
        save(photos / name, picture())
    kept = Results.add_rows

    def delete_after_the_first(results, *arguments):
        kept(results, *arguments)
        shutil.rmtree(results.folder, ignore_errors=True)

    monkeypatch.setattr(Results, "add_rows", delete_after_the_first)
    code, folder = command(photos, *flags)
    log = capsys.readouterr().err
    assert code == 1
    assert "Results saved" not in log
    assert log.splitlines()[-1].startswith(f"explainer: error: {folder}")
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take only names that are text")
def test_a_file_that_opencv_would_end_the_process_at_is_skipped(command, photos, capsys):
    save(photos / "one.png", picture())
    save(photos / "two.png", picture()).rename(photos / os.fsdecode(b"caf\xe9.png"))
    if not IN_STOCK:
        write_video(photos / "clip.mp4", frames=2).rename(photos / os.fsdecode(b"caf\xe9.mp4"))
    code, folder = command(photos)
    assert code == 1
    suffix = "png" if IN_STOCK else "mp4"
    assert f"caf\\udce9.{suffix}: its name is no text in UTF-8" in capsys.readouterr().err
    assert len(rows_of(folder)) > 0
    assert (folder / "caf_.png").is_file() != IN_STOCK


@pytest.mark.skipif(IN_STOCK or sys.platform != "linux", reason="needs a reader, and a system, that take any name")
def test_a_file_whose_name_is_no_text_is_explained_like_any_other(command, photos, capsys):
    save(photos / "one.png", picture()).rename(photos / os.fsdecode(b"caf\xe9\x1b.png"))
    code, folder = command(photos, "--per-detection", "--save-npz", "--report")
    assert code == 0
    assert "caf\\udce9\\x1b.png: " in capsys.readouterr().err
    assert {row["image"].rpartition("/")[2] for row in rows_of(folder)} == {"caf\\udce9\x1b.png"}
    assert (folder / "caf_\x1b.png").is_file()
