"""Detect objects in images, videos, folders, streams and on the screen.

    python detect.py --weights yolov5s.pt --source img.jpg
                                                   vid.mp4
                                                   folder/
                                                   'folder/*.jpg'
                                                   list.txt                    # a file with paths
                                                   list.streams                # a file with streams
                                                   https://host/img.jpg        # is downloaded
                                                   rtsp://host/camera          # RTSP, RTMP, HTTP stream
                                                   0                           # webcam
                                                   'screen 0 100 100 512 256'  # part of the screen

Results go to runs/detect/exp, exp2, ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.errors import UsageError, open_streams
from utils.base.command_line import build_parser, exit_code
from utils.detecting.options import DetectOptions

# torch and OpenCV are imported where they are needed, so that --help and mistakes are answered at once.
if TYPE_CHECKING:
    from utils.detecting.detector import Detector, Found
    from utils.detecting.files import ResultFiles
    from utils.sources.pictures import Batch, Batches


@dataclass(frozen=True)
class Job:
    """All that a run needs, checked and loaded."""

    options: DetectOptions
    detector: Detector
    loader: Any
    folder: Path
    imgsz: list[int]
    show: bool


@dataclass(frozen=True)
class Summary:
    """What came of a run: the folder of results, and how many pictures were seen and files could not be read."""

    folder: Path
    seen: int
    unreadable: int


def run(**options: Any) -> Summary:
    """Detect, with the options of the command by keyword: `run(source="img.jpg", conf_thres=0.4)`.

    Raises:
        ValueError: for an option that makes no sense, or weights that are no detection model.
        FileNotFoundError, OSError: for a source or weights that are not there, or results that cannot be written.
    """
    return detect(prepare(DetectOptions(**options)))


def prepare(options: DetectOptions) -> Job:
    """Check everything that the user gave, the quick checks first, and load the model."""
    from utils.base.checks import check_img_size, check_imshow, check_yaml, print_args
    from utils.base.downloads import attempt_download
    from utils.base.media import is_stream
    from utils.base.paths import check_writable, increment_path
    from utils.sources.pictures import check_source, open_loader

    check_source(options.source)
    check_writable(options.project)
    weights = [attempt_download(path) for path in as_list(options.weights)]
    data = check_yaml(options.data)
    print_args(asdict(options))

    model = load_model(options, weights, data)
    if model.pt:
        check_classes(options.classes, model.names)
    imgsz = check_img_size(options.imgsz, s=model.stride)
    detector = make_detector(model, options)
    detector.check([2 * model.stride] * 2 if model.pt else imgsz)
    model.warmup(imgsz=(1, 3, *imgsz))

    show = (options.view_img or is_stream(options.source)) and check_imshow(warn=options.view_img)
    loader = open_loader(options.source, imgsz, stride=model.stride, auto=model.pt, vid_stride=options.vid_stride)
    folder = increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok, mkdir=True)
    return Job(options, detector, loader, folder, imgsz, show)


def load_model(options: DetectOptions, weights: list[str], data: str) -> Any:
    """Return the DetectMultiBackend of the weights on the device asked for."""
    from models.common import DetectMultiBackend
    from utils.base.devices import select_device

    device = select_device(options.device)
    return DetectMultiBackend(
        weights, device=device, dnn=options.dnn, data=data, fp16=options.half, trust=options.trust
    )


def make_detector(model: Any, options: DetectOptions) -> Detector:
    """Return the step from pictures to detections."""
    from utils.detecting.detector import Detector

    nms_options = {
        "conf_thres": options.conf_thres,
        "iou_thres": options.iou_thres,
        "classes": options.classes,
        "agnostic": options.agnostic_nms,
        "max_det": options.max_det,
    }
    return Detector(model, nms_options, augment=options.augment)


def check_classes(classes: tuple[int, ...] | None, names: Mapping[int, str]) -> None:
    """Raise UsageError for a class number that the model does not have."""
    for number in classes or ():
        if number not in names:
            known = ", ".join(f"{i} {name}" for i, name in names.items())
            raise UsageError(f"class {number} is unknown; this model has {known}")


def detect(job: Job) -> Summary:
    """Take one batch after the other through detection, drawing and saving."""
    from utils.base.logger import LOGGER
    from utils.detecting.files import ResultFiles
    from utils.sources.pictures import Batches

    seen = 0
    names = job.detector.model.names
    with closing(job.loader), ResultFiles(job.folder, job.options, names) as results:
        batches = Batches(job.loader)
        for batch in batches:
            found = detect_batch(batch, job, results)
            seen += len(batch.pictures)
            LOGGER.info(log_line(batch, found, names, job.detector.timers[1].dt))
            if not keep(batch, found, job, results):
                break
    log_closing(job, results, seen, batches)
    return Summary(job.folder, seen, batches.unreadable)


def detect_batch(batch: Batch, job: Job, results: ResultFiles) -> list[Found]:
    """Return the detections of every picture of a batch."""
    from utils.base.paths import increment_path

    maps_folder: Path | bool = False
    if job.options.visualize:
        results.check_there()
        maps_folder = increment_path(job.folder / Path(results.output_name(batch.pictures[0])).stem, mkdir=True)
    shapes = [picture.im_bgr.shape[:2] for picture in batch.pictures]
    return job.detector(batch.im, shapes, visualize=maps_folder)


def keep(batch: Batch, found: list[Found], job: Job, results: ResultFiles) -> bool:
    """Save what was found, draw it, save and show the pictures; return whether to go on."""
    go_on = True
    for picture, detections in zip(batch.pictures, found, strict=True):
        results.save_detections(picture, detections)
        if job.options.nosave and not job.show:
            continue
        draw(picture.im_bgr, detections, job.options, results.names)
        if not job.options.nosave:
            results.save_picture(picture)
        if job.show:
            go_on = show(picture.path, picture.im_bgr) and go_on
    return go_on


def draw(im_bgr: Any, found: Found, options: DetectOptions, names: Mapping[int, str]) -> None:
    """Draw masks, boxes and labels on a picture, in place, the most confident on top."""
    from utils.plots import Annotator, colors

    masks = list(zip(found.masks(), found.boxes[:, 5].tolist(), strict=False))
    annotator = Annotator(im_bgr, line_width=options.line_thickness, example=str(names))
    for mask, category in reversed(masks):
        annotator.masks(mask[None], [colors(category, bgr=True)])
    for *xyxy, confidence, category in reversed(found.boxes.tolist()):
        name = names[int(category)]
        label = "" if options.hide_labels else name if options.hide_conf else f"{name} {confidence:.2f}"
        annotator.box_label(xyxy, label, color=colors(category, bgr=True))
    im_bgr[:] = annotator.result()


def show(title: str, im_bgr: Any) -> bool:
    """Show a picture in a window; return False when the user pressed q."""
    import cv2

    cv2.imshow(title, im_bgr)
    return cv2.waitKey(1) & 0xFF != ord("q")


def log_line(batch: Batch, found: list[Found], names: Mapping[int, str], seconds: float) -> str:
    """Return e.g. `image 1/2 /path/bus.jpg: 640x480 4 persons, 1 bus, 45.3ms`."""
    height, width = batch.im.shape[-2:]
    parts = [f"{height}x{width} {detections.summary(names)}" for detections in found]
    if batch.pictures[0].mode == "stream" and not batch.text:
        parts = [f"{i}: {part}" for i, part in enumerate(parts)]
    return f"{batch.text}{''.join(parts)}{seconds * 1e3:.1f}ms"


def log_closing(job: Job, results: ResultFiles, seen: int, batches: Batches) -> None:
    """Log the speed, where the results are, and how many files could not be read."""
    from utils.base.logger import LOGGER, colorstr

    if seen:
        before, inference, nms = (timer.t / seen * 1e3 for timer in job.detector.timers)
        speed = f"{before:.1f}ms pre-process, {inference:.1f}ms inference, {nms:.1f}ms NMS"
        LOGGER.info(f"Speed: {speed} per image at shape {(1, 3, *job.imgsz)}")
    if job.options.save_txt or not job.options.nosave:
        labels = f"\n{results.labels_saved()} labels saved to {job.folder / 'labels'}" if job.options.save_txt else ""
        LOGGER.info(f"Results saved to {colorstr('bold', str(job.folder))}{labels}")
    if job.options.update:
        LOGGER.info("--update does nothing: old checkpoints are read as they are")
    if batches.unreadable:
        LOGGER.error(f"ERROR: {batches.unreadable} of the sources could not be read and were skipped")


def as_list(value: Any) -> list:
    """Return one thing as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    description = "Detect objects in images, videos and streams."
    return build_parser(DetectOptions, "detect.py", description).parse_args(arguments)


def main(opt: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, 1 when a file could not be read or written, 2 for a mistake, 130."""
    return exit_code(
        "detect.py",
        lambda: prepare(DetectOptions(**vars(opt))),
        detect,
        is_partial=lambda summary: summary.unreadable > 0,
    )


if __name__ == "__main__":
    open_streams()
    sys.exit(main(parse_opt()))
