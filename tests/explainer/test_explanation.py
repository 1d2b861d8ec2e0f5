"""What an answer does: it is saved, shown in a notebook, and holds one map at a time."""

import csv
import tracemalloc

import cv2
import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.explain import Explainer
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.maps.heatmaps import Letterbox
from explainer.methods.catalogue import FUSIONS, METHODS
from explainer.pictures.drawing import Style
from explainer.settings import Settings

SETTINGS = {"imgsz": 96, "conf_thres": 0.05}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


@pytest.fixture(scope="module")
def explanation(model):
    return Explainer(model, backward_per_class=True, max_det=4, **SETTINGS)(picture())


def test_an_answer_writes_what_the_command_writes(explanation, tmp_path):
    path = explanation.save(tmp_path / "new" / "out", name="one.png", per_detection=True, save_npz=True)
    assert path == tmp_path / "new" / "out" / "one.png"
    assert (cv2.imread(str(path))[..., ::-1] == explanation.overlay()).all()
    with (path.parent / "explanations.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [entry.detection.name for entry in explanation.detections]
    assert {row["image"] for row in rows} == {"one.png"}
    written = {path.name for path in (path.parent / "one").iterdir()}
    assert written >= {"sheet.jpg", "maps.npz", *(f"{name}.jpg" for name in explanation.per_class)}
    assert len(written) == 2 + len(explanation.per_class) + len(explanation.detections)


def test_an_answer_is_saved_in_the_style_that_is_asked_for(explanation, tmp_path):
    style = Style(colormap="viridis", hide_labels=True)
    path = explanation.save(tmp_path, name="one.png", style=style)
    assert (cv2.imread(str(path))[..., ::-1] == explanation.overlay(style)).all()
    assert not list(tmp_path.glob("one/*_*.jpg"))


def test_a_class_that_is_called_like_the_sheet_loses_no_picture(tmp_path):
    model = confident_detector()
    model.names = dict.fromkeys(range(3), "sheet")
    Explainer(model, backward_per_class=True, **SETTINGS)(picture()).save(tmp_path, per_detection=True)
    assert {"sheet.jpg", "sheet_2.jpg"} <= {path.name for path in (tmp_path / "image").iterdir()}


def test_each_detection_has_its_own_picture_and_all_of_them_show_as_a_sheet(explanation):
    overlays = explanation.per_detection
    assert len(overlays) == len(explanation.detections) == 4
    assert overlays[0].shape == explanation.image_rgb.shape
    assert (overlays[0] != overlays[3]).any()
    assert (overlays[-1] == overlays[3]).all()
    shown = cv2.imdecode(np.frombuffer(overlays._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown == explanation.contact_sheet()).all()


def test_an_image_without_detections_has_an_empty_table_and_still_a_picture(model, tmp_path):
    nothing = Explainer(model, conf_thres=0.999, no_near_miss=True)(picture())
    assert nothing.pandas().empty
    assert len(nothing.per_detection) == 0
    assert nothing.contact_sheet().ndim == 3
    nothing.save(tmp_path, per_detection=True, save_npz=True)
    assert "no detection above confidence" in (tmp_path / "explanations.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", METHODS)
def test_the_arrays_of_every_method_hold_its_maps(method, model, tmp_path):
    masks = {} if METHODS[method].reads_layers else {"masks": 20}
    own = METHODS[method].reads_layers and "layer" not in METHODS[method].refuses
    settings = {"max_det": 2, **masks, **({"layer": (2, 4)} if own else {}), **SETTINGS}
    explained = Explainer(model, method=method, **settings)(picture())
    explained.save(tmp_path, save_npz=True)
    kept = np.load(tmp_path / "image/maps.npz")
    for index, entry in enumerate(explained.detections):
        names = [name for name in kept if name.startswith(f"{index}:") and not name.endswith(":scale")]
        assert {layer for name in names for layer in name.split(":")[1].split("+")} == set(entry.layers)
        for name, cam in zip(names, entry.cams, strict=True):
            found = kept[name].astype(np.float32) * kept[f"{name}:scale"]
            np.testing.assert_allclose(found, cam, rtol=1e-2, atol=1e-3 * np.abs(cam).max())


@pytest.mark.parametrize("fuse", FUSIONS)
def test_the_arrays_of_layers_that_were_merged_are_named_after_all_of_them(fuse, model, tmp_path):
    Explainer(model, layer=(2, 4), fuse=fuse, max_det=1, **SETTINGS)(picture()).save(tmp_path, save_npz=True)
    names = {name for name in np.load(tmp_path / "image/maps.npz") if name.startswith("0:")}
    layers = ["model.2", "model.4"] if fuse == "mean" else ["model.2+model.4"]
    assert names == {f"0:{layer}{what}" for layer in layers for what in ("", ":scale")}


def test_a_near_miss_has_a_row_a_picture_and_arrays_like_a_detection(model, tmp_path):
    near = Explainer(model, conf_thres=0.999, signed=True, scales=True)(picture())
    near.save(tmp_path, per_detection=True, save_npz=True)
    (row,) = near.pandas().to_dict("records")
    assert row["outcome"] == "below threshold"
    own = f"0_{row['name']}_{row['confidence']:.2f}.jpg"
    assert {path.name for path in (tmp_path / "image").iterdir()} == {own, "sheet.jpg", "scales.jpg", "maps.npz"}
    assert np.load(tmp_path / "image/maps.npz")["names"].tolist() == [row["name"]]
    assert [found.was_found for found in near.found[""]] == [False]


def many_detections(count: int, size: tuple[int, int]) -> Explanation:
    """Return an explanation of so many detections in an image of this size (height, width)."""
    height, width = size
    generator = np.random.default_rng(0)
    letterbox = Letterbox(size, (96, 128), (96, 128), 0, 0)
    entries = []
    for index in range(count):
        x, y = generator.random(2) * (width - 100, height - 100)
        found = Detection(np.float32([x, y, x + 90, y + 90]), 0.5, 0, "ant", 8, 0, index)
        cams = (generator.random((12, 16), dtype=np.float32),)
        entries.append(DetectionExplanation(found, ("model.4",), 0.0, cams, letterbox, renormalised=index % 2 == 0))
    image = np.zeros((*size, 3), np.uint8)
    return Explanation(image, np.zeros(size, np.float32), tuple(entries), "GradCAM", ("class",))


def peak_memory(action) -> int:
    """Return how many bytes are held at most while `action()` runs."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_saving_many_detections_of_a_large_image_holds_one_map_at_a_time(tmp_path):
    size = (1500, 2000)
    heatmap_bytes = 4 * size[0] * size[1]

    def save(count):
        many_detections(count, size).save(tmp_path / str(count), per_detection=True, save_npz=True)

    few, many = (peak_memory(lambda count=count: save(count)) for count in (2, 14))
    # Twelve more maps would be twelve times that much; the small pictures of a sheet are a fraction of one.
    assert many - few < 2 * heatmap_bytes
    assert len(list((tmp_path / "14" / "image").glob("*_ant_*.jpg"))) == 14


def test_renormalising_many_detections_holds_one_map_at_a_time():
    from explainer.combining import renormalised

    size = (1500, 2000)

    def together(count):
        renormalised(list(many_detections(count, size).detections), size, Settings(renormalize=True))

    few, many = (peak_memory(lambda count=count: together(count)) for count in (2, 14))
    assert many - few < 4 * size[0] * size[1]
