"""Drawing on pictures, cutting out of them, pictures of feature maps, and figures of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from utils.base.boxes import clip_boxes, xywh2xyxy, xyxy2xywh
from utils.base.image_io import write_image
from utils.base.logger import LOGGER
from utils.base.paths import increment_path, naming_failed_writes, writing_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Color = tuple[int, int, int]

FEATURE_COLUMNS = 8
DOTS_PER_INCH = 200

# Neighbours differ clearly, and white letters can be read on every one.
# fmt: off
PALETTE = (
    "d7263d", "1b7fc4", "2f8f2f", "e0700a", "7a3fbf", "0a8f8f", "c2379b", "8a6a00", "3b4cc0", "c4501b",
    "5a7d0c", "a0145a", "00799e", "b03a2e", "5f4b8b", "18865b", "d4006a", "6b5b00", "2456e6", "8c3b1a",
)
# fmt: on


class Colors:
    """A palette that begins again after its last colour.

    Attributes:
        palette: the colours as (red, green, blue), 0..255; n: their number.
    """

    def __init__(self) -> None:
        self.palette: list[Color] = [self.hex2rgb(h) for h in PALETTE]
        self.n = len(self.palette)

    def __call__(self, i: int, bgr: bool = False) -> Color:
        """Return colour number `i` as (red, green, blue), or in the order of OpenCV with `bgr`."""
        color = self.palette[int(i) % self.n]
        return color[::-1] if bgr else color

    @staticmethod
    def hex2rgb(h: str) -> Color:
        """Return (red, green, blue) of a hexadecimal colour such as `ff8800` or `#ff8800`."""
        red, green, blue = bytes.fromhex(h.removeprefix("#"))
        return red, green, blue


colors = Colors()


class Annotator:
    """Draws boxes, labels and masks on one picture.

    A numpy picture is drawn on in place, with OpenCV; with `pil`, or when the labels are not plain ASCII, which OpenCV
    before 5 cannot write, on a copy with PIL. `result()` returns the picture either way. Colours are given in the
    picture's own order of channels.

    Attributes:
        im: the picture, a numpy array or (with PIL) an Image; lw: width of lines in pixels.
    """

    def __init__(
        self,
        im: np.ndarray | Image.Image,
        line_width: int | None = None,
        font_size: int | None = None,
        font: str = "Arial.ttf",
        pil: bool = False,
        example: str = "abc",
    ) -> None:
        """Take a (H, W, 3) uint8 array or a PIL image.

        Args:
            im: the picture.
            line_width: of boxes, pixels; by default it fits the picture.
            font_size: of PIL's letters, pixels; by default it fits the picture.
            font: a TrueType file; where it is not found, DejaVu Sans, which has no Chinese, Japanese or Korean.
            pil: draw with PIL in any case.
            example: all labels that will be written, to see which letters they need.

        Raises:
            ValueError: for an array of another shape, or one that OpenCV cannot draw on.
        """
        self.pil = pil or isinstance(im, Image.Image) or not str(example).isascii()
        if isinstance(im, np.ndarray):
            _check_picture(im, in_place=not self.pil)
        width, height = im.size if isinstance(im, Image.Image) else (im.shape[1], im.shape[0])
        self.lw = line_width or max(round((width + height + 3) / 2 * 0.003), 2)
        if self.pil:
            self.im = im if isinstance(im, Image.Image) else Image.fromarray(im)
            self.draw = ImageDraw.Draw(self.im)
            self.font = _load_font(font, font_size or max(round((width + height) / 2 * 0.035), 12))
        else:
            self.im = im
            self.font_scale, self.font_thickness = self.lw / 3, max(self.lw - 1, 1)

    def box_label(
        self,
        box: Sequence[float] | torch.Tensor | np.ndarray,
        label: str = "",
        color: Color = (128, 128, 128),
        txt_color: Color = (255, 255, 255),
    ) -> None:
        """Draw a box (xyxy, pixels), and a label over its top left corner, or inside where there is no room above."""
        left, top, right, bottom = (int(v) for v in box[:4])
        self.rectangle((left, top, right, bottom), outline=color, width=self.lw)
        if label:
            self._label(left, top, label, (color, txt_color))

    def _label(self, left: int, top: int, label: str, box_and_text_color: tuple[Color, Color]) -> None:
        box_color, text_color = box_and_text_color
        width, height = self._text_size(label)
        picture_width, _ = self.im.size if self.pil else self.im.shape[1::-1]
        left = max(0, min(left, picture_width - width))
        top = top - height if top >= height else max(top, 0)
        self.rectangle((left, top, left + width, top + height), fill=box_color)
        self._write((left, top), label, text_color)

    def _text_size(self, text: str) -> tuple[int, int]:
        """Return width and height of a line of text with a small margin."""
        if self.pil:
            left, _, right, _ = self.font.getbbox(text)
            ascent, descent = self.font.getmetrics()
            return int(right - left) + 2, ascent + descent
        (width, height), baseline = cv2.getTextSize(text, 0, self.font_scale, self.font_thickness)
        return width, height + baseline + 2

    def _write(self, top_left: tuple[int, int], text: str, color: Color) -> None:
        x, y = top_left
        if self.pil:
            self.draw.text((x + 1, y), text, fill=tuple(color), font=self.font)
            return
        (_, height), _ = cv2.getTextSize(text, 0, self.font_scale, self.font_thickness)
        origin = (x, y + height + 1)
        cv2.putText(self.im, text, origin, 0, self.font_scale, color, self.font_thickness, cv2.LINE_AA)

    def rectangle(
        self, xy: Sequence[float], fill: Color | None = None, outline: Color | None = None, width: int = 1
    ) -> None:
        """Draw a rectangle (x1, y1, x2, y2), filled and outlined with the colours that are given."""
        left, top, right, bottom = (int(v) for v in xy)
        if self.pil:
            corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
            self.draw.rectangle(corners, fill=fill, outline=outline, width=width)
            return
        if fill is not None:
            cv2.rectangle(self.im, (left, top), (right, bottom), fill, -1)
        if outline is not None:
            cv2.rectangle(self.im, (left, top), (right, bottom), outline, width)

    def text(self, xy: tuple[float, float], text: str, txt_color: Color = (255, 255, 255), anchor: str = "top") -> None:
        """Write a line of text with its left top corner at `xy`, or its left bottom corner with `anchor="bottom"`."""
        x, y = (int(v) for v in xy)
        if anchor == "bottom":
            y -= self._text_size(text)[1]
        self._write((x, y), text, txt_color)

    def masks(self, masks: torch.Tensor | np.ndarray, colors: Sequence[Color], alpha: float = 0.5) -> None:
        """Tint the pixels of every mask (n, H, W), not 0 = inside, with its colour; `alpha` is the colour's share."""
        masks = np.asarray(masks.cpu() if isinstance(masks, torch.Tensor) else masks).astype(bool)
        picture = np.array(self.im) if self.pil else self.im
        for mask, color in zip(masks, colors, strict=True):
            picture[mask] = (picture[mask] * (1 - alpha) + np.asarray(color) * alpha).astype(np.uint8)
        if self.pil:
            self.im.paste(Image.fromarray(picture))

    def result(self) -> np.ndarray:
        """Return the annotated picture (H, W, 3) uint8."""
        return np.asarray(self.im)


def save_one_box(
    xyxy: torch.Tensor | Sequence[float],
    im: np.ndarray,
    file: str | Path = Path("im.jpg"),
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
    BGR: bool = False,  # noqa: N803
    save: bool = True,
) -> np.ndarray:
    """Cut a box out of a picture with a little of what is around it; return it as (h, w, 3) BGR.

    Args:
        xyxy: the box in pixels.
        im: (H, W, 3) uint8, BGR or else RGB as `BGR` says.
        file: where it is saved as JPEG; where that exists, under the next free number.
        gain: the box is made this many times larger, then
        pad: wider and higher by this many pixels in all.
        square: make it as wide as high first.
        BGR: the order of channels in `im`.
        save: whether to save it.

    Raises:
        OSError: naming the file, when it cannot be written.
    """
    box = xyxy2xywh(torch.as_tensor(xyxy, dtype=torch.float32).detach().cpu().view(-1, 4)[:1])
    if square:
        box[:, 2:] = box[:, 2:].max()
    box[:, 2:] = box[:, 2:] * gain + pad
    height, width = im.shape[:2]
    left, top, right, bottom = clip_boxes(xywh2xyxy(box), (height, width))[0].int().tolist()
    # A box outside the picture still leaves a pixel to save.
    left, top = min(left, width - 1), min(top, height - 1)
    crop = im[top : max(bottom, top + 1), left : max(right, left + 1)]
    crop = np.ascontiguousarray(crop if BGR else crop[..., ::-1])
    if save:
        write_image(increment_path(Path(file).with_suffix(".jpg")), crop)
    return crop


def _check_picture(im: np.ndarray, *, in_place: bool) -> None:
    if im.ndim != 3 or im.shape[2] != 3 or im.dtype != np.uint8:
        raise ValueError(f"picture has shape {im.shape} and dtype {im.dtype}; needed is (H, W, 3) uint8")
    if in_place and not (im.flags.c_contiguous and im.flags.writeable):
        raise ValueError("picture cannot be drawn on in place; pass np.array(im, order='C'), a copy that can")


def _load_font(font: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font, or DejaVu Sans, which comes with matplotlib."""
    try:
        return ImageFont.truetype(font, size)
    except OSError:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def feature_visualization(
    x: torch.Tensor, module_type: str, stage: int, n: int = 32, save_dir: str | Path = "runs/detect/exp"
) -> Path | None:
    """Save the first `n` channels of a feature map (B, C, H, W) as a grey picture, and the whole first item as .npy.

    Heads and maps of one pixel's height or width have nothing to show. Each channel is stretched to its own range.
    Returns the path `save_dir/stage{stage}_{type}_features.png`, or None where nothing was saved.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or min(x.shape[2:]) < 2:
        return None
    channels = x[0].detach().float().cpu().numpy()
    path = Path(save_dir) / f"stage{stage}_{module_type.rpartition('.')[2]}_features.png"
    with naming_failed_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    LOGGER.info("Saving %s... (%d/%d)", path, min(n, len(channels)), len(channels))
    # encode and write apart: a failed write then raises instead of returning False
    with writing_whole(path) as part:
        part.write_bytes(cv2.imencode(".png", tile(channels[:n]))[1].tobytes())
    with writing_whole(path.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, channels)
    return path


def tile(channels: np.ndarray, columns: int = FEATURE_COLUMNS) -> np.ndarray:
    """Lay maps (n, H, W), each stretched to 0..255, side by side in rows of `columns`: (rows*H, columns*W) uint8."""
    low = channels.min((1, 2), keepdims=True)
    span = np.maximum(channels.max((1, 2), keepdims=True) - low, 1e-12)
    grey = ((channels - low) / span * 255).astype(np.uint8)
    blank = -len(grey) % columns
    grey = np.concatenate((grey, np.zeros((blank, *grey.shape[1:]), np.uint8)))
    rows = grey.reshape(-1, columns, *grey.shape[1:])
    return rows.transpose(0, 2, 1, 3).reshape(-1, columns * grey.shape[2])


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of that many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the suffix; OSError, naming the file, when it cannot be written."""
    with writing_whole(path) as part:
        figure.savefig(part, dpi=DOTS_PER_INCH, format=Path(path).suffix[1:])
