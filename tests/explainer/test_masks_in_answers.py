"""What answers do with the masks of detections: draw, measure, write and keep them."""

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scenes import confident, confident_detector, picture, save_checkpoint
from tiny_detectors import tiny_segmenter

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.explainer import run
from explainer.files.results import ANSWER_COLUMNS
from explainer.pictures.drawing import Style

SETTINGS = {"imgsz": 96, "conf_thres": 0.05, "max_det": 3}
BARE = Style(hide_labels=True, line_thickness=1)


@pytest.fixture(scope="module")
def explanation():
    return Explainer(confident(tiny_segmenter()), **SETTINGS)(picture())


def without_masks(explanation):
    """Return an explanation whose detections have no masks."""
    plain = [replace(entry, detection=replace(entry.detection, mask=None)) for entry in explanation.detections]
    return replace(explanation, detections=tuple(plain))


def rows_in(folder):
    """Return the rows of the table in a folder."""
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_outline_in_the_labels_is_hit_by_its_enclosing_box(explanation, tmp_path):
    found = explanation.detections[0].detection
    (left, top, right, bottom), (height, width) = found.xyxy.tolist(), picture().shape[:2]
    # A rhombus that touches each edge of the box.
    corners = [left, (top + bottom) / 2, (left + right) / 2, top, right, (top + bottom) / 2, (left + right) / 2, bottom]
    shares = [corner / (height if number % 2 else width) for number, corner in enumerate(corners)]
    source, labels = tmp_path / "one.png", tmp_path / "one.txt"
    cv2.imwrite(str(source), picture()[..., ::-1])
    labels.write_text(" ".join(map(str, [found.class_index, *shares])), encoding="utf-8")
    weights = save_checkpoint(tmp_path / "masks.pt", confident(tiny_segmenter()))
    run(weights=weights, source=str(source), labels=str(labels), project=str(tmp_path), name="out", **SETTINGS)
    first, *others = rows_in(tmp_path / "out")
    assert (first["outcome"], first["name"]) == ("hit", found.name)
    assert float(first["energy_in_mask"]) == pytest.approx(explanation.detections[0].energy_in_mask, abs=1e-3)
    assert "miss" not in [row["outcome"] for row in others]


def test_the_command_explains_masks_or_says_that_there_are_none(tmp_path):
    source = tmp_path / "one.png"
    cv2.imwrite(str(source), picture()[..., ::-1])
    options = SETTINGS | {"source": str(source), "project": str(tmp_path), "backprop_array": "mask"}
    run(weights=save_checkpoint(tmp_path / "masks.pt", confident(tiny_segmenter())), name="masks", **options)
    assert {row["item"] for row in rows_in(tmp_path / "masks")} == {"mask"}
    with pytest.raises(UsageError, match="predicts no masks"):
        run(weights=save_checkpoint(tmp_path / "boxes.pt", confident_detector()), name="boxes", **options)


def test_the_energy_in_the_mask_is_the_share_of_the_heatmap_there(explanation):
    for entry in explanation.detections:
        heatmap = entry.heatmap
        assert entry.energy_in_mask == pytest.approx(heatmap[entry.mask].sum() / heatmap.sum())
    entry = explanation.detections[0]
    whole = replace(entry.detection, mask=np.ones_like(entry.mask))
    assert replace(entry, detection=whole).energy_in_mask == pytest.approx(1)


def test_there_is_no_energy_in_a_mask_that_is_not_there(explanation):
    assert [entry.energy_in_mask for entry in without_masks(explanation).detections] == [None] * 3


def test_masks_are_drawn_in_overlays_and_tiles(explanation):
    plain = without_masks(explanation)
    for index, entry in enumerate(explanation.detections):
        changed = (explanation.overlay_of(index, BARE) != plain.overlay_of(index, BARE)).any(axis=2)
        near_mask = cv2.dilate(np.uint8(entry.mask), np.ones((5, 5), np.uint8)) > 0
        assert changed.any() == (entry.mask.any() and not entry.mask.all())
        assert not (changed & (entry.mask | ~near_mask)).any()
    assert (explanation.overlay(BARE) != plain.overlay(BARE)).any()
    assert explanation.contact_sheet(BARE).shape == plain.contact_sheet(BARE).shape
    assert (explanation.contact_sheet(BARE) != plain.contact_sheet(BARE)).any()


def test_masks_are_kept_beside_the_raw_maps(explanation, tmp_path):
    explanation.save(tmp_path, save_npz=True)
    kept = np.load(tmp_path / "image/maps.npz")
    for index, entry in enumerate(explanation.detections):
        assert kept[f"{index}:mask"].dtype == bool
        assert np.array_equal(kept[f"{index}:mask"], entry.mask)
    without_masks(explanation).save(tmp_path / "plain", save_npz=True)
    assert not [name for name in np.load(tmp_path / "plain/image/maps.npz") if name.endswith("mask")]


def test_the_table_has_the_energy_in_the_mask_after_that_in_the_box(tmp_path):
    place = ANSWER_COLUMNS.index("energy_in_box")
    assert ANSWER_COLUMNS[place + 1] == "energy_in_mask"
    source = tmp_path / "one.png"
    cv2.imwrite(str(source), picture()[..., ::-1])
    for name, model in {"masks": confident(tiny_segmenter()), "boxes": confident_detector()}.items():
        weights = save_checkpoint(tmp_path / f"{name}.pt", model)
        run(weights=weights, source=str(source), project=str(tmp_path), name=name, report=True, **SETTINGS)
    energies = [row["energy_in_mask"] for row in rows_in(tmp_path / "masks")]
    assert all(0 <= float(energy) <= 1 for energy in energies if energy)
    assert any(energies)
    assert [row["energy_in_mask"] for row in rows_in(tmp_path / "boxes")] == [""] * 3
    pages = {name: (tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("masks", "boxes")}
    assert ("energy in mask" in pages["masks"], "energy in mask" in pages["boxes"]) == (True, False)
