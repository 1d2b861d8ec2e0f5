"""Measure how far explanations of a model's detections can be believed.

python explainer/evaluate.py --weights best.pt --data coco128.yaml --method GradCAM LayerCAM --layer auto -2
"""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))

from explainer.errors import UnreadableImageError, UsageError  # noqa: E402
from explainer.evaluation.options import Evaluation  # noqa: E402
from explainer.leaving import leave  # noqa: E402
from explainer.options import build_options, build_parser, keyword_signature  # noqa: E402


@dataclass
class Tally:
    """What a run has done so far: images evaluated and skipped, seconds spent on them, and those inside the model."""

    evaluated: int = 0
    skipped: int = 0
    seconds: float = 0.0
    inside: float = 0.0


def run(**options) -> Path:
    """Evaluate explanations and return the folder of the results; the options and their defaults are those of the command.

    UsageError (a ValueError) for a mistake in the options, or where nothing was detected.
    """
    return evaluate(build_options(options, Evaluation))[0]


run.__signature__ = keyword_signature(Evaluation)


def evaluate(options: Evaluation) -> tuple[Path, Tally]:
    """Score the explanations of every image, one after the other, then write tables and pictures of all."""
    from explainer.detectors.weights import check_weights, open_model
    from explainer.evaluation.image_sets import labelled_images
    from explainer.evaluation.results import EvaluationResults, resumed
    from explainer.files.results import free_folder

    resumes = options.resume is not None
    options, folder = resumed(options) if resumes else (options, None)
    check_weights(options.weights, [settings.method for _, settings in options.settings()])
    images = labelled_images(options.data, options.fraction, options.seed)
    folder = folder or free_folder(options.project, options.name, options.exist_ok)

    from explainer.evaluation.evaluator import Evaluator

    evaluator = Evaluator(open_model(options.weights, device=options.device, trust=options.trust), options)
    tally = Tally()
    with EvaluationResults(folder, options, resumes=resumes) as results, evaluator.meter, progress(images) as bar:
        for image in bar:
            evaluate_image(image, evaluator, results, tally)
        tally.inside = evaluator.meter.inside
    report(results, evaluator)
    log_closing(tally, folder)
    return folder, tally


def evaluate_image(image, evaluator, results, tally: Tally) -> None:
    """Score the explanations of one image, and write their rows as they come."""
    from explainer.evaluation.image_sets import read_image

    started = perf_counter()
    try:
        image_rgb = read_image(image.path)
        for rows in evaluator(image_rgb, image.labels, results.finished[str(image.path)]):
            results.add(image.path, rows)
    except UnreadableImageError as error:
        skip(image.path, error, tally)
        return
    tally.evaluated += 1
    tally.seconds += perf_counter() - started


def report(results, evaluator) -> None:
    """Write what a run amounts to: tables, and pictures unless they are not wanted."""
    from explainer.evaluation.summary import summarise
    from explainer.evaluation.summary_text import about, markdown

    rows = results.table()
    summary = summarise(rows, results.options.seed)
    results.save_text("table.csv", summary.to_csv(index=False, float_format="%.6g"))
    results.save_text("table.md", markdown(summary, about(rows, results.options)))
    if not results.options.nosave:
        save_pictures(rows, summary, results, evaluator)


def save_pictures(rows, summary, results, evaluator) -> None:
    """Write the plots, and the best and the worst examples of each contender."""
    from explainer.evaluation.charts import cost_chart, curve_chart, figure_chart
    from explainer.evaluation.examples import example_sheets

    results.save_picture("curves.png", curve_chart(rows, summary))
    results.save_picture("figures.png", figure_chart(summary))
    results.save_picture("cost.png", cost_chart(summary))
    for name, picture in example_sheets(rows, evaluator):
        results.save_picture(f"examples/{name}.jpg", picture)


@contextmanager
def progress(images: list) -> Iterator:
    """Give the images under a bar that log lines do not tear, where there is a terminal."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from utils.general import LOGGER

    with logging_redirect_tqdm([LOGGER]), tqdm(images, unit="image", disable=None) as bar:
        yield bar


def skip(path: Path, error: Exception, tally: Tally) -> None:
    """Report and count one image that could not be evaluated."""
    from utils.general import LOGGER

    LOGGER.warning(f"WARNING ⚠️ skipped {path}: {error}")
    tally.skipped += 1


def log_closing(tally: Tally, folder: Path) -> None:
    """Log where the results are, how long an image took, and how much of that the model needed."""
    from utils.general import LOGGER

    if tally.evaluated:
        LOGGER.info(
            f"Speed: {tally.seconds / tally.evaluated:.2f}s per image, "
            f"{100 * tally.inside / tally.seconds:.0f} % of it inside the model"
        )
    if tally.skipped:
        LOGGER.warning(f"WARNING ⚠️ {tally.skipped} of {tally.skipped + tally.evaluated} images skipped")
    LOGGER.info(f"Results saved to {folder}")


def parse_opt(arguments: list[str] | None = None) -> Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    return build_parser(__doc__.strip(), Evaluation).parse_args(arguments)


def main(opt: Namespace) -> int:
    """Run the command; return its exit code: 0, 1 if an image was skipped, 2 for a mistake, 130 after an interrupt."""
    try:
        _, tally = evaluate(build_options(vars(opt), Evaluation))
    except UsageError as error:
        print(f"evaluate: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return int(tally.skipped > 0)


if __name__ == "__main__":
    leave(main(parse_opt()))
