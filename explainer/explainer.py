"""Explain what a YOLOv5 model detects, and why.

python explainer/explainer.py --weights best.pt --source img.jpg --method GradCAM
"""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path.insert(0, str(ROOT))

from explainer.errors import UnreadableImageError, UsageError  # noqa: E402
from explainer.options import Options, build_options, build_parser, keyword_signature  # noqa: E402


@dataclass
class Tally:
    """What a run has done so far: the last picture, images explained and skipped, seconds spent explaining and saving."""

    image_rgb: np.ndarray | None = None
    explained: int = 0
    skipped: int = 0
    explaining: float = 0.0
    saving: float = 0.0


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


def explain_source(options: Options) -> Tally:
    """Explain every image of the source: open what is needed, then explain, draw and save one image after the other."""
    from explainer.results import Results, free_folder
    from explainer.sources import Source, Unreadable
    from explainer.weights import check_weights, open_model

    check_weights(options.weights)
    if options.view_img:
        check_display()
    source = Source(options.source, options.vid_stride)
    folder = free_folder(options.project, options.name, options.exist_ok)

    from explainer.explain import Explainer

    model = open_model(
        options.weights, device=options.device, half=options.half, data=options.data, trust=options.trust
    )
    explainer = Explainer(model, **options.settings)
    tally = Tally()
    with closing(source), Results(folder) as results, progress(source) as frames:
        for frame in frames:
            if isinstance(frame, Unreadable):
                skip(frame, tally)
                continue
            explain_frame(frame, explainer, results, options, tally)
    log_closing(tally, folder)
    return tally


def explain_frame(frame, explainer, results, options: Options, tally: Tally) -> None:
    """Explain one image, then draw, save and show it."""
    from explainer.sources import Unreadable

    started = perf_counter()
    try:
        explanation = explainer(frame.image_rgb)
    except UnreadableImageError as error:
        skip(Unreadable(frame.path, str(error)), tally)
        return
    explained = perf_counter()
    tally.image_rgb = save(frame, explanation, results, options)
    tally.explained += 1
    tally.explaining += explained - started
    tally.saving += perf_counter() - explained
    log_frame(frame, explanation, explained - started, options.verbose)
    if options.view_img:
        show(frame, tally.image_rgb)


def save(frame, explanation, results, options: Options) -> np.ndarray:
    """Write the rows and pictures of one image and return its overlay, RGB."""
    from explainer.drawing import Style

    style = Style(
        line_thickness=options.line_thickness,
        hide_labels=options.hide_labels,
        hide_conf=options.hide_conf,
        crop=options.crop,
    )
    results.add_rows(frame, explanation)
    picture = explanation.overlay(style)
    if not options.nosave:
        results.save(frame, picture)
        for name, further in further_pictures(explanation, style, options.per_detection):
            results.save_beside(frame, name, further)
    if options.save_npz:
        results.save_arrays(frame, explanation)
    return picture


def further_pictures(explanation, style, per_detection: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the picture of each class and each detection of an image, one at a time."""
    from explainer.sheets import contact_sheet, detection_overlays

    for name in explanation.per_class:
        yield name, explanation.overlay(style, name)
    if per_detection:
        overlays = detection_overlays(explanation, style)
        for index, (entry, (_, picture)) in enumerate(zip(explanation.detections, overlays, strict=True)):
            yield f"{index}_{entry.detection.name}_{entry.detection.confidence:.2f}", picture
        yield "sheet", contact_sheet(explanation, style)


def check_display() -> None:
    """Raise UsageError where no window can be opened."""
    from utils.general import check_imshow

    if not check_imshow(warn=False):
        raise UsageError("--view-img needs a display and an OpenCV with windows; leave it out, the pictures are saved")


def show(frame, picture_rgb: np.ndarray) -> None:
    """Show one overlay in a window."""
    import cv2

    cv2.imshow(str(frame.path), picture_rgb[..., ::-1])
    cv2.waitKey(1)


@contextmanager
def progress(source) -> Iterator:
    """Give the source's frames under a bar that log lines do not tear, where there is a terminal and more than one file."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from utils.general import LOGGER

    several = source.length is not None and source.length > 1
    with (
        logging_redirect_tqdm([LOGGER]),
        tqdm(source, total=source.length, unit="image", disable=None if several else True) as frames,
    ):
        yield frames


def skip(unreadable, tally: Tally) -> None:
    """Report and count one file that could not be explained."""
    from utils.general import LOGGER

    LOGGER.warning(f"WARNING ⚠️ skipped {unreadable.path}: {unreadable.reason}")
    tally.skipped += 1


def log_frame(frame, explanation, seconds: float, verbose: bool) -> None:
    """Log one line per image as detect.py does, why a map is empty, and each detection where it is asked for."""
    from utils.general import LOGGER

    counts = Counter(entry.detection.name for entry in explanation.detections)
    found = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items()) or "(no detections)"
    height, width = explanation.image_rgb.shape[:2]
    LOGGER.info(f"{frame.caption}{height}x{width} {found}, {seconds * 1e3:.1f}ms")
    for note in explanation.notes:
        LOGGER.info(f"  {frame.path.name}: {note}")
    if verbose:
        for entry in explanation.detections:
            LOGGER.info(
                f"  {entry.detection.name} {entry.detection.confidence:.2f}: stride {entry.detection.stride}, "
                f"layer {' '.join(entry.layers)}, score {entry.score:.4g}"
            )


def log_closing(tally: Tally, folder: Path) -> None:
    """Log where the results are and how long an image took."""
    from utils.general import LOGGER

    if tally.explained:
        explaining, saving = (1e3 * seconds / tally.explained for seconds in (tally.explaining, tally.saving))
        LOGGER.info(f"Speed: {explaining:.1f}ms explain, {saving:.1f}ms draw and save per image")
    if tally.skipped:
        LOGGER.warning(f"WARNING ⚠️ {tally.skipped} of {tally.skipped + tally.explained} images skipped")
    LOGGER.info(f"Results saved to {folder}")


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
    sys.exit(main(parse_opt()))
