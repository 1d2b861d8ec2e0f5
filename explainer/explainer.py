"""Explain what a YOLOv5 model detects, and why.

python explainer/explainer.py  # the bundled demo
python explainer/explainer.py --weights best.pt --source img.jpg
python explainer/explainer.py --weights best.pt --source dir/ --method LayerCAM
"""

import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))

from explainer.command.options import Options, build_options, build_parser, keyword_signature  # noqa: E402
from explainer.command.running import WriteBehind, exit_code, leave, source_progress, without_collecting  # noqa: E402
from explainer.errors import UnreadableImageError, open_streams  # noqa: E402


def run(**options) -> np.ndarray:
    """Explain every image of a source and return the last one's overlay: RGB, uint8 (H, W, 3), at the original size.

    The options and their defaults are those of the command; `weights` may also be a model that is already loaded.
    UsageError (a ValueError) for a mistake in the options, UnreadableImageError (an OSError) if no image could be read.
    """
    chosen = build_options(options)
    findings = explain_source(chosen)
    if findings.image_rgb is None:
        raise UnreadableImageError(f"no image of source '{chosen.source or chosen.resume}' could be explained")
    return findings.image_rgb


run.__signature__ = keyword_signature()


def explain_source(options: Options):
    """Open what is needed, explain every image of the source, draw and save the answers, and return the findings."""
    with without_collecting():
        from explainer.command.opening import open_run
        from explainer.command.reporting import Findings, Suspects, log_closing, log_suspects, reporting
        from explainer.files.results import Results

        job = open_run(options)
        options, findings = job.options, Findings(suspects=Suspects(job.options.suspects))
    with (
        closing(job.source),
        Results(job.folder) as results,
        reporting(results, options, findings) as report,
        WriteBehind() as writing,
    ):
        take_over(job, results, findings, report)
        explain_frames(job, results, findings, report, writing)
    if findings.suspects.kept:
        log_suspects(findings.suspects)
        results.save_overview("suspects", findings.suspects.sheet)
    log_closing(findings, job.folder, judged=bool(job.known.labels))
    return findings


def take_over(job, results, findings, report) -> None:
    """Take over what a stopped run had finished: names, counts, and what the page and the suspects show of it.

    Pictures on the page are not those that were saved, so that what it shows is explained again; nothing is written.
    """
    from explainer.command.reporting import count_finished

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


def look_again(job, findings, report) -> None:
    """Explain once more what the page and the suspects show of finished images."""
    with closing(job.again), source_progress(job.again) as frames:
        for frame in frames:
            answer = answer_to(frame, job, findings)
            if answer is not None:
                show_in_overviews(frame, answer, list(answer.rows()), findings, report)


def explain_frames(job, results, findings, report, writing: WriteBehind) -> None:
    """Explain every image of the source, and have the answers drawn and saved."""
    options = job.options
    with source_progress(job.source) as frames:
        for frame in frames:
            answer = explain_frame(frame, job, findings, options.verbose)
            if answer is None:
                continue
            saving = writing.do(save, frame, answer, results, options, findings, report)
            if options.view_img:
                show(frame, saving.result())


def explain_frame(frame, job, findings, verbose: bool):
    """Explain one image and return the answer; None where it cannot be read or is too narrow, which is reported."""
    from explainer.command.reporting import log_frame

    started = perf_counter()
    answer = answer_to(frame, job, findings)
    if answer is None:
        return None
    seconds = perf_counter() - started
    findings.add(answer, seconds)
    log_frame(frame, answer, seconds, verbose)
    return answer


def answer_to(frame, job, findings):
    """Return the answer to one image; None where it cannot be read or is too narrow, which is reported."""
    from explainer.files.sources import Unreadable

    if isinstance(frame, Unreadable):
        findings.skip(frame.path, frame.reason)
        return None
    try:
        return job.explainer(frame.image_rgb, **job.known.about(frame))
    except UnreadableImageError as error:
        findings.skip(frame.path, error)
        return None


def save(frame, answer, results, options: Options, findings, report) -> np.ndarray:
    """Draw and write what there is to see of one image and return its overlay, RGB."""
    from explainer.files.results import save_answer

    started = perf_counter()
    wanted = {"pictures": not options.nosave, "per_detection": options.per_detection, "arrays": options.save_npz}
    saved = save_answer(results, frame, answer, style=options.style, **wanted)
    show_in_overviews(frame, answer, saved.rows, findings, report)
    findings.image_rgb = saved.picture_rgb
    findings.saving += perf_counter() - started
    return saved.picture_rgb


def show_in_overviews(frame, answer, rows, findings, report) -> None:
    """Have an image looked at for the suspects and, where there is one, shown on the page."""
    findings.suspects.add(frame, answer, rows)
    if report is not None:
        report.add(frame, answer, rows)


def show(frame, picture_rgb: np.ndarray) -> None:
    """Show one overlay in a window."""
    import cv2

    cv2.imshow(str(frame.path), picture_rgb[..., ::-1])
    cv2.waitKey(1)


def parse_opt(arguments: list[str] | None = None) -> Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    return build_parser(__doc__.strip()).parse_args(arguments)


def main(opt: Namespace) -> int:
    """Run the command; return its exit code: 0, 1 if something was lost, 2 for a mistake, 130 after an interrupt."""
    return exit_code("explainer", lambda: explain_source(build_options(vars(opt))))


if __name__ == "__main__":
    open_streams()
    leave(main(parse_opt()))
