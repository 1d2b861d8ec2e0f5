"""Findings, not only pictures: how a map lies with respect to its box, and which detections of a run are suspect."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scenes import confident_detector, picture, save_checkpoint

from explainer.command.reporting import Suspects
from explainer.explainer import main, parse_opt
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.files.sources import Frame
from explainer.maps.heatmaps import Letterbox

PLACE = Letterbox((40, 60), (40, 60), (40, 60), 0, 0)
IMAGE = np.full((40, 60, 3), 90, np.uint8)


def answer(*entries):
    return Explanation(IMAGE, np.zeros((40, 60), np.float32), entries, "GradCAM", ("class",))


def suspects_of(count, *answers):
    suspects = Suspects(count)
    for number, each in enumerate(answers):
        suspects.add(Frame(Path(f"{number}.jpg"), IMAGE, ""), each, list(each.rows()))
    return suspects


def dot(x, y):
    """Return a detection on the left third of the image whose map is one dot."""
    cam = np.zeros((40, 60), np.float32)
    cam[y, x] = 1
    found = Detection(np.float32([0, 0, 20, 40]), 0.8, 1, "bee", 8, 0, 5)
    return DetectionExplanation(found, ("model.4",), -1.0, (cam,), PLACE)


def blend(share):
    """Return a detection with a part of its map on a dot inside its box and the rest on one outside."""
    inside, outside = dot(5, 5), dot(40, 30)
    cam = share * inside.cams[0] + (1 - share) * outside.cams[0]
    return DetectionExplanation(inside.detection, ("model.4",), -1.0, (cam,), PLACE)


def test_a_row_says_how_the_map_lies_with_respect_to_the_box():
    inside, outside = dot(5, 5).row(), dot(40, 5).row()
    assert (inside["energy_in_box"], inside["peak_in_box"]) == (1, True)
    assert inside["enrichment"] == pytest.approx(3)
    assert (outside["energy_in_box"], outside["enrichment"], outside["peak_in_box"]) == (0, 0, False)


def test_an_empty_map_says_nothing_about_the_box():
    empty = DetectionExplanation(dot(5, 5).detection, ("model.4",), -1.0, (np.zeros((4, 6), np.float32),), PLACE).row()
    assert [empty[name] for name in ("energy_in_box", "enrichment", "peak_in_box")] == [None] * 3


def test_those_with_the_least_inside_are_kept_the_most_suspect_first():
    left, middle, right = dot(5, 5), blend(0.25), dot(50, 5)
    suspects = suspects_of(2, answer(left, middle), answer(right))
    assert [entry.energy_in_box for entry in suspects.kept] == [0, pytest.approx(0.25)]
    assert suspects.kept[0].line == (
        "1.jpg: bee 0.80, GradCAM: 0% of the evidence in the box, 0.0 times chance, peak outside"
    )
    assert suspects.kept[1].line.startswith(
        "0.jpg: bee 0.80, GradCAM: 25% of the evidence in the box, 0.8 times chance"
    )


def test_boxes_that_were_not_detected_and_empty_maps_are_no_suspects():
    missed = dot(50, 5)
    missed = DetectionExplanation(
        Detection(**(vars(missed.detection) | {"outcome": "miss"})), missed.layers, -1.0, missed.cams, PLACE
    )
    empty = DetectionExplanation(missed.detection, ("model.4",), -1.0, (np.zeros((4, 6), np.float32),), PLACE)
    assert suspects_of(5, answer(missed, empty, dot(50, 6)), answer()).kept[0].energy_in_box == 0
    assert len(suspects_of(5, answer(missed, empty, dot(50, 6)), answer()).kept) == 1


def test_images_of_any_shape_go_on_one_sheet():
    suspects = suspects_of(3, answer(dot(5, 5)))
    tall = Explanation(
        np.zeros((90, 30, 3), np.uint8), np.zeros((90, 30), np.float32), (dot(40, 5),), "GradCAM", ("class",)
    )
    suspects.add(Frame(Path("tall.jpg"), tall.image_rgb, ""), tall, list(tall.rows()))
    assert suspects.sheet.shape[1] > 2 * 330


@pytest.fixture
def command(tmp_path):
    weights = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        Image.fromarray(picture(seed=seed)).save(photos / f"{seed}.png")
    common = ["--weights", weights, "--source", str(photos), "--imgsz", "96", "--conf-thres", "0.05"]

    def call(*arguments):
        return main(parse_opt([*common, "--project", str(tmp_path / "out"), *arguments])), tmp_path / "out" / "exp"

    return call


def test_the_command_lists_and_shows_the_suspects_of_a_run(command, capsys):
    code, folder = command("--suspects", "2")
    assert code == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Suspect: ")]
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    least = sorted(float(row["energy_in_box"]) for row in rows if row["energy_in_box"])[:2]
    assert [f"{share:.0%} of the evidence" in line for share, line in zip(least, lines, strict=True)] == [True] * 2
    assert cv2.imread(str(folder / "suspects.jpg")).std() > 0
    for row in rows:
        inside = float(row["x1"]) <= float(row["peak_x"]) + 0.5 <= float(row["x2"])
        inside &= float(row["y1"]) <= float(row["peak_y"]) + 0.5 <= float(row["y2"])
        assert row["peak_in_box"] == str(inside)


def test_without_the_option_there_is_no_list_and_no_picture(command, capsys):
    _, folder = command()
    assert "Suspect" not in capsys.readouterr().err
    assert not (folder / "suspects.jpg").exists()


def test_a_negative_number_of_suspects_is_a_mistake(command, capsys):
    code, _ = command("--suspects", "-1")
    assert code == 2
    assert "--suspects -1 is not a whole number of at least 0" in capsys.readouterr().err
