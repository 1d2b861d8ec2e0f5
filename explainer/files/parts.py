"""The table of a large run in parts: a Parquet data set, explanations/, with a file for each shard of the images.

A shard is some images that follow each other. Its part is written last and whole, after its pictures and arrays, which lie
in a folder of their own: a shard that has a part is finished, and one that has none is not. A part also says which images it
is about, and which of them were given up.

    import pandas
    table = pandas.read_parquet("runs/explain/exp/explanations")
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from explainer.errors import UsageError
from explainer.files.results import (
    ANSWER_COLUMNS,
    DIGITS,
    TABLE_OF_ANSWERS,
    Results,
    as_utf8,
    csv_bytes,
    formatted,
    naming,
    written_whole,
)

PARTS = "explanations"
# Beside the rows of a part, in the metadata of its schema.
ABOUT = b"explainer"
WHOLE_NUMBERS = ("class", "stride", "peak_x", "peak_y", "frame")
TRUTHS = ("peak_in_box",)
# A table of more rows is left in parts.
MOST_ROWS_IN_ONE = 200_000


@dataclass(frozen=True)
class Part:
    """What a part says of its shard.

    files     of its images, as the table calls them, in their order
    skipped   why an image has no rows, by its place among them
    outcomes  how many detections came to what, by model
    """

    number: int
    files: Sequence[str]
    skipped: Mapping[int, str] = field(default_factory=dict)
    outcomes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class ShardResults(Results):
    """The folder of a shard in the making; `finish` gives it its place, and writes the part.

    It is made under a name of its own. A run that goes on removes what is unfinished, so that a worker of the run before
    which is still there cannot finish.

    called  what the table calls files that were fetched from elsewhere, by their path
    """

    def __init__(self, folder: Path, number: int, called: Mapping[str, str]):
        self.run, self.number, self.called = folder, number, called
        super().__init__(folder / f".shard-{number:05}.{uuid4().hex[:12]}.part")

    def _open_table(self) -> "RowsInMemory":
        return RowsInMemory(self.folder, self.called)

    def finish(self, part: Part) -> None:
        """Put the folder in its place, if it holds anything, and the part in its own; call it once the context is left.

        The part waits beside its place before the folder is moved. A run that goes on removes unfinished folders first and
        waiting parts then, before it looks which parts there are: so either it sees this one, or one of the moves fails.
        """
        place, holds_anything = self.run / f"shard-{self.number:05}", any(self.folder.iterdir())
        waiting = self.run / PARTS / self.folder.name
        write_part(waiting, part, self._table.rows)
        if place.exists():
            rmtree(place)
        if holds_anything:
            self.folder.replace(place)
        else:
            self.folder.rmdir()
        waiting.replace(path_of(self.run, self.number))


class Overviews(Results):
    """The folder of a whole run, for what is made of all its shards; the table is there."""

    def _open_table(self) -> "RowsInMemory":
        return RowsInMemory(self.folder, {})


class RowsInMemory:
    """The rows of a shard, until its part is written."""

    def __init__(self, folder: Path, called: Mapping[str, str]):
        self.rows: list[dict[str, object]] = []
        self._folder, self._called = folder, called

    def append(self, rows: Iterable[dict[str, object]]) -> None:
        """Keep rows, values by column."""
        self.rows += (row | {"image": self._called.get(row["image"], row["image"])} for row in rows)

    def check_there(self) -> None:
        """Raise FileNotFoundError where the folder was deleted or moved."""
        self._folder.stat()

    def close(self) -> None:
        """Nothing is open."""


def write_part(path: Path, part: Part, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows of a shard, and what they are about; OSError, naming the file, where that fails."""
    import pyarrow
    from pyarrow import parquet

    columns = {name: [typed(name, row.get(name)) for row in rows] for name in ANSWER_COLUMNS}
    about = json.dumps({"files": part.files, "skipped": part.skipped, "outcomes": part.outcomes})
    table = pyarrow.table(columns, schema=schema().with_metadata({ABOUT: about}))
    path.parent.mkdir(exist_ok=True)
    with naming(path):
        parquet.write_table(table, path)


def is_in_parts(folder: str | Path) -> bool:
    """Return whether the folder of a run holds its table in parts."""
    return (Path(folder) / PARTS).is_dir()


def path_of(folder: Path, number: int) -> Path:
    """Return where the part of a shard lies in the folder of a run."""
    return folder / PARTS / f"part-{number:05}.parquet"


def schema():
    """Return the columns of a part and their types."""
    import pyarrow

    kinds = dict.fromkeys(ANSWER_COLUMNS, pyarrow.string())
    kinds |= dict.fromkeys(WHOLE_NUMBERS, pyarrow.int64())
    kinds |= dict.fromkeys(DIGITS, pyarrow.float64())
    kinds |= dict.fromkeys(TRUTHS, pyarrow.bool_())
    return pyarrow.schema(list(kinds.items()))


def typed(name: str, value: object) -> object:
    """Return a value as its column has it: numbers as precise as the CSV table writes them, None for nothing."""
    if value is None or value == "":
        return None
    if name in WHOLE_NUMBERS:
        return int(value)
    if name in TRUTHS:
        return bool(value)
    return float(value) if name in DIGITS else as_utf8(str(value))


def parts_in(folder: Path) -> Iterator[Part]:
    """Yield what each part in the folder of a run is about, by number; UsageError where one is none."""
    from pyarrow import ArrowInvalid, parquet

    for path in sorted((folder / PARTS).glob("part-*.parquet")):
        try:
            about = json.loads(parquet.read_schema(path).metadata[ABOUT])
            skipped = {int(place): reason for place, reason in about.pop("skipped").items()}
            yield Part(int(path.stem.partition("-")[2]), skipped=skipped, **about)
        except (ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} is no part of a run ({error}); remove it, and its images are done anew"
            ) from error


def rows_of(folder: Path, number: int, columns: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Return the rows of a part, in their order."""
    from pyarrow import parquet

    return parquet.read_table(path_of(folder, number), columns=columns and list(columns)).to_pylist()


def write_in_one(folder: Path, parts: Sequence[Part], order: Mapping[str, int]) -> bool:
    """Write the table in one piece, as a run without parts does, and return whether that was done: not of too many rows.

    order: the place of each image in the source
    """
    from pyarrow import parquet

    if sum(parquet.read_metadata(path_of(folder, part.number)).num_rows for part in parts) > MOST_ROWS_IN_ONE:
        return False
    rows = [row for part in parts for row in rows_of(folder, part.number)]
    rows.sort(key=lambda row: order.get(row["image"], len(order)))
    with written_whole(folder / TABLE_OF_ANSWERS) as unfinished:
        unfinished.write_bytes(csv_bytes(ANSWER_COLUMNS, map(formatted, rows), header=True))
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove what workers that were killed have left of shards."""
    for path in folder.glob(".shard-*.part"):
        with suppress(OSError):
            rmtree(path)
    for path in (folder / PARTS).glob(".*.part"):
        with suppress(OSError):
            os.unlink(path)
