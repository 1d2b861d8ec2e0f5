"""Colours, sheets, maps inside boxes, and what an answer does in a notebook."""

import csv
import tracemalloc

import cv2
import numpy as np
import pytest
from scenes import confident_detector, picture

from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.maps.heatmaps import Letterbox, only_in_box
from explainer.pictures.drawing import SELECTION, Style, canonical_colormap, colour_table, paint, text_width, wrapped
from explainer.pictures.sheets import Miniature, Tile, best_columns, colour_bar, sheet, tile_size
from explainer.settings import Settings

SETTINGS = {"imgsz": 96, "conf_thres": 0.05}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


def lightness(rgb):
    """Return the perceived lightness L*, 0..100, of colours (N, 3)."""
    return cv2.cvtColor(np.float32(rgb)[None] / 255, cv2.COLOR_RGB2Lab)[0, :, 0]


# Colours.


@pytest.mark.parametrize("name", ["JET", "COLORMAP_JET", " jet ", "Parula", "rdbu_R", "Blues", "deepgreen"])
def test_a_colour_map_of_either_library_is_known_by_any_spelling(name):
    table = colour_table(canonical_colormap(name))
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert len(np.unique(table, axis=0)) > 20


def test_a_library_s_own_colours_come_out_as_rgb():
    import matplotlib

    assert np.abs(colour_table("plasma")[-1] - np.array(matplotlib.colormaps["plasma"](1.0, bytes=True)[:3])).max() <= 1
    assert colour_table("Reds")[-1].tolist() == list(matplotlib.colormaps["Reds"](1.0, bytes=True)[:3])


def test_every_name_of_the_selection_is_drawn_without_matplotlib():
    from test_explainer_imports import modules_after

    code = f"from explainer.pictures.drawing import *; [colour_table(canonical_colormap(name)) for name in {SELECTION}]"
    assert "matplotlib" not in modules_after(code)


def test_the_default_rises_evenly_in_lightness():
    steps = np.diff(lightness(colour_table(Style.colormap))[::16])
    assert steps.min() > 0
    assert steps.max() < 2.5 * steps.min()


def test_an_unknown_colour_map_is_answered_with_known_ones_and_how_to_see_the_rest():
    with pytest.raises(UsageError, match=r"unknown colour map 'rainbo'; known: plasma, .*matplotlib.colormaps"):
        Options(colormap="rainbo")


@pytest.mark.parametrize("alpha", [-0.1, 1.5, "much"])
def test_an_opacity_outside_0_to_1_is_a_mistake(alpha):
    with pytest.raises(UsageError, match=f"--alpha {alpha} is outside 0..1"):
        Options(alpha=alpha)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (37, 53), (700, 300)])
def test_a_pixel_is_the_mix_of_photograph_and_colour_by_the_opacity_of_its_heat(size):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    heatmap = generator.random(size, dtype=np.float32)
    colours = colour_table("viridis")[np.uint8(heatmap * 255 + 0.5)]
    opacity = (0.6 * heatmap**2 * (3 - 2 * heatmap))[..., None]
    expected = image + (colours - image.astype(np.float64)) * opacity
    assert np.abs(paint(image, heatmap, Style(colormap="viridis", alpha=0.6)) - expected).max() < 3


def test_full_opacity_hides_the_photograph_at_the_peak_and_none_of_it_shows_no_colour():
    image, hot = picture(), np.ones(picture().shape[:2], np.float32)
    assert (paint(image, hot, Style(alpha=1)) == colour_table("plasma")[-1]).all()
    assert (paint(image, hot, Style(alpha=0)) == image).all()


def test_what_speaks_against_is_blue_what_speaks_for_is_red_and_nothing_is_transparent():
    image = np.full((1, 3, 3), 100, np.uint8)
    against, nothing, towards = paint(image, np.float32([[-1, 0, 1]]), Style(), has_sign=True)[0].astype(int)
    assert against[2] > against[0] + 80
    assert towards[0] > towards[2] + 80
    assert nothing.tolist() == [100, 100, 100]


# Sheets.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 302])
@pytest.mark.parametrize("size", [(60, 1200), (1200, 60), (480, 640), (1, 1), (2160, 3840)])
def test_a_sheet_holds_every_tile_whole_whatever_its_shape(size, count):
    height, width = tile_size(size, count)
    tiles = [Tile(f"tile {number}", np.full((height, width, 3), 77, np.uint8)) for number in range(count)]
    page = sheet(tiles, bar=colour_bar(Style(), has_sign=False))
    assert (page == 77).all(axis=2).sum() >= count * height * width
    assert page.size < 80_000_000


def test_tiles_are_as_large_as_their_number_allows():
    few, many = tile_size((1080, 1920), 4), tile_size((1080, 1920), 1000)
    assert few[0] * few[1] == pytest.approx(100_000, rel=0.01)
    assert many[0] * many[1] * 1000 < 16_200_000
    assert few[1] / few[0] == pytest.approx(1920 / 1080, rel=0.01)


def test_high_tiles_stand_beside_each_other_and_wide_ones_below():
    assert best_columns(5, 200, 1400) == 5
    assert best_columns(5, 1400, 90) == 1


def test_titles_of_any_length_fit_into_two_lines():
    title = "a very long name of a class that fits into no tile at all " * 3 + "0.87"
    for width in (200, 40):
        lines = wrapped(title, width, 14)
        assert len(lines) == 2
        assert all(text_width(line, 14) <= width for line in lines)
    assert lines[1].endswith("7")
    assert wrapped("größer 0.50, stride 8", 300, 14) == ["größer 0.50, stride 8"]


def test_a_tile_with_an_empty_map_says_why():
    image = np.full((200, 300, 3), 200, np.uint8)
    small = Miniature(image, 1, Style())
    hot = np.zeros((200, 300), np.float32)
    silent = small.with_map("title", hot, [], "it has no gradient there")
    hot[100, 100] = 1
    assert silent.remark == "it has no gradient there"
    assert small.with_map("title", hot, [], "it has no gradient there").remark == ""
    page, without = (sheet([Tile("title", silent.picture_rgb, remark)]) for remark in (silent.remark, ""))
    changed = (page != without).any(axis=2)
    assert changed.any()
    assert not changed[:27].any()


def test_a_crowd_of_boxes_has_no_labels(model):
    explanation = Explainer(model, **SETTINGS)(picture())
    found = [entry.detection for entry in explanation.detections][:1]
    small = Miniature(picture(), 1, Style())
    few, many = small.with_boxes("", found).picture_rgb, small.with_boxes("", found * 20).picture_rgb
    assert (few != many).any()


# Maps inside boxes.


def test_a_map_is_scaled_inside_its_box_and_blank_outside():
    heatmap = np.float32([[0.0, 1.0, 0.2], [0.0, 0.6, 0.4]])
    assert only_in_box(heatmap, np.float32([1, 0, 3, 2])) == pytest.approx(
        np.float32([[0, 1, 0], [0, 0.5, 0.25]]), abs=1e-6
    )
    assert not only_in_box(heatmap, np.float32([0, 0, 1, 2])).any()
    assert not only_in_box(heatmap, np.float32([3, 2, 3, 2])).any()


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM"])
def test_renormalised_maps_are_those_of_the_boxes_and_together_the_largest_of_them(model, method):
    plain = Explainer(model, method=method, **SETTINGS)(picture())
    inside = Explainer(model, method=method, renormalize=True, backward_per_class=True, **SETTINGS)(picture())
    expected = [only_in_box(entry.heatmap, entry.detection.xyxy) for entry in plain.detections]
    assert len(expected) > 2
    for entry, heatmap in zip(inside.detections, expected, strict=True):
        assert (entry.heatmap == heatmap).all()
    assert (inside.heatmap == np.max(expected, axis=0)).all()
    for name, heatmap in inside.per_class.items():
        own = [entry.heatmap for entry in inside.detections if entry.detection.name == name]
        assert (heatmap == np.max(own, axis=0)).all()


def test_the_table_measures_the_map_before_it_is_renormalised(model):
    plain, inside = (Explainer(model, renormalize=value, **SETTINGS)(picture()) for value in (False, True))
    assert [entry.row() for entry in plain.detections] == [entry.row() | {"note": ""} for entry in inside.detections]


def test_a_map_that_is_the_same_all_over_its_box_says_so(model):
    explanation = Explainer(model, method="EigenCAM", renormalize=True, **SETTINGS)(np.full((1, 1, 3), 90, np.uint8))
    assert explanation.detections
    assert all(entry.note for entry in explanation.detections)
    assert explanation.notes


def test_a_sign_cannot_be_renormalised():
    with pytest.raises(UsageError, match="leave it or --signed out"):
        Settings(renormalize=True, signed=True)


@pytest.mark.parametrize("renormalize", [False, True])
def test_only_the_hottest_pixels_of_each_detection_are_kept(model, renormalize):
    explanation = Explainer(model, keep_only_topk=10, renormalize=renormalize, **SETTINGS)(picture())
    for entry in explanation.detections:
        assert (entry.heatmap > 0).mean() <= 0.11
        assert (entry.shown_at((64, 96)) > 0).mean() <= 0.11
    assert (explanation.heatmap > 0).mean() <= 0.11


# In a notebook.


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
    nothing = Explainer(model, conf_thres=0.999)(picture())
    assert nothing.pandas().empty
    assert len(nothing.per_detection) == 0
    assert nothing.contact_sheet().ndim == 3
    nothing.save(tmp_path, per_detection=True, save_npz=True)
    assert "no detection above confidence" in (tmp_path / "explanations.csv").read_text(encoding="utf-8")


# Memory.


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
    from explainer.renormalising import renormalise

    size = (1500, 2000)

    def together(count):
        renormalise(list(many_detections(count, size).detections), size, Settings(renormalize=True))

    few, many = (peak_memory(lambda count=count: together(count)) for count in (2, 14))
    assert many - few < 4 * size[0] * size[1]
