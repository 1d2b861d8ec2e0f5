"""Explaining on a cluster: what a worker does with a shard of the images, and what is made of all shards.

Each image is in the results once, whatever dies meanwhile: what is written about a shard counts only once its part is there.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import nsmallest
from itertools import count
from pathlib import Path

import numpy as np

from explainer.command.cluster import Crew, Size, Task, connected, greeting, received, sent, size_of
from explainer.command.explaining import answer_to, explain_frame, look_again, save
from explainer.command.opening import (
    Job,
    KnownBoxes,
    check_models,
    keep_options,
    open_explainer,
    stopped_options,
    with_absolute_paths,
)
from explainer.command.options import Options
from explainer.command.reporting import Findings, Suspects, log_closing, log_suspects, reporting
from explainer.command.running import WriteBehind, progress, read_ahead
from explainer.detectors.predictions import NOT_FOUND
from explainer.errors import UnreadableImageError, UsageError
from explainer.files.parts import (
    PARTS,
    Overviews,
    Part,
    ShardResults,
    parts_in,
    remove_unfinished,
    rows_of,
    write_in_one,
)
from explainer.files.remote import fetched, is_remote, listed
from explainer.files.results import as_utf8, check_writable, new_folder
from explainer.files.sources import Frame, Source, Unreadable, holds_files
from explainer.pictures.report import MOST_IMAGES
from utils.general import LOGGER

# A shard is done in some seconds, and begun anew where its worker dies; each is a file of the table.
MOST_IN_SHARD = 256
SHARDS_FOR_EACH = 8
# A frame after the place of its file in a shard; None where the file ends.
OfPlace = tuple[int, Frame | Unreadable | None]


@dataclass
class OfFile(Findings):
    """What came of one file, an image or a video; it goes from the worker to the process that counts.

    reasons  why images were skipped
    """

    reasons: list[str] = field(default_factory=list)

    def skip(self, path: Path, reason: object) -> None:
        """Keep why an image was skipped: it is reported where all are counted."""
        self.reasons.append(str(reason))
        self.skipped += 1


class ShardWorker:
    """Opens the models once, then explains one shard after the other."""

    def open(self, options: Options, contents: dict[str, bytes], threads: int, folder: str) -> tuple[str, list[str]]:
        """Open the models from what was sent here, and return the machine and its versions.

        folder: of the run, which every machine must see
        """
        if not Path(folder).is_dir():
            raise UsageError(f"a worker of the cluster does not see {folder}; give a --project that all machines share")
        self.folder, self.options = Path(folder), options
        with received(options, contents, threads) as here:
            self.known, self.explainer = KnownBoxes(options.boxes, options.labels), open_explainer(here)
        for detector in self.explainer.detectors:
            self.known.check_classes(detector.names, ())
        return greeting()

    def work(self, task: Task) -> Iterator[tuple[int, OfFile]]:
        """Explain the files that are left of a shard, write what there is to see of them, and yield what came of each.

        One that is read ahead or written behind while another is explained is so only for tasks that are not careful.
        """
        called: dict[str, str] = {}
        results = ShardResults(self.folder, task.number, called)
        job = Job(None, self.known, self.explainer, results.folder, self.options)
        frames = self._frames(task, called)
        skipped, outcomes = dict(task.lost), {}
        with (
            results,
            WriteBehind() as writing,
            closing(frames if task.careful else read_ahead(frames)) as coming,
        ):
            for place, found in explain_files(coming, job, results, writing, task.careful):
                if found.reasons:
                    skipped[place] = found.reasons[0]
                for model, of_model in found.outcomes.items():
                    outcomes.setdefault(model, Counter()).update(of_model)
                yield place, found
        results.finish(Part(task.number, [as_utf8(path) for path in task.units], skipped, outcomes))

    def _frames(self, task: Task, called: dict[str, str]) -> Iterator[OfPlace]:
        """Yield the frames of the files that are left, each after the place of its file; None where the file ends."""
        for place in task.left():
            address = task.units[place]
            try:
                for frame in frames_at(address, self.options):
                    called[as_utf8(str(frame.path))] = address
                    yield place, frame
            except UnreadableImageError as error:
                yield place, Unreadable(Path(address), str(error))
            yield place, None


def frames_at(address: str, options: Options) -> Iterator[Frame | Unreadable]:
    """Yield the frames of a file, fetched for so long if it lies elsewhere; UnreadableImageError if it is not there."""
    with (
        fetched(address) if is_remote(address) else nullcontext(Path(address)) as path,
        closing(Source.of_files([path], options.vid_stride, options.max_megapixels)) as source,
    ):
        yield from source


def explain_files(
    frames: Iterable[OfPlace], job: Job, results: ShardResults, writing: WriteBehind, at_once: bool
) -> Iterator[tuple[int, OfFile]]:
    """Explain frames and have what there is to see of them written, and yield what came of each file, once it is written.

    at_once: wait until that is so before the next frame is looked at
    """
    found, waiting = OfFile(), deque()
    for place, frame in frames:
        if frame is None:
            waiting.append((place, found, writing.do(int)))
            found = OfFile()
        elif (answer := explain_frame(frame, job, found)) is not None:
            writing.do(save, frame, answer, results, job.options, found, None)
        while waiting and (at_once or waiting[0][2].done()):
            yield finished_of(*waiting.popleft())
    yield from (finished_of(*entry) for entry in waiting)


def finished_of(place: int, found: OfFile, written: Future) -> tuple[int, OfFile]:
    """Return the place of a file and what came of it, once all of it is written; the picture stays here."""
    written.result()
    found.paint = None
    return place, found


def explain_on_cluster(options: Options) -> Findings:
    """Explain every image of the source on a cluster, and return the findings.

    What is wrong with the model, or with classes, is told before a cluster is started.
    """
    resumes = options.resume is not None
    if resumes:
        options = stopped_options(options)[0]
    check_models(options)
    files, known = listed_files(options), KnownBoxes(options.boxes, options.labels)
    source = Source.of_files(files, options.vid_stride, options.max_megapixels)
    known.check_source(source)
    check_writable(Path(options.resume) if resumes else Path(options.project) / options.name)
    explainer = open_explainer(replace(options, device="cpu", half=False))
    for detector in explainer.detectors:
        known.check_classes(detector.names, source.files)
    with connected(options.ray):
        size = size_of(options.workers, options.gpus_per_worker)
        run = ShardedRun(options, begun_folder(options, resumes), files)
        run.explain(size)
    run.close(Job(source, known, explainer, run.folder, options))
    return run.findings


def begun_folder(options: Options, resumes: bool) -> Path:
    """Return the folder of the run, with its options in it; UsageError where it holds another run's parts."""
    folder = Path(options.resume) if resumes else new_folder(options.project, options.name, options.exist_ok)
    folder = folder.absolute()
    if not resumes and any(parts_in(folder)):
        raise UsageError(f"{folder} holds a run in parts already; --resume goes on with it, or leave --exist-ok out")
    keep_options(folder, options, 0)
    remove_unfinished(folder)
    (folder / PARTS).mkdir(exist_ok=True)
    return folder


def listed_files(options: Options) -> list[str]:
    """Return the files of the source, or their addresses; UsageError for streams and screens, and where there is nothing."""
    if is_remote(options.source):
        if options.report or options.suspects:
            raise UsageError(
                "--report and --suspects look at images again when all are done, and those of the source lie elsewhere; "
                "leave them out"
            )
        return listed(options.source)
    if not holds_files(options.source):
        raise UsageError(
            f"--ray shares out files, and the source '{options.source}' is a stream or a screen; leave --ray out"
        )
    with closing(Source(options.source, options.vid_stride, options.max_megapixels)) as source:
        return [str(path.absolute()) if path.exists() else str(path) for path in source.files]


class ShardedRun:
    """One run on a cluster: what its shards are, what has come of them so far, and what is made of all of them.

    files  of the source, in its order
    """

    def __init__(self, options: Options, folder: Path, files: list[str]):
        self.options, self.folder, self.files = options, folder, files
        self.findings = Findings(suspects=Suspects(options.suspects))

    def shards(self, workers: int, finished: Sequence[Part]) -> list[Task]:
        """Return the shards that are to do, of files that no part has rows of."""
        have = Counter(name for part in finished for place, name in enumerate(part.files) if place not in part.skipped)
        rest = []
        for path in self.files:
            if have[as_utf8(path)]:
                have[as_utf8(path)] -= 1
            else:
                rest.append(path)
        size = max(1, min(MOST_IN_SHARD, -(-len(rest) // (workers * SHARDS_FOR_EACH))))
        numbers = count(max((part.number for part in finished), default=-1) + 1)
        return [Task(next(numbers), rest[first : first + size], whole=True) for first in range(0, len(rest), size)]

    def explain(self, size: Size) -> None:
        """Have all shards explained that are to do, under a bar, and count what comes of them."""
        finished = list(parts_in(self.folder))
        shards = self.shards(size.workers, finished)
        total = sum(len(shard.units) for shard in shards)
        if finished:
            kept = len(self.files) - total
            LOGGER.info(f"Going on in {self.folder}: {kept} finished files are kept, {total} are to do")
            for part in finished:
                self._count_outcomes(part.outcomes)
        LOGGER.info(f"{total} files in {len(shards)} shards; {size.workers} workers, {size.threads} threads each")
        arguments = *sent(with_absolute_paths(self.options), size), str(self.folder)
        with Crew(ShardWorker, arguments, size) as crew, progress(None, total=total) as bar:
            for task, place, found in crew.run(shards):
                if place is None:
                    for lost, reason in task.lost.items():
                        self.findings.skip(Path(task.units[lost]), reason)
                        bar.update()
                else:
                    self._count(task.units[place], found)
                    bar.update()
                bar.set_postfix(failures=self.findings.skipped, refresh=False)
        remove_unfinished(self.folder)

    def _count(self, path: str, found: OfFile) -> None:
        """Count what came of a file."""
        for reason in found.reasons:
            self.findings.skip(Path(path), reason)
        self.findings.done += found.done
        self.findings.seconds += found.seconds
        self.findings.saving += found.saving
        self._count_outcomes(found.outcomes)

    def _count_outcomes(self, outcomes: Mapping[str, Mapping[str, int]]) -> None:
        """Count what became of detections, by model."""
        for model, of_model in outcomes.items():
            self.findings.outcomes[model].update(of_model)

    def close(self, job: Job) -> None:
        """Make of all parts what a run in one piece leaves: one table, the suspects, the page, and the last picture."""
        options, findings, parts = self.options, self.findings, list(parts_in(self.folder))
        order = {as_utf8(path): place for place, path in enumerate(self.files)}
        if not write_in_one(self.folder, parts, order):
            LOGGER.info(f"The table is left in parts, {self.folder / PARTS}: pandas.read_parquet reads them as one")
        again = self._wanted_again(parts)
        with Overviews(self.folder) as results, reporting(results, options, findings) as report:
            if again:
                job = replace(job, again=Source.of_files(again, options.vid_stride, options.max_megapixels))
                look_again(job, findings, report)
            if report is not None:
                report.left_out += len(self.files) - len(again)
            if findings.suspects.kept:
                log_suspects(findings.suspects)
                results.save_overview("suspects", findings.suspects.sheet)
        findings.paint = partial(self._last_picture, job)
        log_closing(findings, self.folder, judged=bool(job.known.labels))

    def _last_picture(self, job: Job) -> np.ndarray | None:
        """Return the overlay of the last image that can be explained, RGB uint8 (H, W, 3); None where none can."""
        for address in reversed(self.files):
            picture_rgb = None
            with suppress(UnreadableImageError), closing(frames_at(address, self.options)) as frames:
                for frame in frames:
                    answer = answer_to(frame, job, OfFile())
                    picture_rgb = picture_rgb if answer is None else answer.overlay(self.options.style)
            if picture_rgb is not None:
                return picture_rgb
        return None

    def _wanted_again(self, parts: Sequence[Part]) -> list[str]:
        """Return the files that the page and the suspects show: the first ones, and those of the most suspect detections."""
        wanted = set(map(as_utf8, self.files[:MOST_IMAGES])) if self.options.report else set()
        columns = ("energy_in_box", "image", "outcome")
        rows = (row for part in parts for row in rows_of(self.folder, part.number, columns))
        explained = (
            row for row in rows if row["energy_in_box"] is not None and (row["outcome"] or "") not in NOT_FOUND
        )
        most = nsmallest(self.options.suspects, explained, key=lambda row: row["energy_in_box"])
        wanted.update(row["image"] for row in most)
        return [path for path in dict.fromkeys(self.files) if as_utf8(path) in wanted]
