"""Explain what a YOLOv5 model detects, and why.

python explainer/explainer.py --weights best.pt --source img.jpg --method GradCAM
python explainer/explainer.py  # the bundled demo
"""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))

from explainer.errors import UnreadableImageError, UsageError  # noqa: E402
from explainer.leaving import leave  # noqa: E402
from explainer.options import Options, build_options, build_parser, keyword_signature  # noqa: E402


def run(**options) -> np.ndarray:
    """Explain every image of a source and return the last one's overlay: RGB, uint8 (H, W, 3), at the original size.

    The options and their defaults are those of the command; `weights` may also be a model that is already loaded.
    UsageError (a ValueError) for a mistake in the options, UnreadableImageError (an OSError) if no image could be read.
    """
    chosen = build_options(options)
    tally = explain_source(chosen)
    if tally.image_rgb is None:
        raise UnreadableImageError(f"no image of source '{chosen.source}' could be explained")
    return tally.image_rgb


run.__signature__ = keyword_signature()


def explain_source(options: Options):
    """Explain every image of the source and return the tally: open what is needed, then explain, draw and save them."""
    from explainer.overlapping import WriteBehind, without_collecting

    with without_collecting():
        from explainer.files.results import Results
        from explainer.files.sources import Unreadable
        from explainer.opening import open_run
        from explainer.reporting import Tally, log_closing, log_skipped, log_suspects
        from explainer.suspects import Suspects

        job, tally = open_run(options), Tally(suspects=Suspects(options.suspects))
    with closing(job.source), Results(job.folder) as results, WriteBehind() as writing, progress(job.source) as frames:
        for frame in frames:
            answer = frame if isinstance(frame, Unreadable) else explain_frame(frame, job, tally, options.verbose)
            if isinstance(answer, Unreadable):
                log_skipped(answer, tally)
                continue
            saving = writing.do(save, frame, answer, results, options, tally)
            if options.view_img:
                show(frame, saving.result())
    if tally.suspects.kept:
        log_suspects(tally.suspects)
        results.save_overview("suspects", tally.suspects.sheet)
    log_closing(tally, job.folder, judged=bool(job.questions.labels))
    return tally


def explain_frame(frame, job, tally, verbose: bool):
    """Explain one image and return the answer, or Unreadable where it is too narrow to be looked at."""
    from explainer.files.sources import Unreadable
    from explainer.reporting import log_frame

    started = perf_counter()
    try:
        answer = job.explainer(frame.image_rgb, **job.questions.about(frame))
    except UnreadableImageError as error:
        return Unreadable(frame.path, str(error))
    seconds = perf_counter() - started
    tally.add(answer, seconds)
    log_frame(frame, answer, seconds, verbose)
    return answer


def save(frame, answer, results, options: Options, tally) -> np.ndarray:
    """Write the rows and pictures of one image and return its overlay, RGB."""
    from explainer.files.results import save_answer
    from explainer.pictures.drawing import Style

    started = perf_counter()
    style = Style(
        line_thickness=options.line_thickness,
        hide_labels=options.hide_labels,
        hide_conf=options.hide_conf,
        crop=options.crop,
        colormap=options.colormap,
        alpha=options.alpha,
    )
    wanted = {"pictures": not options.nosave, "per_detection": options.per_detection, "arrays": options.save_npz}
    saved = save_answer(results, frame, answer, style=style, **wanted)
    tally.suspects.add(frame, answer, saved.rows)
    tally.image_rgb = saved.picture_rgb
    tally.saving += perf_counter() - started
    return saved.picture_rgb


def show(frame, picture_rgb: np.ndarray) -> None:
    """Show one overlay in a window."""
    import cv2

    cv2.imshow(str(frame.path), picture_rgb[..., ::-1])
    cv2.waitKey(1)


@contextmanager
def progress(source) -> Iterator:
    """Give the source's frames under a bar that log lines do not tear, where there is a terminal and more than one frame.

    Files are read ahead; the frames of a stream are not, so that they are shown when they are seen.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from explainer.overlapping import read_ahead
    from utils.general import LOGGER

    total = source.count_frames()
    several = total is not None and total > 1
    with (
        nullcontext(source) if source.is_stream else closing(read_ahead(source)) as frames,
        logging_redirect_tqdm([LOGGER]),
        tqdm(frames, total=total, unit="image", disable=None if several else True) as shown,
    ):
        yield shown


def parse_opt(arguments: list[str] | None = None) -> Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    return build_parser(__doc__.strip()).parse_args(arguments)


def main(opt: Namespace) -> int:
    """Run the command; return its exit code: 0, 1 if an image was skipped, 2 for a mistake, 130 after an interrupt."""
    try:
        return int(explain_source(build_options(vars(opt))).skipped > 0)
    except UsageError as error:
        print(f"explainer: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    leave(main(parse_opt()))
