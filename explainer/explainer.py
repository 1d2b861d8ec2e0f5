"""Explain what a YOLOv5 model detects, and why.

python explainer/explainer.py  # the bundled demo
python explainer/explainer.py --weights best.pt --source img.jpg
python explainer/explainer.py --weights best.pt --source dir/ --method LayerCAM
"""

import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # In place of this folder, in which the program would find this file where it looks for the package.
    sys.path[0] = str(ROOT)

from explainer.command.options import Options, build_options, build_parser, keyword_signature  # noqa: E402
from explainer.command.running import WriteBehind, exit_code, leave, without_collecting  # noqa: E402
from explainer.errors import UnreadableImageError, open_streams  # noqa: E402
from explainer.files.parts import is_in_parts  # noqa: E402


def run(**options) -> np.ndarray:
    """Explain every image of a source and return the last one's overlay: RGB, uint8 (H, W, 3), at the original size.

    The options and their defaults are those of the command; `weights` may also be a model that is already loaded.
    UsageError (a ValueError) for a mistake in the options, UnreadableImageError (an OSError) if no image could be read.
    """
    chosen = build_options(options)
    findings = explain_source(chosen)
    image_rgb = findings.image_rgb
    if image_rgb is None:
        raise UnreadableImageError(f"no image of source '{chosen.source or chosen.resume}' could be explained")
    return image_rgb


run.__signature__ = keyword_signature()


def explain_source(options: Options):
    """Open what is needed, explain every image of the source, draw and save the answers, and return the findings."""
    if options.ray or (options.resume and is_in_parts(options.resume)):
        from explainer.command.sharding import explain_on_cluster

        return explain_on_cluster(options)
    with without_collecting():
        from explainer.command.explaining import explain_frames, take_over
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


def parse_opt(arguments: list[str] | None = None) -> Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    return build_parser(__doc__.strip()).parse_args(arguments)


def main(opt: Namespace) -> int:
    """Run the command; return its exit code: 0, 1 if something was lost, 2 for a mistake, 130 after an interrupt."""
    return exit_code("explainer", lambda: explain_source(build_options(vars(opt))))


if __name__ == "__main__":
    open_streams()
    leave(main(parse_opt()))
