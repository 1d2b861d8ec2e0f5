"""Pictures show the photograph, the heat where it is, and the boxes; colours are not swapped."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scenes import picture

from explainer.command.options import Options
from explainer.detectors.predictions import NEAR_MISS
from explainer.errors import UsageError
from explainer.explanation import Detection, DetectionExplanation, Explanation
from explainer.maps.heatmaps import Letterbox
from explainer.pictures.drawing import (
    MOST_PAINTED,
    REST,
    SEEN,
    SEEN_OF_BOX,
    SELECTION,
    TONES,
    Style,
    blank_out,
    canonical_colormap,
    colour_table,
    covered,
    draw_boxes,
    label_places,
    label_plates,
    line_width,
    magnitude_at,
    paint,
    tone_curve,
)

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


def disc(shape, centre, radius):
    """Return a round mask, bool (H, W)."""
    y, x = np.indices(shape)
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize("thickness", [1, 3])
def test_the_outline_of_a_mask_lies_around_it_in_the_colour_of_its_box(thickness):
    found, style = explained().detection, Style(hide_labels=True, line_thickness=thickness)
    mask = disc(GREY.shape[:2], (25, 30), 12)
    drawn = draw_boxes(GREY, [replace(found, mask=mask)], style)
    bare = draw_boxes(GREY, [found], style)
    assert (drawn[mask] == GREY[mask]).all()
    hue = bare[30, 10 - thickness]
    assert (drawn[30, 25 + 12 + 1 : 25 + 12 + 1 + thickness] == hue).all()
    changed = (drawn != bare).any(axis=2)
    assert not (changed & ~disc(GREY.shape[:2], (25, 30), 12 + thickness + 2)).any()


def test_the_mask_of_a_box_below_the_threshold_is_dashed():
    near = replace(explained().detection, outcome=NEAR_MISS, above=0.9, mask=disc(GREY.shape[:2], (25, 30), 12))
    style = Style(hide_labels=True, line_thickness=1)
    drawn, bare = draw_boxes(GREY, [near], style), draw_boxes(GREY, [replace(near, mask=None)], style)
    assert len(np.unique(drawn[(drawn != bare).any(axis=2)], axis=0)) == 2


@pytest.mark.parametrize("mask", [np.zeros((60, 80), bool), np.ones((60, 80), bool)])
def test_a_mask_without_an_edge_in_the_picture_leaves_no_line(mask):
    found, style = explained().detection, Style(line_thickness=2)
    assert (draw_boxes(GREY, [replace(found, mask=mask)], style) == draw_boxes(GREY, [found], style)).all()


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


# Of pictures that are 200 pixels wide and 120 high, with labels 40 wide and 10 high unless told otherwise.
PLACES = {
    "side by side, each label above its box": ([(20, 40, 80, 90), (90, 40, 150, 90)], [40, 40], [(19, 29), (89, 29)]),
    "a label as wide as two boxes sends the next one below": (
        [(20, 40, 80, 90), (90, 40, 150, 90)],
        [80, 40],
        [(19, 29), (89, 91)],
    ),
    "below a box at the top edge": ([(50, 0, 90, 60)], [40], [(49, 61)]),
    "to the right of a box as high as the picture": ([(50, 0, 90, 120)], [40], [(91, 0)]),
    "to the left of one at the right edge": ([(150, 0, 200, 120)], [40], [(109, 0)]),
    "along the edge of the picture": ([(180, 40, 200, 90)], [40], [(160, 29)]),
    "within a box that fills the picture, inside its line": ([(0, 0, 200, 120)], [40], [(1, 1)]),
    "above the inner one of nested boxes, if the outer one is everywhere": (
        [(20, 20, 180, 100), (80, 50, 110, 80)],
        [40, 40],
        [(19, 9), (79, 39)],
    ),
    "where it covers least of an outer box": ([(50, 20, 180, 100), (60, 50, 90, 80)], [40, 40], [(49, 9), (19, 49)]),
    "not in a box that is above": ([(50, 60, 90, 100), (40, 20, 100, 58)], [40, 40], [(49, 101), (39, 9)]),
    "off a corner between four boxes": (
        [(80, 40, 120, 80), (60, 20, 140, 39), (60, 81, 140, 100), (121, 40, 200, 80), (0, 50, 79, 80)],
        [40],
        [(39, 39)],
    ),
}


def places_of(boxes, widths, shape=(120, 200)):
    """Return the edges of labels, 10 pixels high, at boxes with a line of one pixel."""
    labels = [np.full((10, width, 3), number) for number, width in enumerate(widths)]
    placed = list(label_places(np.array(boxes), labels, shape, thickness=1))
    assert all(place[2] - place[0] == label.shape[1] and place[3] - place[1] == 10 for label, place in placed)
    return [place for _, place in placed]


@pytest.mark.parametrize(("boxes", "widths", "expected"), PLACES.values(), ids=PLACES)
def test_a_label_lies_where_it_hides_least(boxes, widths, expected):
    assert [tuple(place[:2]) for place in places_of(boxes, widths)] == expected


def test_labels_that_find_no_place_are_left_out_the_least_confident_first():
    boxes = [(80, 50, 120, 70)] * 20
    places = np.array(places_of(boxes, [40] * 20))
    # The eight places outside; the upper and the lower left corner, which differ from those on the right by nothing.
    assert len(places) == 10
    assert all(covered(place[None], np.delete(places, number, axis=0)) == 0 for number, place in enumerate(places))


def crowd(count, shape, seed=0):
    """Return so many detections at random places of a picture, the most confident first."""
    generator = np.random.default_rng(seed)
    sides = np.array([shape[1], shape[0]] * 2)
    corners = generator.random((count, 2)) * 0.9
    boxes = np.float32(np.hstack([corners, corners + 0.02 + 0.1 * generator.random((count, 2))]).clip(0, 1) * sides)
    confidences = np.sort(generator.random(count))[::-1].tolist()
    kinds = generator.integers(0, 80, count).tolist()
    return [
        Detection(box, confidence, kind, f"class {kind}", 8, 0, 0)
        for box, confidence, kind in zip(boxes, confidences, kinds, strict=True)
    ]


@pytest.mark.parametrize("shape", [(224, 224, 3), (720, 1280, 3)])
def test_a_crowd_has_labels_on_an_eighth_of_the_picture_at_most_and_on_no_other_label(shape):
    found = crowd(300, shape)
    labels = label_plates(found, [(9, 9, 9)] * 300, Style(), shape)
    assert 5 < len(labels) < 300
    assert sum(label.shape[0] * label.shape[1] for label in labels) <= shape[0] * shape[1] / 8
    alone = label_plates(found[:1], [(9, 9, 9)], Style(), shape)[0]
    assert labels[0].shape[0] <= alone.shape[0]
    boxes = np.array([found.xyxy for found in found]).astype(int)
    places = np.array([place for _, place in label_places(boxes, labels, shape, 1)])
    assert all(covered(place[None], np.delete(places, number, axis=0)) == 0 for number, place in enumerate(places))
    assert (places >= 0).all()
    assert (places[:, 2:] <= shape[1::-1]).all()


def test_the_same_detections_give_the_same_picture():
    image = np.full((480, 640, 3), 100, np.uint8)
    first, second = (draw_boxes(image, crowd(300, image.shape), Style()) for _ in range(2))
    assert (first == second).all()


def test_the_insides_of_boxes_stay_whole_where_there_is_room():
    image = picture(224, 224)
    found = [explained("dog", (75, 30, 164, 130)).detection, explained("cat", (40, 150, 200, 220)).detection]
    drawn = draw_boxes(image, found, Style())
    for x1, y1, x2, y2 in (entry.xyxy.astype(int) for entry in found):
        assert (drawn[y1:y2, x1:x2] == image[y1:y2, x1:x2]).all()
    assert (drawn != image).any(axis=2).sum() > 1000


def test_a_line_lies_around_its_box_with_a_seam_around_it_and_within_the_picture():
    image = np.zeros((60, 80, 3), np.uint8)
    drawn = draw_boxes(image, [explained(xyxy=(0, 10, 40, 50)).detection], Style(hide_labels=True, line_thickness=2))
    hue = drawn[9, 20].tolist()
    assert [(drawn[y, 20] == hue).all() for y in range(6, 11)] == [False, False, True, True, False]
    assert [(drawn[30, x] == hue).all() for x in range(4)] == [True, True, False, False]
    assert [drawn[30, x].any() for x in range(39, 44)] == [False, True, True, True, False]
    assert [drawn[y, 20].any() for y in range(49, 54)] == [False, True, True, True, False]
    assert not drawn[10:50, 2:40].any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), 1), ((224, 224), 1), ((480, 640), 2), ((720, 1280), 3), ((3000, 4000), 8), ((9000, 9000), 8)],
)
def test_lines_are_as_wide_as_the_picture_asks_for_unless_a_number_is_given(size, expected):
    assert line_width(Style(), (*size, 3)) == line_width(Style(line_thickness=0), (*size, 3)) == expected
    assert line_width(Style(line_thickness=5), (*size, 3)) == 5


def test_letters_grow_with_the_picture_and_are_never_too_small_to_read():
    found = [explained("dog").detection]
    heights = [
        label_plates(found, [(9, 9, 9)], Style(), shape)[0].shape[0]
        for shape in ((60, 80), (224, 224), (480, 640), (720, 1280), (3000, 4000))
    ]
    assert heights[0] == heights[1] >= 11
    assert heights[1] < heights[2] < heights[3] < heights[4]
    assert 20 < heights[3] < 26
    assert 50 < heights[4] < 65


def test_a_picture_that_is_too_small_for_a_label_has_none():
    for shape in ((1, 1), (1, 50), (50, 1), (20, 20), (1000, 20)):
        image = np.zeros((*shape, 3), np.uint8)
        found = [explained("dog", (0, 0, shape[1], shape[0])).detection]
        assert (draw_boxes(image, found, Style()) == draw_boxes(image, found, Style(hide_labels=True))).all()


def test_a_long_name_is_shortened_and_its_confidence_is_not():
    long = explained("a name that is far too long for the label of any box on any picture " * 3).detection
    label, without = (
        label_plates([long], [(9, 9, 9)], style, (720, 1280))[0] for style in (Style(), Style(hide_conf=True))
    )
    assert 350 < without.shape[1] < 1280 / 3 + 10
    assert 40 < label.shape[1] - without.shape[1] < 70


@pytest.mark.parametrize("class_index", range(20))
def test_a_box_is_seen_on_a_ground_of_its_own_colour(class_index):
    from utils.plots import colors

    image = np.full((300, 400, 3), colors(class_index), np.uint8)
    entry = Detection(np.float32([100, 50, 300, 250]), 0.2, class_index, "bee", 8, 0, 0)
    seam = draw_boxes(image, [entry], Style(hide_labels=True, line_thickness=1))[48, 100:300]
    assert np.abs(lightness(seam) - lightness(image[0, :1])).min() > 10


@pytest.mark.parametrize("ground", [0, 90, 128, 200, 255])
@pytest.mark.parametrize("class_index", [0, 3, 7, 17])
def test_boxes_that_were_not_found_are_dashed_and_seen_on_any_ground(ground, class_index):
    image = np.full((300, 400, 3), ground, np.uint8)
    entry = Detection(np.float32([100, 50, 300, 250]), 0.2, class_index, "bee", 8, 0, 0, "miss")
    along_the_top = draw_boxes(image, [entry], Style(hide_labels=True, line_thickness=1))[49, 100:300]
    colours = np.unique(along_the_top, axis=0)
    assert len(colours) == 2
    assert max(np.abs(lightness(colours) - lightness(image[0, :1]))) > 20
    found = draw_boxes(
        image, [explained(xyxy=(100, 50, 300, 250)).detection], Style(hide_labels=True, line_thickness=1)
    )
    assert len(np.unique(found[49, 100:300], axis=0)) == 1


@pytest.mark.parametrize("name", ["größer", "plain", "собака", "كلب", "斑馬"])
def test_class_names_of_any_alphabet_are_drawn(name):
    image = np.full((240, 320, 3), 100, np.uint8)
    entry = explained(name, (100, 100, 200, 200)).detection
    other = explained("x", (100, 100, 200, 200)).detection
    assert (draw_boxes(image, [entry], Style()) != draw_boxes(image, [other], Style())).any()


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
    style = Style(colormap="viridis", alpha=0.6, tone="linear")
    assert np.abs(paint(image, heatmap, style) - expected).max() < 3


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


def glow(height=120, width=160, centre=(60, 80), reach=6.0, peak=1.0):
    """Return a map (height, width) with one spot that fades within some pixels."""
    rows, columns = np.ogrid[:height, :width]
    return np.float32(peak * np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * reach**2)))


@pytest.mark.parametrize("tone", TONES)
def test_what_is_hotter_never_looks_colder(tone):
    generator = np.random.default_rng(1)
    for _ in range(20):
        heatmap = generator.random((40, 60), np.float32) ** generator.uniform(0.2, 12)
        curve = tone_curve(heatmap, tone, generator.uniform(0, 60, (3, 4)))
        assert curve.shape == (256,)
        assert curve.min() >= 0
        assert curve.max() <= 1
        assert (np.diff(curve) >= 0).all()


def test_colours_follow_the_share_of_the_evidence_that_lies_where_there_is_less():
    heatmap = glow(reach=20)
    curve, levels = tone_curve(heatmap, "evidence"), np.rint(heatmap * 255)
    for level in (20, 60, 120, 200):
        here = heatmap[levels == level].sum() / 2
        share = (heatmap[levels < level].sum() + here) / heatmap.sum()
        assert curve[level] == pytest.approx(max((share - REST) / (1 - REST), 0), abs=0.01)


def test_the_root_is_brighter_than_the_linear_tone_and_both_are_the_same_for_any_map():
    curves = {tone: [tone_curve(glow(reach=reach), tone) for reach in (2, 40)] for tone in ("root", "linear")}
    assert all((one == other).all() for one, other in curves.values())
    assert np.allclose(curves["root"][0] ** 2, curves["linear"][0])


def test_a_spot_too_small_to_be_seen_is_spread_until_some_of_its_box_is():
    image, heatmap, box = np.full((120, 160, 3), 90, np.uint8), glow(reach=1.2), (40, 20, 120, 100)
    inside = np.s_[20:100, 40:120]

    def changed(**style):
        painted = paint(image, heatmap, Style(**style), boxes=[box])
        return (np.abs(painted.astype(int) - image).max(axis=2) > 20)[inside].mean()

    assert changed(tone="linear") < 0.005
    assert changed() == pytest.approx(changed(tone="evidence"))
    faint = np.maximum(heatmap, glow(reach=9, peak=0.04))
    heatmap = faint
    assert changed(tone="linear") < 0.005
    assert changed() > 0.03


def test_a_faint_detection_is_lifted_into_sight_but_not_most_of_the_picture():
    crowd = np.maximum(glow(reach=30), glow(centre=(10, 150), reach=4, peak=0.05))
    box = (140, 2, 158, 18)
    unseen, seen = (tone_curve(crowd, "evidence", boxes) for boxes in ([], [box]))
    at_box = int(np.quantile(crowd[2:18, 140:158], 1 - SEEN_OF_BOX) * 255)
    assert unseen[at_box] < SEEN
    painted = (seen[np.uint8(crowd * 255 + 0.5)] >= SEEN).mean()
    assert painted <= MOST_PAINTED + 0.01
    assert painted > 0.9 * MOST_PAINTED


def test_the_tone_of_a_large_map_is_that_of_the_same_map_when_small():
    small = glow(reach=10)
    large = small.repeat(12, axis=0).repeat(12, axis=1)
    box = np.array([70, 50, 90, 70])
    curves = tone_curve(small, "evidence", [box]), tone_curve(large, "evidence", [12 * box])
    assert np.abs(curves[0] - curves[1]).max() < 0.02


def test_a_map_with_a_sign_looks_as_hot_for_as_against():
    image = np.full((120, 160, 3), 90, np.uint8)
    heatmap = glow(centre=(60, 40)) - glow(centre=(60, 120))
    heat = np.abs(paint(image, heatmap, Style(alpha=1), has_sign=True).astype(int) - image).max(axis=2) > 30
    towards, against = heat[:, :80].sum(), heat[:, 80:].sum()
    assert towards > 50
    assert against == pytest.approx(towards, rel=0.15)


def test_an_empty_map_paints_nothing_and_a_full_one_everything():
    image = picture()
    for fill, has_sign in ((0, False), (0, True), (1, False)):
        heatmap = np.full(image.shape[:2], fill, np.float32)
        painted = paint(image, heatmap, Style(), boxes=[(0, 0, 9, 9), (-5, -5, -1, -1)], has_sign=has_sign)
        assert (painted != image).any(axis=2).mean() == pytest.approx(fill, abs=0.01)


def test_a_value_is_read_from_its_colour():
    curve = tone_curve(glow(reach=15), "evidence")
    values = [magnitude_at(curve, heat) for heat in (0, 1 / 3, 2 / 3, 1)]
    assert values[0] < values[1] < values[2] < values[3] == 1
    assert curve[round(255 * values[1])] == pytest.approx(1 / 3, abs=0.02)


def test_an_unknown_tone_is_a_mistake_that_names_the_known_ones():
    for mistake in (lambda: Options(tone="log"), lambda: tone_curve(glow(), "log")):
        with pytest.raises(UsageError, match=r"log.*evidence.*root.*linear"):
            mistake()
