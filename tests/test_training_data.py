"""The data set: files are checked up front, and augmentation keeps boxes on their objects."""

import cv2
import numpy as np
import pytest
import torch

from tests.tiny_data import COLORS, make_dataset
from utils.data_scan import check_classes, find_images, scan
from utils.dataloaders import LoadImagesAndLabels, create_dataloader
from utils.dataset_yaml import check_dataset
from utils.hyperparameters import DEFAULT, load_hyp, scaled_to_model
from utils.labels import img2label_paths, read_labels
from utils.loaders import EpochSampler
from utils.logger import LOGGER
from utils.mixing import copy_paste, mixup, mosaic
from utils.samples import Sample, flipped_left_right, flipped_up_down, with_changed_colors
from utils.warping import warped

STILL = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "perspective": 0.0}


@pytest.fixture
def log(monkeypatch):
    """The lines that are logged."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(LOGGER, level, lambda text, *_: lines.append(str(text)))
    return lines


@pytest.fixture
def squares(tmp_path):
    make_dataset(tmp_path / "set")
    return tmp_path / "set"


def hyp(**changes):
    return load_hyp(DEFAULT) | changes


def one_square(category=0, box=(20, 10, 40, 30), size=(64, 48)):
    """Return a sample with one coloured square, with its outline."""
    left, top, right, bottom = box
    im = np.full((size[1], size[0], 3), 128, np.uint8)
    im[top:bottom, left:right] = COLORS[category]
    outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return Sample(im, np.array([[category, *box]], np.float32), (outline,))


def box_of_color(im, color, tolerance=60):
    """Return x1, y1, x2, y2 of the pixels of a colour."""
    ys, xs = np.nonzero((np.abs(im.astype(int) - color) < tolerance).all(2))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


# --- files


def test_labels_stand_beside_images():
    assert img2label_paths(["/a/images/b/images/c.d.jpg"]) == ["/a/images/b/labels/c.d.txt"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 0.5 0.5 0.2", "4 numbers"),
        ("0 0.5 0.5 0.2 x", "not all numbers"),
        ("0 0.5 1.5 0.2 0.2", "1.5 is not between 0 and 1"),
        ("0 0.5 nan 0.2 0.2", "nan is not between 0 and 1"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
    ],
)
def test_a_bad_label_is_left_out_and_named(squares, log, line, complaint):
    (squares / "labels/2.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    entries = scan(find_images(squares / "images"))
    assert len(entries) == 5
    (warning,) = [text for text in log if "left out" in text]
    assert "2.txt: line 2" in warning
    assert complaint in warning


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_corrupt_image_is_left_out_and_named(squares, log, content):
    path = squares / "images/3.jpg"
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    assert len(scan(find_images(squares / "images"))) == 5
    assert any("left out" in text and "3.jpg" in text for text in log)


def test_duplicate_labels_are_removed_and_named(squares, log):
    (squares / "labels/1.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    entries = scan(find_images(squares / "images"))
    assert entries[1].labels.rows[:, 0].tolist() == [0, 1]
    assert any("1.txt: 1 duplicate" in text for text in log)


def test_a_missing_label_file_is_named_and_means_background(squares, log):
    (squares / "labels/4.txt").unlink()
    entries = scan(find_images(squares / "images"))
    assert len(entries[4].labels.rows) == 0
    assert any("no label file" in text and "4.txt" in text for text in log)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no images in"):
        find_images(tmp_path)


def test_images_that_are_all_unusable_are_an_error(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 1 images can be used.*a\.jpg"):
        scan(find_images(tmp_path))


def test_a_class_beyond_the_names_is_an_error_that_names_the_file():
    with pytest.raises(ValueError, match=r"b\.txt has class 3.*0 to 2"):
        check_classes(["a.txt", "b.txt"], [np.zeros((0, 5)), np.array([[3, 0.5, 0.5, 0.1, 0.1]])], nc=3)


def test_outlines_become_boxes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("2 0.1 0.2 0.5 0.2 0.5 0.6\n1 0.5 0.5 0.2 0.2\n")
    labels = read_labels(path)
    assert labels.rows[0].tolist() == pytest.approx([2, 0.3, 0.4, 0.4, 0.4])
    assert [len(outline) for outline in labels.segments] == [3, 4]


def test_a_list_of_images_is_relative_to_itself(squares):
    listing = squares / "list.txt"
    listing.write_text("./images/0.jpg\n./images/1.jpg\n")
    assert [path[-5:] for path in find_images(listing)] == ["0.jpg", "1.jpg"]


# --- dataset YAML


def test_a_dataset_yaml_gets_absolute_paths(squares):
    data = check_dataset(squares / "squares.yaml")
    assert data["train"] == str(squares / "images")
    assert data["names"] == {0: "blue", 1: "green", 2: "red"}
    assert data["nc"] == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: a\nval: b\n", "lacks names"),
        ("train: a\nval: b\nnc: 3\nnames: [x]\n", "nc is 3, but there are 1 names"),
        ("train: a\nval: b\nnames: {0: x, 2: y}\n", "number the 2 classes from 0 on"),
        ("just text", "holds no 'key: value'"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_dataset_yaml_is_explained(tmp_path, text, complaint):
    path = tmp_path / "d.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        check_dataset(path)


def test_a_dataset_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("path: /nowhere\ntrain: images\nval: images\nnames: [x]\n")
    with pytest.raises(FileNotFoundError, match="/nowhere/images does not exist"):
        check_dataset(path)


# --- hyperparameters


def test_an_unknown_hyperparameter_is_an_error():
    with pytest.raises(ValueError, match="mosiac is unknown"):
        load_hyp({"mosiac": 1.0})


def test_a_probability_above_one_is_an_error():
    with pytest.raises(ValueError, match="fliplr is 2"):
        load_hyp({"fliplr": 2})


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert load_hyp({"lr0": "1e-3"})["lr0"] == 0.001


def test_loss_gains_follow_levels_classes_and_size():
    scaled = scaled_to_model({"box": 1.0, "cls": 1.0, "obj": 1.0}, levels=4, classes=8, imgsz=1280)
    assert scaled == pytest.approx({"box": 0.75, "cls": 0.075, "obj": 3.0})


# --- augmentation


@pytest.mark.parametrize("seed", range(5))
def test_a_warp_moves_the_box_with_the_square(seed):
    changes = {"degrees": 20.0, "translate": 0.1, "scale": 0.3, "shear": 5.0, "perspective": 0.0005}
    sample = one_square(box=(90, 70, 130, 110), size=(200, 180))
    after = warped(sample, STILL | changes, np.random.default_rng(seed))
    assert after.labels[0, 1:] == pytest.approx(box_of_color(after.im, COLORS[0], 100), abs=3)


def test_a_warp_that_does_nothing_keeps_everything():
    sample = one_square()
    after = warped(sample, STILL, np.random.default_rng(0))
    assert np.array_equal(after.im, sample.im)
    assert after.labels == pytest.approx(sample.labels)


def test_a_warp_drops_objects_that_left_the_frame():
    sample = one_square(box=(0, 0, 10, 10))
    assert len(warped(sample, STILL, np.random.default_rng(0), size=(8, 8)).labels) == 0


def test_flips_move_the_box_with_the_square():
    sample = one_square(box=(5, 3, 15, 13))
    for flip in (flipped_left_right, flipped_up_down):
        after = flip(sample)
        assert after.labels[0, 1:].tolist() == box_of_color(after.im, COLORS[0])


def test_colors_change_but_not_without_gains():
    sample = one_square()
    rng = np.random.default_rng(0)
    assert with_changed_colors(sample, (0, 0, 0), rng) is sample
    assert not np.array_equal(with_changed_colors(sample, (0.1, 0.5, 0.5), rng).im, sample.im)


def test_a_mosaic_holds_four_images_with_their_boxes():
    samples = [one_square(0), one_square(1), one_square(2), one_square(0, size=(48, 64))]
    joined = mosaic(samples, 64, np.random.default_rng(1))
    assert joined.im.shape == (128, 128, 3)
    for category in (1, 2):
        (box,) = joined.labels[joined.labels[:, 0] == category, 1:]
        assert box.tolist() == box_of_color(joined.im, COLORS[category])


def test_mixup_keeps_the_objects_of_both():
    blend = mixup(one_square(0), one_square(1, box=(1, 1, 11, 11)), np.random.default_rng(0))
    assert blend.labels[:, 0].tolist() == [0, 1]
    assert 100 < blend.im[5, 5, 1] < 230


def test_copied_objects_have_labels():
    copied = copy_paste(one_square(box=(2, 2, 12, 12)), 1.0, np.random.default_rng(0))
    assert copied.labels[1].tolist() == [0, 52, 2, 62, 12]
    assert copied.im[5, 55].tolist() == list(COLORS[0])


def test_an_object_in_the_middle_is_not_copied_onto_itself():
    assert len(copy_paste(one_square(box=(22, 2, 42, 12)), 1.0, np.random.default_rng(0)).labels) == 1


# --- data set and loader


def test_an_item_without_augmentation_is_the_letterboxed_image(squares):
    dataset = LoadImagesAndLabels(squares / "images", img_size=64)
    im, targets, path, (shape, (ratio, pad)) = dataset[0]
    assert (im.shape, im.dtype) == ((3, 64, 64), torch.uint8)
    assert path.endswith("0.jpg")
    assert (shape, ratio, pad) == ((48, 64), (1.0, 1.0), (0.0, 8.0))
    left, top, right, bottom = box_of_color(im.numpy()[::-1].transpose(1, 2, 0), COLORS[2])
    assert (targets[2, 2:4] * 64).tolist() == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=1)


def test_augmented_boxes_stay_on_their_squares(squares):
    plain = hyp(hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, mosaic=0.0, scale=0.2, degrees=5.0)
    dataset = LoadImagesAndLabels(squares / "images", img_size=64, augment=True, hyp=plain)
    for epoch in range(4):
        im, targets, *_ = dataset[(0, epoch)]
        picture = im.numpy()[::-1].transpose(1, 2, 0)
        for _, category, x, y, w, h in (targets * torch.tensor([1, 1, 64, 64, 64, 64])).tolist():
            if min(w, h) > 10:
                assert picture[int(y), int(x)].astype(int) == pytest.approx(COLORS[int(category)], abs=100)


def test_an_item_depends_on_seed_epoch_and_index_alone(squares):
    first, second = (LoadImagesAndLabels(squares / "images", 64, augment=True, hyp=hyp()) for _ in range(2))
    second[(3, 0)]
    assert torch.equal(first[(1, 5)][0], second[(1, 5)][0])
    assert not torch.equal(first[(1, 5)][0], first[(1, 6)][0])


def test_rectangles_are_as_small_as_the_batch_allows(squares):
    cv2.imwrite(str(squares / "images/tall.jpg"), np.zeros((90, 30, 3), np.uint8))
    dataset = LoadImagesAndLabels(squares / "images", img_size=64, batch_size=6, rect=True, stride=32)
    assert dataset.batch_shapes.tolist() == [[64, 64], [64, 32]]
    assert dataset[6][0].shape == (3, 64, 32)


def test_workers_do_not_change_the_batches(squares):
    options = {"hyp": hyp(), "augment": True, "shuffle": True}
    batches = [
        [images for images, *_ in create_dataloader(squares / "images", 64, 2, 32, workers=workers, **options)[0]]
        for workers in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_targets_of_a_batch_name_their_image(squares):
    loader, _ = create_dataloader(squares / "images", 64, 3, 32, workers=0)
    images, targets, paths, _ = next(iter(loader))
    assert images.shape == (3, 3, 64, 64)
    assert targets[:, 0].unique().tolist() == [0, 1, 2]
    assert len(paths) == 3


def test_quads_have_twice_the_size_and_all_labels(squares):
    loader, _ = create_dataloader(squares / "images", 64, 4, 32, workers=0, quad=True)
    torch.manual_seed(0)
    images, targets, *_ = next(iter(loader))
    assert images.shape == (1, 3, 128, 128)
    assert len(targets) in (3, 12)
    assert targets[:, 2:].min() > 0
    assert targets[:, 2:].max() < 1


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_changes_nothing(squares, cache):
    plain = LoadImagesAndLabels(squares / "images", 32)
    cached = LoadImagesAndLabels(squares / "images", 32, cache_images=cache)
    assert torch.equal(plain[2][0], cached[2][0])
    assert (squares / "images/2.npy").exists() == (cache == "disk")


def test_single_cls_makes_one_class_of_all(squares):
    dataset = LoadImagesAndLabels(squares / "images", 64, single_cls=True)
    assert {row[0] for rows in dataset.labels for row in rows.tolist()} == {0}


def test_the_processes_share_the_images(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = [EpochSampler(7, 2, shuffle=True, rank=rank) for rank in range(2)]
    seen = [index for share in shares for index, _ in share]
    assert sorted(set(seen)) == list(range(7))
    assert len(shares[0]) == len(shares[1]) == 4


def test_unshuffled_processes_get_whole_batches(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = [[i for i, _ in EpochSampler(7, 2, shuffle=False, rank=rank)] for rank in range(2)]
    assert shares == [[0, 1, 4, 5], [2, 3, 6]]


def test_every_epoch_has_its_own_order():
    sampler = EpochSampler(20, 4, shuffle=True)
    first = list(sampler)
    sampler.epoch = 1
    assert [i for i, _ in sampler] != [i for i, _ in first]
    assert {epoch for _, epoch in sampler} == {1}
