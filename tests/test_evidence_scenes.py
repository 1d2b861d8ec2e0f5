"""The Evidence set is what it says: the emblem alone decides the class, the body decides the box."""

import cv2
import numpy as np
import pytest

from data.scripts.draw_evidence import main, parse_opt
from data.scripts.evidence.altering import with_other_surroundings, without_emblems
from data.scripts.evidence.composing import CONTRAST_OF_FIGURES, brightness, compose
from data.scripts.evidence.figures import EMBLEMS
from data.scripts.evidence.proof import overlaps
from data.scripts.evidence.rendering import CLASSES, render
from data.scripts.evidence.scene import Figure
from utils.dataloaders import LoadImagesAndLabels

SIZE = 160


@pytest.fixture(scope="module")
def scenes():
    return [compose(0, index, SIZE, nearest=1 + index % 2) for index in range(24)]


def ink(scene):
    """Return the pixels of all emblems of a scene."""
    return np.any([body.emblem.mask(scene.size) for body in scene.bodies], axis=0)


def test_a_scene_depends_on_the_seed_and_its_number_alone():
    assert compose(0, 7, SIZE) == compose(0, 7, SIZE)
    assert compose(0, 7, SIZE) != compose(0, 8, SIZE)
    assert compose(0, 7, SIZE) != compose(1, 7, SIZE)


def test_a_scene_has_one_to_five_bodies_and_all_kinds_of_emblems_occur(scenes):
    assert {len(scene.bodies) for scene in scenes} == {1, 2, 3, 4, 5}
    assert {body.emblem.name for scene in scenes for body in scene.bodies} == set(CLASSES)


@pytest.mark.parametrize("name", EMBLEMS)
def test_an_emblem_is_its_own_mirror_image(name):
    mask = Figure(name, (100, 100), 80, 0, (0, 0, 0)).mask(201)
    assert (mask != mask[:, ::-1]).mean() < 0.01


def test_emblems_have_much_the_same_area():
    areas = [Figure(name, (100, 100), 80, 0, (0, 0, 0)).mask(201).sum() for name in EMBLEMS]
    assert max(areas) < 1.25 * min(areas)


def test_every_emblem_lies_in_the_open_on_its_own_body_beside_its_mark(scenes):
    for scene in scenes:
        picture = render(scene)
        for number, body in enumerate(scene.bodies, start=1):
            emblem, mark = body.emblem.mask(SIZE), body.mark.mask(SIZE)
            # The feet of a chevron may stand over the edge, by a pixel.
            assert (picture.bodies[emblem] == number).mean() > 0.95
            assert (picture.image_rgb[emblem] == body.emblem.color).all(axis=1).mean() > 0.95
            assert not (emblem & mark).any()


def test_every_emblem_stands_out_from_its_body(scenes):
    for body in (body for scene in scenes for body in scene.bodies):
        differences = [abs(brightness(body.emblem.color) - brightness(color)) for color in body.texture.colors]
        assert min(differences) >= CONTRAST_OF_FIGURES


def test_the_box_is_that_of_the_visible_body_and_the_class_that_of_the_emblem(scenes):
    for scene in scenes:
        picture = render(scene)
        for number, (body, (index, x, y, w, h)) in enumerate(zip(scene.bodies, picture.labels, strict=True), start=1):
            rows, columns = np.nonzero(picture.bodies == number)
            box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * SIZE == pytest.approx(box)
            assert CLASSES[int(index)] == body.emblem.name


def test_painting_emblems_over_changes_their_pixels_alone(scenes):
    for scene in scenes[:8]:
        before, after = render(scene), render(without_emblems(scene))
        changed = (before.image_rgb != after.image_rgb).any(axis=2)
        assert (changed == ink(scene)).all()
        assert not after.emblems.any()
        assert (after.labels[:, 0] == -1).all()


def test_other_surroundings_leave_the_emblems_and_the_boxes(scenes):
    for scene in scenes[:8]:
        before, after = render(scene), render(with_other_surroundings(scene, seed=1))
        kept = ink(scene)
        assert (before.image_rgb == after.image_rgb)[kept].all()
        assert (before.image_rgb != after.image_rgb).any(axis=2)[~kept].mean() > 0.95
        assert (before.labels == after.labels).all()
        assert (before.emblems == after.emblems).all()


def test_the_command_writes_a_data_set_with_masks(tmp_path):
    main(parse_opt(["--out", str(tmp_path), "--train", "3", "--val", "2", "--size", "96"]))
    assert sorted(path.stem for path in (tmp_path / "images/val").iterdir()) == ["00000", "00001"]
    dataset = LoadImagesAndLabels(tmp_path / "images/train", img_size=96)
    assert len(dataset) == 3
    for path, rows in zip(dataset.im_files, dataset.labels, strict=True):
        name = str(path).replace("images", "masks").removesuffix(".jpg")
        body, emblem = (cv2.imread(f"{name}_{kind}.png", cv2.IMREAD_UNCHANGED) for kind in ("body", "emblem"))
        assert np.unique(body).tolist() == np.unique(emblem).tolist() == list(range(len(rows) + 1))
        assert (body[emblem > 0] == emblem[emblem > 0]).mean() > 0.97


def test_overlaps_are_those_of_boxes():
    found = overlaps(np.array([0, 0, 10, 10]), np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]]))
    assert found == pytest.approx([1, 1 / 3, 0])
