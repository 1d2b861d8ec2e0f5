"""The evaluation from end to end on a tiny checkpoint: what it writes, how it goes on, and what it says about bad input."""

import csv
import inspect
import os
import shutil
import subprocess
import sys
import time
from operator import itemgetter
from pathlib import Path

import cv2
import pytest
from fresh_interpreter import modules_after, tree
from PIL import Image
from scenes import confident_detector, picture, save_checkpoint
from tiny_media import claiming_png

from explainer.errors import UsageError
from explainer.evaluate import main, parse_opt, run
from explainer.evaluation import results
from explainer.evaluation.options import Evaluation
from explainer.evaluation.summary import FIGURES
from explainer.maps.trivial import TRIVIAL
from explainer.methods.catalogue import METHODS

QUICK = ["--imgsz", "96", "--conf-thres", "0.05", "--steps", "4", "--max-det-per-image", "3"]
BASELINES = {("RandomCAM", "auto"), *((name, "") for name in TRIVIAL)}
NAMES = BASELINES | {("GradCAM", "auto"), ("LayerCAM", "auto")}
COST = {"milliseconds", "memory"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(picture(50, 60 + 10 * seed, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def command(weights, photos, tmp_path):
    """Run the command and return (exit code, folder of results)."""

    def call(*arguments):
        common = ["--weights", weights, "--data", str(photos), "--project", str(tmp_path / "out")]
        return main(parse_opt([*common, *QUICK, *arguments])), tmp_path / "out" / "exp"

    return call


@pytest.fixture(scope="module")
def finished(weights, photos, tmp_path_factory):
    """Return the folder of an evaluation with the default methods."""
    project = tmp_path_factory.mktemp("out")
    assert main(parse_opt(["--weights", weights, "--data", str(photos), "--project", str(project), *QUICK])) == 0
    return project / "exp"


def rows_of(folder, name="detections.csv"):
    with (folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_cost(rows):
    return [{name: value for name, value in row.items() if name not in COST} for row in rows]


def test_each_detection_has_a_row_for_each_method_and_each_baseline(finished):
    rows = rows_of(finished)
    assert {(row["method"], row["layer"]) for row in rows} == NAMES
    detections = {(row["image"], row["row"]) for row in rows}
    assert len(rows) == len(NAMES) * len(detections) == 10 * 3 * 3
    for row in rows:
        assert float(row["overall"]) == pytest.approx(float(row["insertion"]) - float(row["deletion"]), abs=1e-4)
        assert len(row["deletion_curve"].split()) == 5
        assert 0 <= float(row["energy_in_box"]) <= 1
        assert row["passes_per_image"] == ("0" if row["method"] in TRIVIAL else "1")


def test_the_table_has_a_line_for_each_method_and_split_with_intervals(finished):
    whole = [row for row in rows_of(finished, "table.csv") if row["split"] == "all"]
    assert {(row["method"], row["layer"]) for row in whole} == NAMES
    for row in whole:
        assert row["detections"] == "9"
        assert float(row["overall_low"]) <= float(row["overall"]) <= float(row["overall_high"])
    overall = [float(row["overall"]) for row in whole]
    assert overall == sorted(overall, reverse=True)


def test_the_table_to_read_holds_the_figures_and_what_they_mean(finished):
    text = (finished / "table.md").read_text(encoding="utf-8")
    assert "tiny.pt on photos" in text
    assert "| overall ↑ | deletion ↓ | insertion ↑ |" in text
    assert "*GaussianBox*" in text
    assert f"- EBPG ↑: {FIGURES['energy_in_box'].about}" in text


def test_without_labels_there_are_no_figures_about_labels(finished):
    assert "EBPG label" not in (finished / "table.md").read_text(encoding="utf-8")
    assert {row["energy_in_label"] for row in rows_of(finished)} == {""}


def test_plots_and_examples_are_pictures(finished):
    names = ["curves.png", "figures.png", "cost.png"]
    names += [f"examples/{name}.jpg" for name in ("RandomCAM_auto", *TRIVIAL, "GradCAM_auto", "LayerCAM_auto")]
    for name in names:
        assert cv2.imread(str(finished / name)).std() > 0, name


def test_the_same_seed_gives_the_same_figures_and_another_one_other_detections(command, finished):
    expected = without_cost(rows_of(finished))
    _, folder = command("--nosave")
    assert without_cost(rows_of(folder)) == expected
    assert {path.name for path in folder.iterdir()} == {"detections.csv", "options.yaml", "table.csv", "table.md"}
    command("--nosave", "--seed", "1")
    others = rows_of(folder.parent / "exp2")
    assert {row["row"] for row in others} != {row["row"] for row in expected}


def test_half_precision_changes_the_figures_of_masked_passes_a_little_and_no_map(command, finished):
    _, folder = command("--nosave", "--half")
    pairs = list(zip(rows_of(finished), rows_of(folder), strict=True))
    for name in ("insertion", "deletion"):
        assert any(one[name] != other[name] for one, other in pairs)
        differences = [float(one[name]) - float(other[name]) for one, other in pairs]
        assert abs(sum(differences)) / len(pairs) < 0.01
    assert [one["energy_in_box"] for one, _ in pairs] == [other["energy_in_box"] for _, other in pairs]
    assert "in half precision" in (folder / "table.md").read_text(encoding="utf-8")


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_rows(command, finished, monkeypatch):
    _, folder = command("--nosave")
    whole = rows_of(folder)
    table = folder / "detections.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:20])[:-30], encoding="utf-8")
    (folder / "table.md").unlink()
    assert main(parse_opt(["--resume", str(folder)])) == 0
    # The rows that were finished are the very same, cost and all: they were not made again.
    assert rows_of(folder)[:18] == whole[:18]
    assert without_cost(rows_of(folder)) == without_cost(whole)
    assert (folder / "table.md").exists()


def test_a_command_that_is_killed_goes_on_with_nothing_lost_and_nothing_twice(weights, photos, finished, tmp_path):
    script = [sys.executable, str(tree() / "explainer/evaluate.py")]
    common = ["--weights", weights, "--data", str(photos), "--project", str(tmp_path), *QUICK]
    table, end = tmp_path / "exp/detections.csv", time.monotonic() + 120
    with subprocess.Popen([*script, *common], stderr=subprocess.DEVNULL) as process:
        while not (table.exists() and b"1.png" in table.read_bytes()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        process.kill()
    assert process.returncode != 0
    subprocess.run([*script, "--resume", str(table.parent)], check=True)
    key = itemgetter("image", "method", "layer", "row")
    assert sorted(without_cost(rows_of(table.parent)), key=key) == sorted(without_cost(rows_of(finished)), key=key)


def test_rows_that_do_not_reach_the_disk_are_an_error_and_going_on_makes_them_again(
    command, finished, monkeypatch, capsys
):
    write = results.EvaluationResults.add

    def loses_the_end(self, image, rows):
        write(self, image, rows)
        if image.name == "1.png":
            os.truncate(self.folder / "detections.csv", (self.folder / "detections.csv").stat().st_size - 5)

    with monkeypatch.context() as patched:
        patched.setattr(results.EvaluationResults, "add", loses_the_end)
        code, folder = command("--nosave")
    assert code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"evaluate: error: {folder / 'detections.csv'} holds ")
    assert f"--resume {folder}" in error
    assert main(parse_opt(["--resume", str(folder)])) == 0
    key = itemgetter("image", "method", "layer", "row")
    assert sorted(without_cost(rows_of(folder)), key=key) == sorted(without_cost(rows_of(finished)), key=key)


@pytest.mark.parametrize("content", ["- a", "steps: [", "steps: many", "colour: red", ""])
def test_a_damaged_options_yaml_is_one_line_that_names_it(tmp_path, content, capsys):
    (tmp_path / "options.yaml").write_text(content, encoding="utf-8")
    assert main(parse_opt(["--resume", str(tmp_path)])) == 2
    captured = capsys.readouterr().err
    assert "options.yaml" in captured
    assert captured.count("\n") == 1


def test_several_layers_and_fusions_are_evaluated_each_by_itself(command):
    _, folder = command(
        "--method",
        "layercam",
        "FullGrad",
        "--layer",
        "4",
        "4,7",
        "--fuse",
        "mean",
        "product",
        "--nosave",
        "--fraction",
        "0.4",
    )
    found = {(row["method"], row["layer"]): row["read"] for row in rows_of(folder)}
    assert set(found) == {
        *BASELINES,
        ("FullGrad", "auto"),
        *(("LayerCAM", f"{layer} {fuse}") for layer in ("4", "4,7") for fuse in ("mean", "product")),
    }
    assert found["LayerCAM", "4,7 product"] == "model.4 model.7"


def test_the_costly_figures_come_when_asked_for(command):
    _, folder = command(
        "--nosave",
        "--road",
        "--sanity",
        "--robustness",
        "--fraction",
        "0.4",
        "--method",
        "EigenCAM",
        "--max-det-per-image",
        "2",
    )
    rows = rows_of(folder)
    assert len({row["image"] for row in rows}) == 1
    for row in rows:
        assert abs(float(row["road"])) <= 1
        assert row["max_sensitivity"] == "" or row["method"] not in TRIVIAL
    for row in (row for row in rows if row["max_sensitivity"]):
        assert 0 <= float(row["mean_sensitivity"]) <= float(row["max_sensitivity"])
        assert abs(float(row["repeat_flip"])) <= 1
        assert abs(float(row["repeat_shift"])) <= 1
    # What reads activations alone does not notice another head, nor another class.
    eigen = [row for row in rows if row["method"] == "EigenCAM"]
    assert all(row["max_sensitivity"] for row in eigen)
    assert {row["spearman_head"] for row in eigen} == {row["ssim_class"] for row in eigen} == {"1"}
    assert all(abs(float(row["spearman_all"])) < 0.99 for row in eigen)


def test_labels_beside_the_images_of_a_data_set_are_used(command, photos, tmp_path, finished):
    boxes = {(row["image"][-5], row["class"]): row for row in rows_of(finished)}
    images, labels = tmp_path / "set/images/val", tmp_path / "set/labels/val"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for (number, index), row in boxes.items():
        Image.open(photos / f"{number}.png").save(images / f"{number}.png")
        width, height = Image.open(photos / f"{number}.png").size
        x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
        shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        with (labels / f"{number}.txt").open("a", encoding="utf-8") as file:
            file.write(" ".join(map(str, [index, *shares])) + "\n")
    yaml_path = tmp_path / "tiny.yaml"
    yaml_path.write_text("path: set\ntrain: images/val\nval: images/val\nnames: [ant, bee, cat]\n", encoding="utf-8")
    code, folder = command("--data", str(yaml_path), "--nosave")
    assert code == 0
    hits = [row for row in rows_of(folder) if row["energy_in_label"]]
    assert hits
    exact = [row for row in hits if (row["image"][-5], row["class"]) in boxes and row["method"] == "GaussianBox"]
    assert max(float(row["energy_in_label"]) for row in exact) == pytest.approx(0.91, abs=0.09)
    assert "EBPG label" in (folder / "table.md").read_text(encoding="utf-8")


def test_an_unreadable_image_is_reported_and_skipped(command, photos, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.open(photos / "0.png").save(folder / "a.png")
    (folder / "b.png").write_text("no picture", encoding="utf-8")
    code, results = command("--data", str(folder), "--nosave")
    assert code == 1
    assert f"skipped {folder / 'b.png'}" in capsys.readouterr().err
    assert {row["image"] for row in rows_of(results)} == {str(folder / "a.png")}


def test_an_image_that_claims_too_many_pixels_is_skipped_with_its_size(command, photos, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.open(photos / "0.png").save(folder / "a.png")
    claiming_png(folder / "b.png", 30000, 30000)
    code, results = command("--data", str(folder), "--nosave")
    assert code == 1
    assert "b.png: it says that it has 900 megapixels" in capsys.readouterr().err
    assert {row["image"] for row in rows_of(results)} == {str(folder / "a.png")}


def test_the_closing_line_says_how_much_time_was_spent_inside_the_model(command, capsys):
    command("--nosave")
    closing = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("Speed"))
    share = int(closing.split(", ")[1].split(" %")[0])
    assert 0 < share < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "CamCAM"], "unknown method 'CamCAM'; known: GradCAM"),
        (["--layer", "99"], "unknown layer '99'; known: auto, head, neck"),
        (["--layer", "auto,4"], "--layer auto stands alone"),
        (["--fuse", "sum"], "unknown fusion 'sum'"),
        (["--deletion", "noise"], "unknown --deletion 'noise'; known: zero, grey, blur"),
        (["--steps", "1"], "--steps 1 is not a whole number of at least 2"),
        (["--fraction", "2"], "--fraction 2.0 is outside 0..1"),
        (["--data", "nowhere.yaml"], "--data 'nowhere.yaml' does not exist"),
        (["--data", "nowhere"], "--data 'nowhere' does not exist"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--weights", "model.onnx"], "model.onnx"),
        (["--resume", "nowhere"], "--resume 'nowhere' holds no options.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(command, capsys, arguments, message):
    code, folder = command(*arguments)
    error = capsys.readouterr().err.splitlines()
    assert code == 2
    assert error[-1].startswith("evaluate: error: ")
    assert message in error[-1]
    assert not folder.exists()


def test_nothing_detected_is_said(command, capsys):
    code, _ = command("--conf-thres", "0.999")
    assert code == 2
    assert "nothing was detected above confidence 0.999" in capsys.readouterr().err


def test_where_no_image_can_be_read_that_is_said_and_not_that_nothing_was_detected(command, capsys, tmp_path):
    (tmp_path / "none.jpg").write_bytes(b"no image")
    code, _ = command("--data", str(tmp_path / "none.jpg"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 1
    assert last.startswith("evaluate: error: none of the 1 images of --data '")
    assert last.endswith("none.jpg' could be read")


def test_to_go_on_with_other_options_is_refused(finished, capsys):
    assert main(parse_opt(["--resume", str(finished), "--steps", "30"])) == 2
    assert "leave --steps out" in capsys.readouterr().err


def test_a_file_of_options_is_not_trusted_with_the_checkpoint_that_it_names(finished):
    folder = Path(shutil.copytree(finished, finished.parent / "trusting"))
    text = (folder / "options.yaml").read_text(encoding="utf-8")
    (folder / "options.yaml").write_text(text.replace("trust: false", "trust: true"), encoding="utf-8")
    assert results.resumed(Evaluation(resume=str(folder)))[0].trust is False
    assert results.resumed(Evaluation(resume=str(folder), trust=True))[0].trust is True


def test_another_run_in_the_same_folder_starts_afresh(command):
    _, folder = command("--nosave", "--method", "GradCAM")
    command("--nosave", "--exist-ok", "--method", "LayerCAM", "--deletion", "zero")
    assert {row["method"] for row in rows_of(folder)} == {"RandomCAM", *TRIVIAL, "LayerCAM"}


def test_command_and_run_have_the_same_options_and_defaults():
    known = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    assert vars(parse_opt([])) == known


def test_run_takes_the_same_options_and_returns_the_folder(weights, photos, tmp_path):
    common = {"imgsz": 96, "conf_thres": 0.05, "steps": 2, "max_det_per_image": 1, "nosave": True}
    folder = run(weights=weights, data=photos, project=tmp_path / "out", method="GradCAM", **common)
    assert folder == tmp_path / "out/exp"
    assert len(rows_of(folder)) == 3 * (len(BASELINES) + 1)
    with pytest.raises(UsageError, match="unknown option 'methods'"):
        run(methods="GradCAM")


def test_a_model_in_place_of_a_path_is_a_mistake():
    with pytest.raises(UsageError, match="--weights takes paths"):
        run(weights=confident_detector())


def test_a_wrong_option_is_told_before_anything_heavy_is_imported():
    code = "from explainer.evaluate import main, parse_opt; main(parse_opt(['--method', 'CamCAM']))"
    assert not {"torch", "cv2", "pandas", "matplotlib", "pytorch_grad_cam"} & modules_after(code)


def test_the_random_baseline_comes_once_however_often_it_is_named():
    names = [name for name, _ in Evaluation(method=("RandomCAM", "GradCAM"), layer=("auto", -2)).settings()]
    assert names == ["auto", "-2", "auto", "-2"]


def test_all_stands_for_every_method():
    assert Evaluation(method="all").method == tuple(METHODS)


def test_every_method_can_be_evaluated_with_every_item():
    assert len(list(Evaluation(method=tuple(METHODS), backprop_array=("confidence",)).settings())) == len(METHODS)


def test_near_misses_are_not_evaluated():
    assert all(settings.no_near_miss for _, settings in Evaluation(method="all").settings())


def test_no_two_figures_have_the_same_title():
    assert len({figure.title for figure in FIGURES.values()}) == len(FIGURES)


@pytest.mark.parametrize("flags", [(), ("--nosave",), ("--report",)])
def test_a_folder_that_is_deleted_while_the_run_goes_on_is_an_error(command, capsys, monkeypatch, flags):
    kept = results.EvaluationResults.add

    def delete_after_the_first(whole, *arguments):
        kept(whole, *arguments)
        shutil.rmtree(whole.folder, ignore_errors=True)

    monkeypatch.setattr(results.EvaluationResults, "add", delete_after_the_first)
    code, folder = command("--method", "GradCAM", *flags)
    log = capsys.readouterr().err
    assert code == 1
    assert "Results saved" not in log
    assert log.splitlines()[-1] == (
        f"evaluate: error: {folder / 'detections.csv'}: was deleted or moved while results were written to it"
    )
    assert not folder.exists()
