"""A page to look through with a browser: every image with its maps, and the table, in one file that needs no network.

Report    collects what there is to see, one image after the other, in small and encoded
page/     the template, the styles and the script of the page

An answer here is an `Explanation` or a `Comparison`, of which nothing but the values is asked for. Whatever comes from
outside, such as names of classes and files, is text to the page: it is escaped, or JSON whose `<`, `>` and `&` are.
"""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from itertools import takewhile
from math import isfinite
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from explainer.detectors.predictions import GIVEN, MISS, NEAR_MISS
from explainer.files.results import Page
from explainer.pictures.drawing import BLUE, EVIDENCE, RED, TONES, Style, colour_table, tone_curve
from explainer.pictures.sheets import resized

FILES = Path(__file__).with_name("page")
# Longer sides in pixels. A detection's own map is read from few cells, so that more pixels show no more of it.
PHOTOGRAPH_SIDE, OWN_MAP_SIDE = 1280, 320
# Of JPEG and PNG: a stronger compression of maps saves a tenth and takes ten times as long.
QUALITY, COMPRESSION = 85, 6
MOST_IMAGES = 1000
# To choose from on the page, after that of the run.
COLOUR_MAPS = ("plasma", "viridis", "magma", "cividis", "turbo", "gray")
PASSWORD = re.compile(r"(:/{1,2})[^/@\s]+@")
FIGURES = 5


@dataclass(frozen=True)
class Column:
    """A column of a table on the page.

    kind    "text", "number", "share", "yes" for yes or no, or "mean": a mean with the ends of its interval
    digits  after the point
    about   what it says, "" where the title tells
    filter  whether rows can be chosen by its values
    """

    name: str
    title: str
    kind: str = "text"
    digits: int = 0
    about: str = ""
    filter: bool = False


COLUMNS = (
    Column("image", "image"),
    Column("name", "class", filter=True),
    Column(
        "outcome",
        "outcome",
        about="by the labels: a hit, a false alarm or a miss; or a given box; or, where nothing was detected, the best "
        "prediction below the threshold",
        filter=True,
    ),
    Column(
        "confidence", "confidence", "number", 2, "of the detection; of a miss or a given box what the model gives it"
    ),
    Column("energy_in_box", "energy in box", "share", 0, "share of the map that lies inside the detection's box"),
    Column("energy_in_mask", "energy in mask", "share", 0, "share of the map that lies inside the detection's mask"),
    Column("enrichment", "enrichment", "number", 1, "how many times more than of an even map: 1 is chance"),
    Column("peak_in_box", "peak in box", "yes", 0, "whether the map is highest inside the box"),
    Column("stride", "stride", "number", 0, "pixels of the network's input per cell, where the detection came from"),
    Column("method", "method", filter=True),
    Column("layer", "layer"),
    Column("model", "model", filter=True),
    Column("note", "note"),
)
# Left out where no row has a value.
MAY_BE_EMPTY = ("energy_in_mask", "outcome", "model", "note")


class Report:
    """A page in the making: what it shows, and the facts by which a reader can repeat the run.

    page: keeps the encoded pictures, and writes. facts: lists of texts by what they tell. about: stands below the title.
    """

    def __init__(
        self, page: Page, *, title: str, about: str, facts: Mapping[str, Sequence[str]], style: Style | None = None
    ):
        self.page, self.title, self.about, self.facts, self.style = page, title, about, facts, style or Style()
        self.left_out = 0
        self._images: list[dict] = []
        self._paths: list[Path] = []
        self._rows: list[dict] = []
        self._tables: list[dict] = []
        self._counts: Counter[str] = Counter()

    def add(self, frame, answer, rows: Iterable[Mapping[str, object]]) -> None:
        """Keep what there is to see of one image; `rows` are those of the answer's table. Beyond 1,000 it is left out."""
        if len(self.page) == MOST_IMAGES:
            self.left_out += 1
            return
        size = fitting(answer.image_rgb.shape[:2], PHOTOGRAPH_SIDE)
        maps, panels = EmbeddedMaps(answer.image_rgb.shape[:2]), []
        for explanation in answer.explanations:
            has_sign, entries = explanation.has_sign, explanation.detections
            whole = maps.add(resized(explanation.shown, size), has_sign, [entry.detection for entry in entries])
            own = [
                maps.add(entry.shown_at(fitting(size, OWN_MAP_SIDE)), has_sign, [entry.detection]) for entry in entries
            ]
            panels.append({"whole": whole, "own": own})
        photograph = data_url(resized(answer.image_rgb, size), ".jpg")
        self._rows += linked_rows(len(self.page), answer, iter(rows))
        self._count(answer)
        height, width = answer.image_rgb.shape[:2]
        self._images.append(
            {
                "number": frame.number,
                "size": [width, height],
                "shown": [size[1], size[0]],
                "notes": list(answer.notes),
                "panels": list(described(answer)),
            }
        )
        self._paths.append(frame.path)
        self.page.add(embedded({"photograph": photograph, "maps": maps.urls, "panels": panels}))

    def add_picture(self, title: str, picture_rgb: np.ndarray, suffix: str = ".png") -> None:
        """Keep a picture that stands by itself, encoded as files with this suffix are."""
        height, width = picture_rgb.shape[:2]
        self._images.append({"number": 0, "title": title, "size": [width, height], "notes": [], "panels": []})
        self._paths.append(Path(title))
        self.page.add(embedded({"picture": data_url(picture_rgb, suffix)}))

    def add_table(self, title: str, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
        """Keep a table; each row has a value for each column, and where the column is of kind "mean" three."""
        entries = [{"cells": [as_json(cell) for cell in row]} for row in rows]
        self._tables.append({"title": title, "columns": [asdict(column) for column in columns], "rows": entries})

    def write(self, *, warnings: Sequence[str] = (), remarks: Sequence[str] = ()) -> tuple[Path, Path | None]:
        """Write the page and return its path, and that of the folder with its pictures, None where they lie in the page.

        warnings: what is not in it. remarks: what its figures mean.
        """
        warnings = list(warnings)
        if self.left_out:
            warnings.append(
                f"the page holds {MOST_IMAGES} images; {self.left_out} more are in the table of the run alone."
            )
        columns = [column for column in COLUMNS if column.name not in MAY_BE_EMPTY or self._some_have(column.name)]
        names, tables = short_names(self._paths), list(self._tables)
        for image, name in zip(self._images, names, strict=True):
            image.setdefault("title", f"{name}, frame {image['number']}" if image["number"] else name)
        if self._rows:
            tables.append(detections_table(columns, self._rows, self._images))

        def render(parts: Iterable[str], beside: str) -> Iterator[str]:
            data = {"images": self._images, "tables": tables, "beside": beside, **self._colours()}
            return page_text(
                parts=map(Markup, parts),
                data=Markup(embedded(data)),
                local=bool(beside),
                title=self.title,
                summary=" · ".join(filter(None, (words_of(self._counts), self.about))),
                facts={term: [without_password(entry) for entry in entries] for term, entries in self.facts.items()},
                warnings=warnings,
                remarks=remarks,
                columns=columns,
                answers=bool(self._rows),
                pictures=len(self._images),
                opacity=round(100 * self.style.alpha),
                tones=dict.fromkeys((self.style.tone, *TONES)),
            )

        return self.page.write(render)

    def _some_have(self, name: str) -> bool:
        """Return whether some row says something in a column."""
        return any(row["values"].get(name) not in (None, "") for row in self._rows)

    def _count(self, answer) -> None:
        """Count an image, and what was found in it by each of the models, and what became of that."""
        self._counts["image"] += 1
        for found in answer.found.values():
            self._counts.update(detection.outcome or "detection" for detection in found)

    def _colours(self) -> dict[str, object]:
        """Return the tables of colours, 256 x RGB each, by name, that of the run first; and the two of maps with a sign."""
        names = dict.fromkeys((self.style.colormap, *COLOUR_MAPS))
        return {"colours": {name: base64_of(colour_table(name)) for name in names}, "signed": [RED, BLUE]}


class EmbeddedMaps:
    """The maps of one image of a size (height, width) as pictures to embed.

    Each is kept once: methods without gradients have one map for many detections.
    """

    def __init__(self, image_size: tuple[int, int]):
        self._image_size = image_size
        self._numbers: dict[str, int] = {}

    @property
    def urls(self) -> list[str]:
        """Grey pictures as `data:` addresses."""
        return list(self._numbers)

    def add(self, shown: np.ndarray, has_sign: bool, detections: Sequence) -> dict[str, object] | None:
        """Keep a map (h, w) in 0..1, or -1..1 if it has a sign; return its number, and the tone by which it shows detections.

        None for an empty one.
        """
        if not shown.any():
            return None
        (height, width), (high, wide) = self._image_size, shown.shape
        shrinkage = np.float32([wide / width, high / height] * 2)
        curve = tone_curve(shown, EVIDENCE, [found.xyxy * shrinkage for found in detections])
        number = self._numbers.setdefault(data_url(grey(shown, has_sign), ".png"), len(self._numbers))
        return {"map": number, "curve": base64_of(curve * 255 + 0.5)}


def grey(shown: np.ndarray, has_sign: bool) -> np.ndarray:
    """Return a map as 256 steps of grey, uint8 (h, w): 0..1 becomes 0..255; with a sign -1..1 becomes 1..255, zero is 128."""
    scale, zero = (127, 128) if has_sign else (255, 0)
    return np.uint8(np.clip(np.rint(shown * np.float32(scale) + zero), 0, 255))


def data_url(picture: np.ndarray, suffix: str) -> str:
    """Return an RGB image, uint8 (h, w, 3), or a grey one (h, w) as a `data:` address."""
    import cv2

    kind, how = {
        ".jpg": ("jpeg", (cv2.IMWRITE_JPEG_QUALITY, QUALITY)),
        ".png": ("png", (cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION)),
    }[suffix]
    encoded = cv2.imencode(suffix, picture[..., ::-1] if picture.ndim == 3 else picture, how)[1]
    return f"data:image/{kind};base64,{base64_of(encoded)}"


def base64_of(values: np.ndarray) -> str:
    """Return bytes as base64."""
    return b64encode(values.astype(np.uint8).tobytes()).decode("ascii")


def fitting(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return a size (height, width) made so small that neither is longer than `side`."""
    scale = min(1, side / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def described(answer) -> Iterator[dict[str, object]]:
    """Yield what there is to say about each picture of an answer: its title, the model, whether the map has a sign."""
    by_model = getattr(answer, "by_model", ({"": answer},))
    several_layers = getattr(answer, "layers", 1) > 1
    for answers in by_model:
        for title, explanation in answers.items():
            way = title if several_layers else explanation.method
            yield {
                "title": f"{explanation.model}: {way}" if explanation.model else way,
                "model": explanation.model,
                "sign": explanation.has_sign,
                "notes": list(explanation.notes),
            }


def linked_rows(image: int, answer, rows: Iterator[Mapping[str, object]]) -> Iterator[dict]:
    """Yield the rows of an answer, each with the numbers of its image, its picture there and its detection, and its box."""
    for panel, explanation in enumerate(answer.explanations):
        for index, entry in enumerate(explanation.detections):
            box = [round(side, 1) for side in entry.detection.xyxy.tolist()]
            at, found = [image, panel, index], entry.detection.was_found
            yield {"at": at, "box": box, "found": found, "values": next(rows)}
        if not explanation.detections:
            yield {"at": [image, panel, None], "values": next(rows)}


def detections_table(columns: Sequence[Column], rows: Iterable[dict], images: Sequence[dict]) -> dict[str, object]:
    """Return the table of all detections for the page."""
    entries = []
    for row in rows:
        values = row["values"] | {"image": images[row["at"][0]]["title"]}
        link = {name: row[name] for name in ("at", "box", "found") if name in row}
        entries.append(link | {"cells": [as_json(values.get(column.name)) for column in columns]})
    return {"title": "Detections", "columns": [asdict(column) for column in columns], "rows": entries, "linked": True}


def as_json(value: object) -> object:
    """Return a value as JSON knows it: numbers short, None where there is none or it is not finite."""
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{FIGURES}g}") if isfinite(value) else None
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the paths without the folders that all of them share, and without a password in the address of a stream."""
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    shared = sum(1 for _ in takewhile(lambda folders: len(set(folders)) == 1, levels))
    return [without_password("/".join(path.parts[shared:])) for path in paths]


def without_password(text: str) -> str:
    """Return a text whose addresses name no user and no password."""
    return PASSWORD.sub(r"\1***@", text)


def words_of(counts: Counter) -> str:
    """Return in words how many images there are, and what was found in them."""
    plurals = {MISS: "misses", GIVEN: "given boxes", NEAR_MISS: NEAR_MISS}
    words = [f"{n} {name if n == 1 else plurals.get(name, name + 's')}" for name, n in counts.items()]
    return ", ".join(words)


def embedded(value: object) -> str:
    """Return a value as JSON in ASCII that can stand in a script of a page: no `<`, `>`, `&` and no `'` are left in it."""
    return str(htmlsafe_json_dumps(value, allow_nan=False, separators=(",", ":")))


@cache
def page_file(name: str) -> str:
    """Return the text of a file of the page."""
    return (FILES / name).read_text(encoding="utf-8")


def page_text(*, local: bool, **values) -> Iterator[str]:
    """Yield the text of the page in pieces, given what the template asks for. local: whether scripts lie beside it."""
    environment = Environment(
        loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css, script = page_file("report.css"), page_file("report.js")
    template = environment.get_template("report.html.jinja")
    return template.generate(css=Markup(css), script=Markup(script), policy=policy(css, script, local), **values)


def policy(css: str, script: str, local: bool) -> str:
    """Return what a browser lets the page do: its own style and script, pictures in it, and nothing from elsewhere."""
    own = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}'" for text in (css, script)]
    scripts = f"{own[1]} 'self' file:" if local else own[1]
    return f"default-src 'none'; img-src data:; style-src {own[0]}; script-src {scripts}; base-uri 'none'; form-action 'none'"
