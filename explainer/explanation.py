"""The answer: what was detected in one image, and what in the image speaks for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from explainer.detectors.predictions import GIVEN, Detection
from explainer.files.results import Results, as_png, raw_arrays, save_answer
from explainer.files.sources import Frame
from explainer.maps.heatmaps import (
    Letterbox,
    heatmap_of,
    keep_hottest,
    keep_strongest,
    only_in_box,
    peak,
    pixels_in_box,
    signed_map_of,
)
from explainer.maps.measures import enrichment, peak_inside, share_inside
from explainer.pictures import sheets
from explainer.pictures.drawing import Style, draw_boxes, paint
from explainer.pictures.sheets import resized


@dataclass(frozen=True)
class Measures:
    """How a heatmap lies with respect to a detection; None where the heatmap is empty.

    energy_in_box  share of the heatmap's sum inside the box, 0..1
    energy_in_mask the share inside the detection's mask; None also where it has none
    peak           pixel (x, y) of the heatmap's highest value
    enrichment     energy_in_box divided by the box's share of the image: 1 is what an even map has
    peak_in_box    whether the peak lies inside the box
    """

    energy_in_box: float | None
    energy_in_mask: float | None
    peak: tuple[int, int] | None
    enrichment: float | None
    peak_in_box: bool | None


@dataclass(frozen=True)
class DetectionExplanation:
    """Why one detection is there, or why not.

    detection  what is explained
    layers     the names of the layers that the map was read from
    score      the logarithm of the explained value, summed over the items; for black-box methods the similarity, 0..1
    cams       one float32 map (h, w) per layer, in cells of that layer over the letterboxed input, or one that was
               merged from them; may be negative
    note       why the map is empty, or what is remarkable about a given box, or ""
    has_sign   whether what speaks against it was asked for, too
    renormalised    whether its heatmap is scaled inside the detection's box and blank outside
    keep_only_topk  how many percent of the heatmap's pixels keep their value, the hottest ones
    """

    detection: Detection
    layers: tuple[str, ...]
    score: float
    cams: tuple[np.ndarray, ...]
    letterbox: Letterbox
    note: str = ""
    has_sign: bool = False
    renormalised: bool = False
    keep_only_topk: float = 100

    @property
    def heatmap(self) -> np.ndarray:
        """The heatmap of this detection: float32 (H, W) in 0..1 at the size of the original image."""
        heatmap = self.heatmap_at(self.letterbox.image_size)
        if self.renormalised:
            heatmap = only_in_box(heatmap, self.detection.xyxy)
        return keep_hottest(heatmap, self.keep_only_topk)

    def heatmap_at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the heatmap at a size (height, width), before it is renormalised and before any pixel is left out."""
        return heatmap_of(list(self.cams), replace(self.letterbox, image_size=size))

    def shown_at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the map that pictures show, at a size (height, width): with its sign where that was asked for."""
        if self.renormalised:
            # A small box may hold no pixel at all of a small picture.
            return resized(self.heatmap, size)
        if self.has_sign:
            signed = signed_map_of(list(self.cams), replace(self.letterbox, image_size=size))
            return keep_strongest(signed, self.keep_only_topk)
        return keep_hottest(self.heatmap_at(size), self.keep_only_topk)

    @property
    def title(self) -> str:
        """What is said of the detection: what it is, how sure the model is, and where in the head it comes from."""
        return sheets.detection_title(self.detection)

    @property
    def signed(self) -> np.ndarray | None:
        """The map with its sign: float32 (H, W) in -1..1, positive for and negative against; None unless asked for."""
        return signed_map_of(list(self.cams), self.letterbox) if self.has_sign else None

    @property
    def mask(self) -> np.ndarray | None:
        """Which pixels the detection covers, bool (H, W); None where the model does not say, or predicted no such box."""
        return self.detection.mask

    @property
    def energy_in_box(self) -> float | None:
        """The share of the heatmap, as `heatmap_at` gives it, inside the detection's box; None where that is empty."""
        heatmap = self.heatmap_at(self.letterbox.image_size)
        return share_inside(heatmap, pixels_in_box(self.detection.xyxy, heatmap.shape))

    @property
    def energy_in_mask(self) -> float | None:
        """The share of that heatmap inside the detection's mask; None where there is no mask, or the heatmap is empty."""
        return self.measured().energy_in_mask

    def measured(self) -> Measures:
        """Return how the heatmap, as `heatmap_at` gives it, lies with respect to the detection's box."""
        heatmap = self.heatmap_at(self.letterbox.image_size)
        box = pixels_in_box(self.detection.xyxy, heatmap.shape)
        in_mask = None if self.mask is None else share_inside(heatmap, self.mask)
        return Measures(
            share_inside(heatmap, box), in_mask, peak(heatmap), enrichment(heatmap, box), peak_inside(heatmap, box)
        )

    def row(self) -> dict[str, object]:
        """Return what is known about this detection by column name; None where the heatmap is empty."""
        measured = self.measured()
        peak_x, peak_y = measured.peak or (None, None)
        return self.detection.columns() | {
            "layer": " ".join(self.layers),
            "score": self.score,
            "energy_in_box": measured.energy_in_box,
            "energy_in_mask": measured.energy_in_mask,
            "peak_x": peak_x,
            "peak_y": peak_y,
            "enrichment": measured.enrichment,
            "peak_in_box": measured.peak_in_box,
            "outcome": self.detection.outcome,
            "note": self.note,
        }


class Presentable:
    """An answer about one image, given what it looks like and what is known about it.

    image_rgb  the original image, uint8 (H, W, 3)
    """

    image_rgb: np.ndarray

    def overlay(self, style: Style | None = None) -> np.ndarray:
        """Return the picture that answers, RGB uint8."""
        raise NotImplementedError

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the table; one without a class, whose note says why, where nothing was detected."""
        raise NotImplementedError

    def further_pictures(self, style: Style, per_detection: bool) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield folder and name, and the picture, RGB uint8, of whatever else there is to see; one at a time."""
        raise NotImplementedError

    def raw_maps(self) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
        """Yield folder and name, and the arrays by name, of the raw maps."""
        raise NotImplementedError

    def pandas(self):
        """Return one row per detection as a DataFrame, with the columns of explanations.csv that concern one image."""
        import pandas as pd

        return pd.DataFrame([row for row in self.rows() if "class" in row])

    def save(
        self,
        folder: str | Path,
        *,
        name: str = "image.jpg",
        style: Style | None = None,
        per_detection: bool = False,
        save_npz: bool = False,
    ) -> Path:
        """Write what the command writes into a folder, which is made, and return the path of the picture.

        name: that of the picture, and of the image in the table, to which rows are appended; further pictures lie in a
        folder called like it. The keywords are those of the command. OSError if something cannot be written.
        """
        with Results(Path(folder)) as results:
            frame = Frame(Path(name), self.image_rgb, "")
            wanted = {"per_detection": per_detection, "arrays": save_npz}
            return save_answer(results, frame, self, style=style or Style(), pictures=True, **wanted).path

    def _repr_png_(self) -> bytes:
        """Return the picture as a notebook shows it."""
        return as_png(self.overlay())


@dataclass(frozen=True)
class Explanation(Presentable):
    """The answer for one image.

    image_rgb   the original image, uint8 (H, W, 3)
    heatmap     float32 (H, W) in 0..1: what speaks for the explained detections; zero everywhere if nothing does
    detections  one entry per explained detection, highest confidence first; misses after them, given boxes as given; where
                nothing was detected the near miss, whose outcome is "below threshold"
    per_class   the heatmap of each class by name; empty unless it was asked for
    notes       why there is nothing to see, one sentence each, and of black-box methods how many masks they took
    model       the name of the model, where there are several
    signed      float32 (H, W) in -1..1: what speaks for them and, negative, against; None unless it was asked for
    per_scale   by stride, the heatmap of what comes from each input of the head; empty unless it was asked for

    Where `signed` was asked for, the maps of classes and scales have a sign as well.
    """

    image_rgb: np.ndarray
    heatmap: np.ndarray
    detections: tuple[DetectionExplanation, ...]
    method: str
    items: tuple[str, ...]
    per_class: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    signed: np.ndarray | None = None
    per_scale: dict[int, np.ndarray] = field(default_factory=dict)
    model: str = ""

    def __post_init__(self):
        if self.image_rgb.dtype != np.uint8 or self.image_rgb.ndim != 3 or self.image_rgb.shape[2] != 3:
            raise ValueError(f"image_rgb is {self.image_rgb.dtype} {self.image_rgb.shape}, not uint8 (H, W, 3)")
        signed = {} if self.signed is None else {"signed": self.signed}
        for name, heatmap in {"all": self.heatmap, **signed, **self.per_class, **self.per_scale}.items():
            if heatmap.shape != self.image_rgb.shape[:2] or heatmap.dtype != np.float32:
                raise ValueError(f"heatmap '{name}' is {heatmap.dtype} {heatmap.shape} for {self.image_rgb.shape[:2]}")

    def overlay(self, style: Style | None = None, class_name: str | None = None) -> np.ndarray:
        """Return the photograph under its heatmap with the explained boxes, RGB uint8 (H, W, 3).

        class_name: show the map and the boxes of this class alone; it must be one of `per_class`.
        """
        style, shown = style or Style(), self.shown
        detections = [entry.detection for entry in self.detections]
        if class_name is not None:
            detections, shown = [found for found in detections if found.name == class_name], self.per_class[class_name]
        boxes = [found.xyxy for found in detections]
        return draw_boxes(paint(self.image_rgb, shown, style, boxes=boxes, has_sign=self.has_sign), detections, style)

    @property
    def has_sign(self) -> bool:
        """Whether pictures show what speaks against the detections, too."""
        return self.signed is not None

    @property
    def shown(self) -> np.ndarray:
        """The map that pictures show: the one with a sign where that was asked for, else the heatmap."""
        return self.heatmap if self.signed is None else self.signed

    @property
    def per_detection(self) -> sheets.Overlays:
        """The overlay of each detection by itself, RGB uint8 (H, W, 3), drawn when it is asked for."""
        return sheets.Overlays(self, Style())

    @property
    def found(self) -> dict[str, list[Detection]]:
        """What the model detected, and what it did not but was explained, by its name."""
        return {self.model: [entry.detection for entry in self.detections]}

    @property
    def explanations(self) -> tuple["Explanation"]:
        """This one; a comparison has several."""
        return (self,)

    def overlay_of(self, index: int, style: Style | None = None) -> np.ndarray:
        """Return the photograph under the heatmap of one detection, with its box, RGB uint8 (H, W, 3)."""
        return sheets.detection_overlay(self, index, style or Style())

    def contact_sheet(self, style: Style | None = None) -> np.ndarray:
        """Return small pictures on one sheet: the photograph with boxes, the whole heatmap, then each detection's own."""
        return sheets.contact_sheet(self, style or Style())

    def scales_sheet(self, style: Style | None = None) -> np.ndarray:
        """Return small pictures in a row: the photograph with boxes, then the map of what comes from each stride."""
        return sheets.scales_sheet(self, style or Style())

    def what_is_at(self, stride: int) -> str:
        """Return in words what was explained of one stride."""
        here = [entry.detection.was_found for entry in self.detections if entry.detection.stride == stride]
        words = {True: ("detection", "detections"), False: ("box", "boxes")}
        if here:
            counts = [(here.count(kind), words[kind]) for kind in words if kind in here]
            return ", ".join(f"{count} {several if count > 1 else one}" for count, (one, several) in counts)
        if self.per_scale[stride].any():
            return "all predictions"
        return "no box" if any(entry.detection.outcome == GIVEN for entry in self.detections) else "no detection"

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the table; one without a class, whose note says why, where nothing was detected."""
        common = {"model": self.model, "method": self.method, "item": "+".join(self.items)}
        for entry in self.detections:
            yield common | entry.row()
        if not self.detections:
            yield common | {"note": "; ".join(self.notes)}

    def further_pictures(self, style: Style, per_detection: bool) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield names and pictures, one at a time: each class and the scales if asked for, each detection, a sheet of all."""
        for name in self.per_class:
            yield (name,), self.overlay(style, name)
        if self.per_scale:
            yield ("scales",), self.scales_sheet(style)
        if per_detection:
            for entry, picture in zip(enumerate(self.detections), sheets.Overlays(self, style), strict=True):
                index, found = entry[0], entry[1].detection
                yield (f"{index}_{found.name}_{found.confidence:.2f}",), picture
            yield ("sheet",), self.contact_sheet(style)

    def raw_maps(self) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
        """Yield the raw maps, in cells of their layers, as `raw_arrays` lists them."""
        yield ("maps",), raw_arrays(self.heatmap, self.detections)
