"""Image files: every format and kind of colour, upright, and complaints that name the file."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_media import claiming_jpeg, claiming_png, two_colours

from utils.base.image_io import exif_transpose, read_image, write_image


def test_what_cameras_write_behind_a_picture_does_no_harm(tmp_path):
    two_colours().save(tmp_path / "a.jpg")
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"SEFT and other data of the camera")
    assert read_image(tmp_path / "a.jpg").shape == (40, 60, 3)


def sixteen_bit(path, grey):
    bgr = np.asarray(two_colours())[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(path), bgr[..., 2] if grey else bgr)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "mpo"])
def test_every_format_keeps_its_colours(tmp_path, suffix):
    two_colours().save(tmp_path / f"a.{suffix}")
    left, right = read_image(tmp_path / f"a.{suffix}")[20, [5, -5]]
    assert (left.argmax(), right.argmax()) == (2, 0)


@pytest.mark.parametrize(
    ("mode", "name"), [("RGBA", "a.png"), ("RGBA", "a.webp"), ("P", "a.png"), ("CMYK", "a.jpg"), ("CMYK", "a.tif")]
)
def test_every_kind_of_colour_becomes_bgr(tmp_path, mode, name):
    two_colours().convert(mode).save(tmp_path / name)
    im = read_image(tmp_path / name)
    assert (im.shape, im.dtype) == ((40, 60, 3), np.uint8)
    assert im[20, 5].argmax() == 2
    assert im[20, 5].max() > 200
    assert im[20, -5].argmax() == 0


@pytest.mark.parametrize(("mode", "name"), [("L", "a.jpg"), ("LA", "a.png"), ("1", "a.png")])
def test_grey_pictures_get_three_channels(tmp_path, mode, name):
    Image.new("L", (60, 40), 255).convert(mode).save(tmp_path / name)
    im = read_image(tmp_path / name)
    assert im.shape == (40, 60, 3)
    assert im.min() > 250


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    sixteen_bit(tmp_path / f"a.{suffix}", grey=False)
    sixteen_bit(tmp_path / f"g.{suffix}", grey=True)
    assert read_image(tmp_path / f"a.{suffix}")[20, 5].tolist() == [0, 0, 255]
    assert read_image(tmp_path / f"g.{suffix}")[20, [5, -5], 0].tolist() == [255, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_rotated_photo_is_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    two_colours().save(tmp_path / f"a.{suffix}", exif=exif)
    im = read_image(tmp_path / f"a.{suffix}")
    assert im.shape == (60, 40, 3)
    assert (im[5, 20].argmax(), im[-5, 20].argmax()) == (2, 0)


def test_a_pil_photo_is_turned_upright():
    image = two_colours()
    image.getexif()[0x0112] = 6
    assert exif_transpose(image).size == (40, 60)
    assert exif_transpose(two_colours()).size == (60, 40)


def test_a_write_that_fails_names_the_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written.*a\.jpg"):
        write_image(tmp_path / "file" / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"cannot be written as '\.dng'"):
        write_image(tmp_path / "a.dng", np.zeros((4, 4, 3), np.uint8))


def test_a_picture_that_claims_too_many_pixels_is_refused_with_its_size(tmp_path):
    for path in (claiming_jpeg(tmp_path / "a.jpg", 30000, 30000), claiming_png(tmp_path / "a.png", 30000, 30000)):
        with pytest.raises(OSError, match=rf"{path} is too large: .* 900 megapixels, at most 200 are read"):
            read_image(path)
    with pytest.raises(OSError, match=r"a\.jpg cannot be read: the file does not end as it should"):
        read_image(tmp_path / "a.jpg", max_pixels=1e9)


def test_a_truncated_picture_that_is_just_small_enough_is_refused_too(tmp_path):
    with pytest.raises(OSError, match=r"a\.jpg cannot be read: the file does not end as it should"):
        read_image(claiming_jpeg(tmp_path / "a.jpg", 19000, 10000))


def test_the_environment_sets_the_limit_as_it_does_for_opencv(tmp_path, monkeypatch):
    two_colours().save(tmp_path / "a.png")
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "2399")
    with pytest.raises(OSError, match=r"too large.*OPENCV_IO_MAX_IMAGE_PIXELS=2400"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "2400")
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)


def test_a_name_that_no_file_can_have_is_an_error_of_the_system_kind():
    with pytest.raises(OSError, match="no path of a file"):
        read_image("a\0b.jpg")
