"""Evaluating on a cluster: each worker scores the explanations of an image at a time, and one process writes the table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from explainer.command.cluster import Crew, Task, connected, greeting, received, sent, size_of
from explainer.command.running import Tally, progress
from explainer.errors import UnreadableImageError
from explainer.evaluation.evaluator import Row, open_evaluator
from explainer.evaluation.options import Evaluation
from explainer.evaluation.results import EvaluationResults
from explainer.files.sources import LabelledImage, read_image
from utils.general import LOGGER


@dataclass
class Measured:
    """What came of one image.

    rows     of each contender, in their order
    reason   why the image was skipped, "" where it was not
    seconds  that it took; `inside` of them the model ran
    """

    rows: list[list[Row]] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
    inside: float = 0.0


class MeasuringWorker:
    """Opens the model once, then scores the explanations of one image after the other."""

    def open(self, options: Evaluation, contents: dict[str, bytes], threads: int) -> tuple[str, list[str]]:
        """Open the model from what was sent here, and return the machine and its versions."""
        self.options = options
        with received(options, contents, threads) as here:
            self.evaluator = open_evaluator(here)
        return greeting()

    def work(self, task: Task) -> Iterator[tuple[int, Measured]]:
        """Score what is left of some images, each with the contenders whose rows there are already, and yield the rows."""
        for place in task.left():
            yield place, self._measured(*task.units[place])

    def _measured(self, image: LabelledImage, without: set[tuple[str, str]]) -> Measured:
        found, started, inside = Measured(), perf_counter(), self.evaluator.meter.inside
        try:
            image_rgb = read_image(image.path, self.options.max_megapixels, image.place)
            with self.evaluator.meter:
                found.rows = list(self.evaluator(image_rgb, image.labels, without))
        except UnreadableImageError as error:
            found.reason = str(error)
        return replace(found, seconds=perf_counter() - started, inside=self.evaluator.meter.inside - inside)


def measure_on_cluster(
    images: Sequence[LabelledImage], options: Evaluation, results: EvaluationResults, tally: Tally
) -> float:
    """Score the explanations of all images on a cluster, write their rows as they come, and count them.

    Return the seconds that were spent inside the models.
    """
    inside = 0.0
    with connected(options.ray):
        size = size_of(options.workers, options.gpus_per_worker)
        LOGGER.info(f"{len(images)} images; {size.workers} workers, {size.threads} threads each")
        tasks = (
            Task(number, [(image, results.finished_of(image.path))], whole=False) for number, image in enumerate(images)
        )
        with Crew(MeasuringWorker, sent(options, size), size) as crew, progress(None, total=len(images)) as bar:
            for task, place, found in crew.run(tasks):
                if place is None:
                    for lost, reason in task.lost.items():
                        tally.skip(task.units[lost][0].path, reason)
                    bar.update()
                else:
                    inside += keep(found, task.units[place][0].path, results, tally)
                bar.set_postfix(failures=tally.skipped, refresh=False)
    return inside


def keep(found: Measured, path: Path, results: EvaluationResults, tally: Tally) -> float:
    """Write and count what came of an image, and return the seconds that were spent inside the model."""
    if found.reason:
        tally.skip(path, found.reason)
        return 0.0
    for rows in found.rows:
        results.add(path, rows)
    tally.done += 1
    tally.seconds += found.seconds
    return found.inside
