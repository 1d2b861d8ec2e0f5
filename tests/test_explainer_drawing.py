"""Pictures show the photograph, the heat where it is, and the boxes; colours are not swapped."""

import cv2
import numpy as np
import pytest

from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.maps.heatmaps import Letterbox
from explainer.pictures.drawing import Style, blank_out, draw_boxes, paint

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
