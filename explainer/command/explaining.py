"""How images are explained one after the other, and what is kept of each: a picture, rows of the table, counts."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from explainer.command.opening import Job
from explainer.command.options import Options
from explainer.command.reporting import Findings, count_finished, log_frame
from explainer.command.running import WriteBehind, done_side_by_side, source_progress
from explainer.errors import UnreadableImageError
from explainer.files.results import Results, save_answer
from explainer.files.sources import Frame, Unreadable

# Each image at once takes the memory of a pass.
SIDE_BY_SIDE = 2


def take_over(job: Job, results: Results, findings: Findings, report) -> None:
    """Take over what a stopped run had finished: names, counts, and what the page and the suspects show of it.

    Pictures on the page are not those that were saved, so that what it shows is explained again; nothing is written.
    """
    options = job.options
    for done in job.finished:
        further = options.per_detection or options.scales or (options.backward_per_class and done.has_boxes)
        pictures = not options.nosave
        results.take_names(done, pictures=pictures, folder=options.save_npz or (pictures and further))
    count_finished(job.finished, findings, ways=len(options.variants))
    for path in job.gone:
        findings.skip(path, "the source no longer holds it, so that nothing can be shown of it")
    if job.again is not None:
        look_again(job, findings, report)
    if report is not None:
        report.left_out += job.not_again


def look_again(job: Job, findings: Findings, report) -> None:
    """Explain once more what the page and the suspects show of finished images."""
    with closing(job.again), source_progress(job.again) as frames:
        for frame in frames:
            answer = answer_to(frame, job, findings)
            if answer is not None:
                show_in_overviews(frame, answer, list(answer.rows()), findings, report)


def explain_frames(job: Job, results: Results, findings: Findings, report, writing: WriteBehind) -> None:
    """Explain every image of the source, and have the answers drawn and saved."""
    workers = side_by_side(job)
    with (
        source_progress(job.source) as frames,
        closing(done_side_by_side(frames, partial(look_at, job=job), workers)) as pairs,
    ):
        for frame, look in pairs:
            answer = tallied(frame, look, job, findings, workers)
            if answer is None:
                continue
            saving = writing.do(save, frame, answer, results, job.options, findings, report)
            if job.options.view_img:
                show(frame, saving.result())


def side_by_side(job: Job) -> int:
    """Return how many images are explained at once.

    Several on a CPU with cores for them, where the parts of the networks can be read: those of a GPU take turns anyway, and
    an exported model has threads of its own. A stream is explained picture by picture, as it is seen.
    """
    import torch

    if job.source.is_stream or job.options.view_img or job.source.count_frames() == 1:
        return 1
    if not all(each.reads_layers and each.device.type == "cpu" for each in job.explainer.detectors):
        return 1
    return min(SIDE_BY_SIDE, torch.get_num_threads())


@dataclass(frozen=True)
class Look:
    """What came of looking at one image: the answer, or the reason why there is none, and how many seconds it took."""

    answer: object | None
    reason: object = None
    seconds: float = 0.0


def look_at(frame: Frame | Unreadable, job: Job) -> Look:
    """Explain one image, unless it cannot be read or is too narrow."""
    if isinstance(frame, Unreadable):
        return Look(None, frame.reason)
    started = perf_counter()
    try:
        answer = job.explainer(frame.image_rgb, **job.known.about(frame))
    except UnreadableImageError as error:
        return Look(None, error)
    return Look(answer, seconds=perf_counter() - started)


def explain_frame(frame: Frame | Unreadable, job: Job, findings: Findings):
    """Explain one image and return the answer; None where it cannot be read or is too narrow, which is reported."""
    return tallied(frame, look_at(frame, job), job, findings)


def tallied(frame: Frame | Unreadable, look: Look, job: Job, findings: Findings, at_once: int = 1):
    """Count and log what came of looking at one image, and return the answer; None where there is none.

    at_once: how many images were looked at side by side, and share the time that passed
    """
    if look.answer is None:
        findings.skip(frame.path, look.reason)
    else:
        findings.add(look.answer, look.seconds / at_once)
        log_frame(frame, look.answer, look.seconds, job.options.verbose)
    return look.answer


def answer_to(frame: Frame | Unreadable, job: Job, findings: Findings):
    """Return the answer to one image; None where it cannot be read or is too narrow, which is reported."""
    look = look_at(frame, job)
    if look.answer is None:
        findings.skip(frame.path, look.reason)
    return look.answer


def save(frame: Frame, answer, results: Results, options: Options, findings: Findings, report) -> np.ndarray | None:
    """Draw and write what there is to see of one image, and return its overlay, RGB, where it was drawn."""
    started = perf_counter()
    wanted = {"pictures": not options.nosave, "per_detection": options.per_detection, "arrays": options.save_npz}
    saved = save_answer(results, frame, answer, style=options.style, **wanted)
    show_in_overviews(frame, answer, saved.rows, findings, report)
    picture_rgb = answer.overlay(options.style) if options.view_img and options.nosave else saved.picture_rgb
    findings.paint = partial(answer.overlay, options.style) if picture_rgb is None else partial(np.asarray, picture_rgb)
    findings.saving += perf_counter() - started
    return picture_rgb


def show_in_overviews(frame: Frame, answer, rows, findings: Findings, report) -> None:
    """Have an image looked at for the suspects and, where there is one, shown on the page."""
    findings.suspects.add(frame, answer, rows)
    if report is not None:
        report.add(frame, answer, rows)


def show(frame: Frame, picture_rgb: np.ndarray) -> None:
    """Show one overlay in a window."""
    import cv2

    cv2.imshow(str(frame.path), picture_rgb[..., ::-1])
    cv2.waitKey(1)
