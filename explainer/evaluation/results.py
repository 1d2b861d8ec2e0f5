"""What an evaluation leaves on disk: its options and a row for each detection, and at the end tables and pictures.

A run that was stopped goes on in the same folder: what it had finished is kept.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.evaluation.summary import FIGURES
from explainer.files.results import (
    OPTIONS,
    GrowingTable,
    Page,
    as_utf8,
    csv_bytes,
    free_name,
    from_cells,
    plain,
    write_options,
    write_picture,
    written_whole,
)
from explainer.files.sources import read_yaml

IDENTITY = ("image", "row", "class", "name", "confidence", "x1", "y1", "x2", "y2", "stride", "method", "layer", "read")
CURVES = ("deletion_curve", "insertion_curve")
# How many rows an image has by one contender: fewer are there if the run was stopped while it wrote them.
TOGETHER = "together"
DETECTION_COLUMNS = (*IDENTITY, *FIGURES, *CURVES, TOGETHER)
TABLE = "detections.csv"


class EvaluationResults:
    """The folder of one evaluation, made when it is entered; leaving it closes the table of detections.

    finished  for each image, as the table names it, the contenders, as (method, layer), whose rows are there already;
              `resumes` keeps them
    """

    def __init__(self, folder: Path, options: Evaluation, *, resumes: bool = False):
        self.folder, self.options, self.resumes = folder, options, resumes
        self.finished: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._count, self._taken = 0, set()
        # The paths of images whose name is no UTF-8, by what the table calls them.
        self._paths: dict[str, str] = {}

    def __enter__(self) -> "EvaluationResults":
        self.folder.mkdir(parents=True, exist_ok=True)
        write_options(self.folder, asdict(self.options))
        kept = complete_rows(self.folder / TABLE) if self.resumes else []
        for row in kept:
            self.finished[row["image"]].add((row["method"], row["layer"]))
        write_rows(self.folder / TABLE, kept)
        self._count = len(kept)
        self._table = GrowingTable(self.folder / TABLE, DETECTION_COLUMNS)
        return self

    def __exit__(self, kind, *error) -> None:
        self._table.close()
        # What ends the run is not to be hidden by what comes of it.
        if kind is None:
            self._table.check_there()

    def finished_of(self, image: Path) -> set[tuple[str, str]]:
        """Return the contenders whose rows of an image are there already."""
        self._paths[as_utf8(str(image))] = str(image)
        return self.finished[as_utf8(str(image))]

    def add(self, image: Path, rows: list[dict]) -> None:
        """Write the rows of an image by one contender; they are on disk when this returns, or none of them is."""
        self._paths[as_utf8(str(image))] = str(image)
        common = {"image": str(image), TOGETHER: len(rows)}
        self._table.append(common | {name: as_text(value) for name, value in row.items()} for row in rows)
        self._count += len(rows)

    def table(self):
        """Return all rows so far as a DataFrame; UsageError where nothing was detected.

        OSError where the table does not hold what was written, as after a full disk.
        """
        import pandas as pd

        path = self.folder / TABLE
        held = len(complete_rows(path))
        if held != self._count:
            raise OSError(
                f"{path} holds {held} of the {self._count} rows that were written; make room on the disk and go on with "
                f"--resume {self.folder}"
            )
        # Names are text, whatever they look like; only a figure can be missing.
        texts = dict.fromkeys(("method", "layer", "read", "name"), str)
        missing = {name: [""] for name in FIGURES}
        rows = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=missing)
        if rows.empty:
            threshold = self.options.conf_thres
            hint = "; try a new run with a lower --conf-thres" if threshold > 0 else ""
            raise UsageError(f"nothing was detected above confidence {threshold} in --data '{self.options.data}'{hint}")
        rows = rows.assign(**{name: rows[name].map(without_mark) for name in ("image", *texts)})
        # As objects: a column of text, where pandas keeps it by pyarrow, takes no name that is no UTF-8.
        return rows.assign(image=pd.Series([self._paths.get(name, name) for name in rows["image"]], dtype=object))

    def save_text(self, name: str, text: str) -> None:
        """Write a text file."""
        with written_whole(self.folder / name) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")

    def save_picture(self, name: str, picture_rgb: np.ndarray) -> None:
        """Write a picture in the format of its suffix; OSError if that fails."""
        self._table.check_there()
        suffix = Path(name).suffix
        write_picture(self.folder / free_name(name.removesuffix(suffix), suffix, self._taken), picture_rgb)

    def page(self) -> Page:
        """Return report.html of this evaluation in the making."""
        return Page(self.folder)


def without_mark(text: str) -> str:
    """Return a text of the table as it was before it was marked as no formula."""
    return from_cells({"": text})[""]


def as_text(value: object) -> object:
    """Return a value as the table writes it: numbers short, curves as numbers with blanks between them."""
    if isinstance(value, np.ndarray):
        return " ".join(format(entry, ".4f") for entry in value)
    return format(value, ".6g") if isinstance(value, float) else value


def complete_rows(path: Path) -> list[dict]:
    """Return the rows of the units of a table that are whole; none where there is no table.

    Of a unit that a stopped run, or a full disk, cut anywhere no row is returned: it is measured again. UsageError where the
    table is not one of an evaluation.
    """
    if not path.exists():
        return []
    text = whole_lines(path.read_bytes()).decode("utf-8-sig", errors="replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if text and tuple(reader.fieldnames or ()) != DETECTION_COLUMNS:
        raise UsageError(f"{path} has other columns than this version writes; evaluate anew, without --resume")
    units: dict[tuple, list[dict]] = defaultdict(list)
    for row in readable(reader):
        units[unit_of(row)].append(row)
    return [from_cells(row) for rows in units.values() if is_whole(rows) for row in rows]


def whole_lines(data: bytes) -> bytes:
    """Return the bytes up to the last end of a line: a number that was cut short is still a number."""
    return data[: data.rfind(b"\n") + 1]


def readable(rows: Iterable[dict]) -> Iterator[dict]:
    """Yield rows up to the first that is no CSV, such as one whose cell never ends."""
    try:
        yield from rows
    except csv.Error:
        return


def is_whole(unit: list[dict]) -> bool:
    """Return whether the rows of a unit are as many as each of them says, and none lacks a cell."""
    return all(row[TOGETHER] == str(len(unit)) and None not in row for row in unit)


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a table of these rows in place of the one that is there, which stays until the new one is complete."""
    with written_whole(path) as part:
        part.write_bytes(csv_bytes(DETECTION_COLUMNS, rows, header=True))


def unit_of(row: dict) -> tuple:
    """Return what is written at once: an image by a contender."""
    return row["image"], row["method"], row["layer"]


def kept_options(path: Path) -> Evaluation:
    """Return the options that a run kept; UsageError, naming the file, where it is damaged."""
    content = read_yaml(path)
    try:
        return Evaluation(**content)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"'{path}' holds no options of an evaluation ({error}); evaluate anew, without --resume"
        ) from error


def resumed(options: Evaluation) -> tuple[Evaluation, Path]:
    """Return the options and the folder of the run to go on with; UsageError where there is none, or others are asked for."""
    folder = Path(options.resume)
    if not (folder / OPTIONS).is_file():
        raise UsageError(f"--resume '{folder}' holds no {OPTIONS}; give the folder of an evaluation that was stopped")
    kept = kept_options(folder / OPTIONS)
    usual, given = asdict(Evaluation()), asdict(options)
    # A page of what was measured, and a cluster to measure on, can be asked for at any time. To trust is no option that a
    # file can give.
    free = ("resume", "report", "trust", "ray", "workers", "gpus_per_worker")
    others = [n for n in given if n not in free and given[n] != usual[n] and plain(given[n]) != plain(asdict(kept)[n])]
    if others:
        raise UsageError(f"--resume goes on with the options of '{folder}'; leave --{others[0].replace('_', '-')} out")
    cluster = {name: getattr(options, name) for name in ("ray", "workers", "gpus_per_worker")}
    return replace(kept, report=kept.report or options.report, trust=options.trust, **cluster), folder
