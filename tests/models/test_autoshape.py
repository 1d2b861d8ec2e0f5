"""AutoShape takes pictures as people have them; Detections gives what was found in every form."""

import functools
import http.server
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from tiny_media import claiming_jpeg
from tiny_models import save, tiny_detector, tiny_segmenter
from torch import nn

from models.autoshape import AutoShape, Detections, read_picture
from models.backend import DetectMultiBackend

NAMES = {0: "cat", 1: "dog"}
RED = (250, 10, 20)


class Finder(nn.Module):
    """Finds in every image the same two objects: a dog with corners (16, 8) and (48, 24), and a fainter cat."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.stride, self.names, self.nc = torch.tensor([8.0, 32.0]), NAMES, 2
        self.seen = []

    def forward(self, im, augment=False):
        self.seen.append(im)
        rows = torch.tensor(
            [[32, 16, 32, 16, 0.9, 0.1, 1.0], [8, 8, 8, 8, 0.5, 1.0, 0.0], [50, 8, 4, 4, 0.2, 1.0, 0.0]]
        )
        return rows.repeat(len(im), 1, 1).to(im), [torch.zeros(1)]


@pytest.fixture
def model():
    return AutoShape(Finder(), verbose=False)


def red_picture(height=50, width=100) -> np.ndarray:
    return np.full((height, width, 3), RED, np.uint8)


def test_boxes_come_back_in_pixels_of_the_picture(model):
    found = model(red_picture(), size=64)
    # 100x50 is shrunk to 64x32, so the model's pixels are 100/64 of the picture's.
    expected = torch.tensor([[25, 12.5, 75, 37.5, 0.9, 1], [6.25, 6.25, 18.75, 18.75, 0.5, 0]])
    torch.testing.assert_close(found.xyxy[0], expected)
    assert found.s == (1, 3, 32, 64)


def test_the_four_layouts_agree(model):
    found = model(red_picture(), size=64)
    assert found.xywh[0][0, :4].tolist() == [50, 25, 50, 25]
    assert found.xywhn[0][0, :4].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert found.xyxyn[0][0, :4].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert found.pred is found.xyxy


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({}, [1, 0]),
        ({"conf": 0.1}, [1, 0, 0]),
        ({"conf": 0.6}, [1]),
        ({"classes": [0]}, [0]),
        ({"max_det": 1}, [1]),
        ({"conf": 0.05, "multi_label": True}, [1, 0, 0, 0]),
    ],
)
def test_the_attributes_steer_the_suppression(model, options, classes):
    for name, value in options.items():
        setattr(model, name, value)
    assert model(red_picture(), size=64).pred[0][:, 5].tolist() == classes


def as_file(tmp_path, image: Image.Image, name="red.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


SOURCES = {
    "path": lambda folder: as_file(folder, Image.fromarray(red_picture())),
    "text": lambda folder: str(as_file(folder, Image.fromarray(red_picture()))),
    "odd name": lambda folder: as_file(folder, Image.fromarray(red_picture()), "réd püppy 1.png"),
    "PIL": lambda folder: Image.fromarray(red_picture()),
    "PIL with transparency": lambda folder: Image.fromarray(red_picture()).convert("RGBA"),
    "PIL with a palette": lambda folder: Image.fromarray(red_picture()).convert("P", palette=Image.Palette.ADAPTIVE),
    "OpenCV": lambda folder: red_picture()[..., ::-1][..., ::-1],
    "array with four channels": lambda folder: np.dstack([red_picture(), np.zeros((50, 100), np.uint8)]),
    "channels first": lambda folder: red_picture().transpose(2, 0, 1),
    "16 bits": lambda folder: red_picture().astype(np.uint16) * 257,
    "float": lambda folder: red_picture().astype(np.float32),
    "turned by EXIF": lambda folder: as_file(folder, turned(), "turned.png", exif=orientation(6)),
}


def turned() -> Image.Image:
    return Image.fromarray(red_picture()).transpose(Image.Transpose.ROTATE_90)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_picture_reaches_the_model_as_rgb(kind, model, tmp_path):
    found = model(SOURCES[kind](tmp_path), size=64)
    assert found.ims[0].shape == (50, 100, 3)
    seen = model.model.seen[0]
    assert seen.shape == (1, 3, 32, 64)
    assert (seen[0, :, 16, 32] * 255).round().tolist() == list(RED)


GREYS = {
    "two dimensions": lambda: np.full((50, 100), 99, np.uint8),
    "one channel": lambda: np.full((50, 100, 1), 99, np.uint8),
    "channel first": lambda: np.full((1, 50, 100), 99, np.uint8),
    "PIL": lambda: Image.new("L", (100, 50), 99),
    "PIL with 16 bits": lambda: Image.fromarray(np.full((50, 100), 99 * 256 + 7, np.uint16)),
    "PIL with one bit": lambda: Image.new("1", (100, 50), 0),
    "CMYK": lambda: Image.new("L", (100, 50), 99).convert("CMYK"),
}


@pytest.mark.parametrize("kind", GREYS)
def test_grey_pictures_become_three_equal_channels(kind, model):
    model(GREYS[kind](), size=64)
    value = 0 if "one bit" in kind else 99
    assert (model.model.seen[0][0, :, 16, 32] * 255).round().tolist() == [value] * 3


def test_an_address_is_fetched(model, tmp_path):
    as_file(tmp_path, Image.fromarray(red_picture()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        found = model(f"http://127.0.0.1:{server.server_port}/red.png?size=large", size=64)
    finally:
        server.shutdown()
        server.server_close()
    assert found.files == ["red.jpg"]
    assert len(found.pred[0]) == 2


def test_a_list_shares_one_frame_that_holds_all(model, tmp_path):
    path = as_file(tmp_path, Image.fromarray(red_picture()))
    found = model([red_picture(100, 20), path, Image.fromarray(red_picture(64, 64))], size=64)
    assert found.s == (3, 3, 64, 64)
    assert [im.shape[:2] for im in found.ims] == [(100, 20), (50, 100), (64, 64)]
    assert found.files == ["image0.jpg", "red.jpg", "image2.jpg"]
    assert len(found) == found.n == 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 23), (5, 100), (3, 640)])
def test_very_small_and_narrow_pictures_work(model, height, width):
    assert len(model(red_picture(height, width), size=64)) == 1


def test_a_tensor_goes_through_the_model_as_it_is(model):
    predictions, _ = model(torch.zeros(2, 3, 32, 64, dtype=torch.float64))
    assert predictions.shape == (2, 3, 7)
    assert model.model.seen[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], ValueError, "the list is empty"),
        (3, ValueError, "int is no picture; give a path"),
        (np.zeros((2, 2, 2, 3), np.uint8), ValueError, r"shape \(2, 2, 2, 3\) is no picture"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"shape \(0, 5, 3\) is no picture"),
        (np.zeros((5, 5, 3), bool), ValueError, "array of bool is no picture"),
        ("nowhere.jpg", FileNotFoundError, r"nowhere\.jpg does not exist"),
        (__file__, OSError, r"test_autoshape\.py cannot be read as a picture"),
    ],
)
def test_what_is_no_picture_is_named(model, source, error, message):
    with pytest.raises(error, match=message):
        model(source)


def test_a_truncated_picture_is_named(model, tmp_path):
    path = as_file(tmp_path, Image.effect_noise((64, 64), 50).convert("RGB"), "half.jpg")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(OSError, match=r"half\.jpg cannot be read as a picture"):
        model(path)


def test_a_checkpoint_in_a_backend_detects_like_the_model_itself(tmp_path):
    detector = tiny_detector()
    backend = DetectMultiBackend(save({"model": detector}, tmp_path / "best.pt"), fuse=False)
    wrapped, direct = (AutoShape(each, verbose=False) for each in (backend, detector))
    wrapped.conf = direct.conf = 0.0
    found, expected = (each(red_picture(), size=64) for each in (wrapped, direct))
    assert len(found.pred[0]) > 0
    torch.testing.assert_close(found.pred[0], expected.pred[0])
    assert wrapped(torch.zeros(1, 3, 32, 32)).shape == (1, 160, 8)


def test_attributes_of_the_model_show_through(tmp_path):
    backend = DetectMultiBackend(save({"model": tiny_detector()}, tmp_path / "best.pt"))
    model = AutoShape(backend, verbose=False)
    assert (model.stride, model.names, model.nc) == (32, backend.names, 3)
    assert model.yaml["nc"] == 3


def test_moving_the_wrapper_moves_strides_and_grids(tmp_path):
    backend = DetectMultiBackend(save({"model": tiny_detector()}, tmp_path / "best.pt"))
    model = AutoShape(backend, verbose=False)
    model(red_picture(), size=64)
    model.double()
    head = backend.model.model[-1]
    assert head.stride.dtype == head.anchors.dtype == torch.float64
    model(red_picture(), size=64)


def test_mask_columns_are_left_out():
    model = AutoShape(tiny_segmenter(), verbose=False)
    model.conf = 0.0
    found = model(red_picture(), size=64)
    assert found.pred[0].shape[1] == 6
    assert set(found.pred[0][:, 5].tolist()) <= {0, 1, 2}


# What was found, in every form.


@pytest.fixture
def found():
    """Two pictures: a dog and two cats in the first, nothing in the second."""
    boxes = torch.tensor([[10.0, 10, 30, 30, 0.9, 1], [0, 0, 4, 4, 0.5, 0], [60, 20, 90, 40, 0.4, 0]])
    return Detections(
        [red_picture(), red_picture(20, 30)], [boxes, torch.zeros(0, 6)], ["a.jpg", "a.jpg"], (0.002, 0.2, 0.02), NAMES
    )


def test_tables_have_named_columns_and_class_names(found):
    tables = found.pandas()
    first, second = tables.xyxy
    assert list(first.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    assert list(tables.xywhn[0].columns) == ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    assert first["name"].tolist() == ["dog", "cat", "cat"]
    assert first["class"].tolist() == [1, 0, 0]
    assert len(second) == 0
    assert isinstance(found.xyxy[0], torch.Tensor)


def test_the_text_counts_classes_and_tells_the_time(found):
    lines = str(found).splitlines()
    assert lines[:2] == ["image 1/2: 50x100 2 cats, 1 dog", "image 2/2: 20x30 (no detections)"]
    assert lines[2].startswith("Speed: 1.0ms pre-process, 100.0ms inference, 10.0ms NMS per image at shape")
    assert repr(found).startswith("YOLOv5 <class 'models.detections.Detections'> instance\nimage 1/2")


def test_print_logs_the_text(found, capsys):
    found.print()
    assert "2 cats, 1 dog" in capsys.readouterr().err


def test_a_list_has_one_entry_for_each_picture(found):
    first, second = found.tolist()
    assert first.n == second.n == 1
    assert torch.equal(first.xyxy[0], found.xyxy[0])
    assert first.t == found.t


def test_rendering_draws_on_copies(found):
    before = found.ims[0]
    drawn = found.render()
    assert drawn is found.ims
    assert (before == RED).all()
    assert not (drawn[0] == RED).all()
    assert (drawn[1] == RED).all()


def test_saving_writes_every_picture_with_its_colours(found, tmp_path):
    found.save(save_dir=tmp_path / "exp")
    found.save(save_dir=tmp_path / "exp")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert written == ["exp/a.jpg", "exp/a_2.jpg", "exp2/a.jpg", "exp2/a_2.jpg"]
    bgr = cv2.imread(str(tmp_path / "exp" / "a_2.jpg"))
    np.testing.assert_allclose(bgr[10, 15], RED[::-1], atol=4)


def test_crops_are_cut_out_and_sorted_by_class(found, tmp_path):
    crops = found.crop(save_dir=tmp_path / "exp")
    assert [crop["label"] for crop in crops] == ["cat 0.40", "cat 0.50", "dog 0.90"]
    assert crops[2]["box"].tolist() == [10, 10, 30, 30]
    assert (crops[2]["conf"], crops[2]["cls"]) == (pytest.approx(0.9), 1)
    assert (crops[2]["im"] == RED[::-1]).all()
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert written == ["exp/crops/cat/a.jpg", "exp/crops/cat/a2.jpg", "exp/crops/dog/a.jpg"]


def test_crops_can_be_had_without_files(found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(found.crop(save=False)) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_class_name_cannot_lead_out_of_the_folder(found, tmp_path):
    found.names = {0: "../../cat", 1: ".."}
    found.crop(save_dir=tmp_path / "exp")
    assert {path.parent.parent for path in tmp_path.rglob("*.jpg")} == {tmp_path / "exp" / "crops"}


def test_showing_hands_the_pictures_to_the_viewer(found, monkeypatch):
    shown = []
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append((image.size, title)) or True)
    found.show()
    assert shown == [((100, 50), "a.jpg"), ((30, 20), "a.jpg")]


def test_showing_without_a_viewer_says_so(found, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)
    found.show()
    assert "use save() instead" in capsys.readouterr().err


def test_a_picture_that_claims_too_many_pixels_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match=r"a\.jpg cannot be read as a picture"):
        read_picture(claiming_jpeg(tmp_path / "a.jpg", 30000, 30000), "a")
