"""Measure how far explanations of a model's detections can be believed.

python explainer/evaluate.py  # the bundled demo
python explainer/evaluate.py --weights best.pt --data coco128.yaml
python explainer/evaluate.py --weights best.pt --method all --layer auto -2
"""

import sys
from argparse import Namespace
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # In place of this folder, in which the program would find this file where it looks for the package.
    sys.path[0] = str(ROOT)

from explainer.command.options import build_options, build_parser, keyword_signature  # noqa: E402
from explainer.command.running import Tally, exit_code, leave, log_end, progress  # noqa: E402
from explainer.errors import UnreadableImageError, open_streams  # noqa: E402
from explainer.evaluation.options import Evaluation  # noqa: E402


def run(**options) -> Path:
    """Evaluate explanations and return the folder of the results; the options and their defaults are those of the command.

    UsageError (a ValueError) for a mistake in the options, or where nothing was detected.
    """
    return evaluate(build_options(options, Evaluation))[0]


run.__signature__ = keyword_signature(Evaluation)


def evaluate(options: Evaluation) -> tuple[Path, Tally]:
    """Score the explanations of every image, one after the other, then write tables and pictures of all."""
    from explainer.detectors.weights import check_weights
    from explainer.evaluation.results import EvaluationResults, resumed
    from explainer.files.labels import check_class
    from explainer.files.results import check_writable, new_folder
    from explainer.files.sources import labelled_images
    from explainer.settings import check_layers_there

    resumes = options.resume is not None
    options, folder = resumed(options) if resumes else (options, None)
    entries = check_weights(options.weights, options.arch)
    check_layers_there(entries, [settings.method for _, settings in options.settings()])
    images = labelled_images(options.data, options.fraction, options.seed)
    check_writable(folder or Path(options.project) / options.name)

    from explainer.evaluation.evaluator import open_evaluator

    evaluator = open_evaluator(options)
    for label in (label for image in images for label in image.labels):
        check_class(label, len(evaluator.detector.names))
    tally, folder = Tally(), folder or new_folder(options.project, options.name, options.exist_ok)
    with EvaluationResults(folder, options, resumes=resumes) as results:
        inside = measure(images, evaluator, results, tally)
    if not tally.done:
        raise UnreadableImageError(f"none of the {tally.skipped} images of --data '{options.data}' could be read")
    report(results, evaluator, tally)
    log_speed(tally, inside)
    log_end(tally, folder)
    return folder, tally


def measure(images, evaluator, results, tally: Tally) -> float:
    """Score the explanations of all images, here or on a cluster, and return the seconds spent inside the model."""
    options = results.options
    if options.ray:
        from explainer.command.measuring import measure_on_cluster

        return measure_on_cluster(images, options, results, tally)
    with evaluator.meter, progress(images) as bar:
        for image in bar:
            evaluate_image(image, evaluator, results, tally)
    return evaluator.meter.inside


def evaluate_image(image, evaluator, results, tally: Tally) -> None:
    """Score the explanations of one image, and write their rows as they come."""
    from explainer.files.sources import read_image

    started = perf_counter()
    try:
        image_rgb = read_image(image.path, results.options.max_megapixels, image.place)
        for rows in evaluator(image_rgb, image.labels, results.finished_of(image.path)):
            results.add(image.path, rows)
    except UnreadableImageError as error:
        tally.skip(image.path, error)
        return
    tally.done += 1
    tally.seconds += perf_counter() - started


def report(results, evaluator, tally: Tally) -> None:
    """Write what a run amounts to: tables, pictures unless they are not wanted, and a page with both if it is."""
    from explainer.evaluation.summary import about, markdown, summarise

    rows = results.table()
    summary = summarise(rows, results.options.seed)
    results.save_text("table.csv", summary.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    results.save_text("table.md", markdown(summary, about(rows, results.options)))
    pictures = () if results.options.nosave else pictures_of(rows, summary, evaluator)
    if results.options.report:
        save_page(about(rows, results.options), summary, pictures, results, tally)
        return
    for name, _, picture in pictures:
        results.save_picture(name, picture)


def pictures_of(rows, summary, evaluator):
    """Yield the file, the title and the picture of the plots, and of the best and the worst examples of each contender."""
    from explainer.evaluation.charts import cost_chart, curve_chart, example_sheets, figure_chart

    yield "curves.png", "Scores while pixels are deleted and inserted", curve_chart(rows, summary)
    yield "figures.png", "All figures with their confidence intervals", figure_chart(summary)
    yield "cost.png", "Faithfulness against cost", cost_chart(summary)
    for name, picture in example_sheets(rows, evaluator):
        yield f"examples/{name}.jpg", f"{name.replace('_', ' ')}: the best explanations above, the worst below", picture


def save_page(about: str, summary, pictures, results, tally: Tally) -> None:
    """Write the pictures, and a page with them and the tables; `about` says what was evaluated."""
    from explainer.command.reporting import facts_of, log_page, warnings_of
    from explainer.evaluation.summary import known_figures, meanings, tables_of
    from explainer.pictures.report import Report

    with results.page() as page:
        facts = facts_of("evaluate.py", results.options)
        whole = Report(page, title="Evaluation of explanations", about=about, facts=facts)
        for table in tables_of(summary):
            whole.add_table(*table)
        for name, title, picture in pictures:
            results.save_picture(name, picture)
            whole.add_picture(title, picture, Path(name).suffix)
        log_page(whole.write(warnings=warnings_of(tally), remarks=meanings(known_figures(summary))))


def log_speed(tally: Tally, inside: float) -> None:
    """Log how long an image took, and how much of that was spent `inside` the model, in seconds."""
    from utils.general import LOGGER

    if tally.done:
        LOGGER.info(
            f"Speed: {tally.seconds / tally.done:.2f}s per image, "
            f"{100 * inside / tally.seconds:.0f} % of it inside the model"
        )


def parse_opt(arguments: list[str] | None = None) -> Namespace:
    """Return the options given on the command line, with defaults for the rest."""
    return build_parser(__doc__.strip(), Evaluation).parse_args(arguments)


def main(opt: Namespace) -> int:
    """Run the command; return its exit code: 0, 1 if something was lost, 2 for a mistake, 130 after an interrupt."""
    return exit_code("evaluate", lambda: evaluate(build_options(vars(opt), Evaluation))[1])


if __name__ == "__main__":
    open_streams()
    leave(main(parse_opt()))
