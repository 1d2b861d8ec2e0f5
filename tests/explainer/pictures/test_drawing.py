"""Pictures show the photograph, the heat where it is, and the boxes; colours are not swapped."""

import cv2
import numpy as np
import pytest
from scenes import picture

from explainer.command.options import Options
from explainer.errors import UsageError
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.maps.heatmaps import Letterbox
from explainer.pictures.drawing import SELECTION, Style, blank_out, canonical_colormap, colour_table, draw_boxes, paint

GREY = np.full((60, 80, 3), 100, np.uint8)


def explained(name="ant", xyxy=(10, 10, 40, 50)):
    found = Detection(np.float32(xyxy), 0.876, 0, name, 8, 0, 0)
    return DetectionExplanation(
        found, ("model.4",), 0.0, (np.eye(4, dtype=np.float32),), Letterbox((60, 80), (64, 96), (60, 80), 2, 8)
    )


def test_the_photograph_shows_through_where_nothing_speaks():
    assert (paint(GREY, np.zeros((60, 80), np.float32), Style()) == GREY).all()


def test_the_hottest_place_is_yellow_and_not_blue():
    heatmap = np.zeros((60, 80), np.float32)
    heatmap[30, 40] = 1
    red, green, blue = paint(GREY, heatmap, Style())[30, 40].astype(int)
    assert min(red, green) > 180
    assert blue < 80


def test_blanked_out_pixels_take_the_mean_colour():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (200, 100, 40)
    blanked = blank_out(image, np.float32([[1, 0], [0, 0]]))
    assert blanked[0, 0].tolist() == [50, 25, 10]
    assert blanked[1, 1].tolist() == [0, 0, 0]


def test_drawing_leaves_the_caller_s_image_alone():
    image = GREY.copy()
    drawn = draw_boxes(image, [explained().detection], Style())
    assert (image == GREY).all()
    assert (drawn != GREY).any()


def test_hidden_labels_leave_only_the_box():
    with_label, without = (
        draw_boxes(GREY.copy(), [explained().detection], Style(hide_labels=hide)) for hide in (False, True)
    )
    inside = (slice(14, 46), slice(14, 36))
    assert (with_label != without).any()
    assert (without[inside] == GREY[inside]).all()


def test_the_overlay_of_one_class_has_only_its_boxes_and_its_heat():
    heat = np.zeros((60, 80), np.float32)
    heat[5, 70] = 1
    explanation = Explanation(
        GREY,
        heat,
        (explained("ant"), explained("bee", (50, 10, 70, 50))),
        "GradCAM",
        ("class",),
        {"ant": heat * 0, "bee": heat},
    )
    ant, bee = (explanation.overlay(Style(hide_labels=True), name) for name in ("ant", "bee"))
    assert (ant[:, 45:] == GREY[:, 45:]).all()
    assert (bee[:, :45] == GREY[:, :45]).all()
    assert (bee[5, 70] != GREY[5, 70]).any()


@pytest.mark.parametrize("name", ["größer", "plain"])
def test_class_names_of_any_alphabet_can_be_drawn(name):
    assert draw_boxes(GREY.copy(), [explained(name).detection], Style()).shape == GREY.shape


def test_a_notebook_shows_the_overlay_and_gets_a_table():
    explanation = Explanation(
        GREY, np.zeros((60, 80), np.float32), (explained(), explained("bee")), "GradCAM", ("class",)
    )
    shown = cv2.imdecode(np.frombuffer(explanation._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown == explanation.overlay()).all()
    table = explanation.pandas()
    assert table["name"].tolist() == ["ant", "bee"]
    assert table["x2"].tolist() == [40, 40]
    assert ((table["energy_in_box"] > 0) & (table["energy_in_box"] <= 1)).all()


def lightness(rgb):
    """Return the perceived lightness L*, 0..100, of colours (N, 3)."""
    return cv2.cvtColor(np.float32(rgb)[None] / 255, cv2.COLOR_RGB2Lab)[0, :, 0]


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
    from fresh_interpreter import modules_after

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
