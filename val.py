"""Measure how well a detector finds the labelled objects of a data set: precision, recall, mAP.

    python val.py --weights yolov5s.pt --data coco128.yaml --imgsz 640
    python val.py --weights yolov5s.pt --data coco128.yaml --task speed --device 0 --batch-size 1
    python val.py --weights yolov5n.pt yolov5s.pt --data coco128.yaml --task study

Results go to runs/val/exp, exp2, ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.errors import open_streams
from utils.base.command_line import build_parser, exit_code
from utils.validating.options import ValOptions

# torch and OpenCV are imported where they are needed, so that --help and mistakes are answered at once.
if TYPE_CHECKING:
    import torch

    from utils.validating.validation import Evaluation, ValSettings

STUDY_SIZES = range(256, 1536 + 128, 128)
# What the task speed measures with: as detect.py does.
SPEED_SETTINGS = {"conf_thres": 0.25, "iou_thres": 0.45, "save_json": False}


@dataclass(frozen=True)
class Job:
    """All that a validation needs, checked and loaded.

    Attributes:
        model: what is measured; names: its classes by index; nc: how many classes count.
        loader: of the images; folder: of the results.
    """

    options: ValOptions
    model: Any
    names: dict[int, str]
    nc: int
    loader: Iterable
    device: torch.device
    folder: Path
    plots: bool
    settings: ValSettings


def run(
    data: str | Path | dict,
    weights: str | Path | None = None,
    batch_size: int = 32,
    imgsz: int = 640,
    *,
    model: Any = None,
    dataloader: Any = None,
    save_dir: str | Path = "",
    plots: bool = True,
    compute_loss: Callable | None = None,
    **options: Any,
) -> tuple[tuple[float, ...], Any, tuple[float, float, float]]:
    """Validate weights, or a model that is already loaded, with the options of the command by keyword.

    Args:
        data: a dataset YAML, or its checked content.
        weights: a checkpoint or several.
        batch_size: images per batch.
        imgsz: pixels of the longer side.
        model: a detector in memory, instead of `weights`; needs `dataloader`, and afterwards is as it was.
        dataloader: its batches.
        save_dir: where pictures and files go for `model`.
        plots: whether to save pictures.
        compute_loss: a `utils.loss.ComputeLoss` of the model, for the losses.
        options: see `utils.validating.options.ValOptions`.

    Returns:
        (P, R, mAP50, mAP50-95, box loss, objectness loss, class loss), (nc,) mAP50-95 of each class, milliseconds per
        image before, during and after the forward pass.
    """
    given = {"data": data, "batch_size": batch_size, "imgsz": imgsz, **options}
    checked = ValOptions(**(given if weights is None else {**given, "weights": weights}))
    if model is None:
        return validate(prepare(checked, plots=plots)).as_tuple()
    job = prepare_loaded(checked, model, dataloader, save_dir=Path(save_dir), plots=plots)
    return validate_loaded(job, compute_loss).as_tuple()


def prepare(options: ValOptions, *, plots: bool = True) -> Job:
    """Check everything that the user gave, the quick checks first, load the model and find the images."""
    from explainer.checkpoints.repair import names_by_index
    from models.common import DetectMultiBackend
    from utils.base.checks import check_img_size, print_args
    from utils.base.devices import select_device
    from utils.base.downloads import attempt_download
    from utils.base.paths import increment_path
    from utils.data.dataset_yaml import check_dataset

    print_args(asdict(options))
    data = check_dataset(options.data)
    weights = [attempt_download(path) for path in options.weights]
    device = select_device(options.device, batch_size=options.batch_size)
    yaml_file = data.get("yaml_file")
    model = DetectMultiBackend(
        weights, device=device, dnn=options.dnn, data=yaml_file, fp16=options.half, trust=options.trust
    )
    check_model(model, data, options)
    imgsz = check_img_size(options.imgsz, s=model.stride)
    model.warmup(imgsz=(1, 3, imgsz, imgsz))
    options = replace(options, imgsz=imgsz, batch_size=options.batch_size if model.pt or model.jit else 1)
    loader = open_loader(options, data, stride=model.stride, rect=model.pt)
    folder = increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok, mkdir=True)
    nc = 1 if options.single_cls else data["nc"]
    names = names_by_index(model.names, max(nc, len(model.names)))
    return Job(options, model, names, nc, loader, device, folder, plots, settings_of(options, model.fp16))


def check_model(model: Any, data: dict, options: ValOptions) -> None:
    """Raise ValueError when a checkpoint is no detector, or does not know the classes of the data set."""
    from explainer.checkpoints.repair import is_head

    if not model.pt:
        return
    weights = " ".join(options.weights)
    heads = [module for module in model.modules() if is_head(module)]
    if not heads or any(hasattr(head, "nm") for head in heads):
        raise ValueError(f"{weights} does not detect alone; give a detection checkpoint such as yolov5n.pt")
    known = len(model.names)
    if not options.single_cls and known != data["nc"]:
        raise ValueError(
            f"{weights} knows {known} classes, but {data['yaml_file']} has {data['nc']}; "
            f"give --data with the data set that it was trained on"
        )


def open_loader(options: ValOptions, data: dict, *, stride: int, rect: bool) -> Any:
    """Return the loader of the split that the task names; ValueError for labels of unknown classes."""
    from utils.data.loaders import create_dataloader
    from utils.data.scan import check_classes

    split = options.task if options.task in ("train", "val", "test") else "val"
    if not data.get(split):
        raise ValueError(f"{data['yaml_file']} names no images to {split}; add '{split}: ...' to it")
    loader, dataset = create_dataloader(
        data[split],
        options.imgsz,
        options.batch_size,
        stride,
        options.single_cls,
        pad=0.5 if rect and options.task != "speed" else 0.0,
        rect=rect,
        workers=options.workers,
        prefix=f"{split}: ",
    )
    check_classes(dataset.label_files, dataset.labels, 1 if options.single_cls else data["nc"])
    return loader


def settings_of(options: ValOptions, half: bool) -> ValSettings:
    """Return what the validator needs to know of the options."""
    from utils.validating.validation import ValSettings

    return ValSettings(
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_det=options.max_det,
        single_cls=options.single_cls,
        augment=options.augment,
        half=half,
        autolabel=options.save_hybrid,
    )


def validate(job: Job) -> Evaluation:
    """Measure, write what was asked for, and log the figures."""
    from utils.validating.validation import Validator

    writers = Writers(job)
    evaluation = Validator(job.model, job.loader, job.settings, nc=job.nc, device=job.device).run(writers.observers)
    report(job, evaluation, saved=writers.finish(evaluation))
    return evaluation


def report(job: Job, evaluation: Evaluation, *, saved: bool) -> None:
    """Log the figures, the speed, and where the results are."""
    from utils.base.logger import LOGGER, colorstr
    from utils.validating.validation import log_evaluation

    log_evaluation(evaluation, job.names, verbose=job.options.verbose)
    before, during, after = evaluation.milliseconds
    shape = (job.options.batch_size, 3, job.options.imgsz, job.options.imgsz)
    LOGGER.info(f"Speed: {before:.1f}ms pre-process, {during:.1f}ms inference, {after:.1f}ms NMS per image at {shape}")
    if saved:
        LOGGER.info(f"Results saved to {colorstr('bold', str(job.folder))}")


class Writers:
    """The files that a validation leaves. `observers` are shown every batch; `finish` writes the rest."""

    def __init__(self, job: Job) -> None:
        from utils.base.paths import ResultFolder
        from utils.validating.files import BatchPictures, JsonFile, LabelFiles, count_confusions
        from utils.validating.metrics import ConfusionMatrix

        options = job.options
        self.job = job
        self.observers: list[Callable] = []
        self.confusion, self.json = ConfusionMatrix(job.nc), None
        if options.save_txt:
            self.observers.append(LabelFiles(job.folder / "labels", save_conf=options.save_conf))
        if options.save_json:
            weights = Path(options.weights[0]).stem
            self.json = JsonFile(job.folder / f"{weights}_predictions.json", is_coco=_is_coco(options.data))
            self.observers.append(self.json)
        if job.plots:
            self.observers += [BatchPictures(job.folder, job.names), lambda b: count_confusions(self.confusion, b)]
        if self.observers:
            self.results = ResultFolder(job.folder)
            # Before any other makes a folder in place of one that was deleted.
            self.observers.insert(0, lambda batch: self.results.check())

    def finish(self, evaluation: Evaluation) -> bool:
        """Write the JSON and the pictures; return whether anything was written at all.

        Raises:
            FailedWriteError: also where the folder was deleted meanwhile.
        """
        from utils.validating.pictures import save_curves

        if self.observers:
            self.results.check()
        if self.json:
            self.json.write()
        if self.job.plots:
            save_curves(evaluation.curves, self.job.names, self.job.folder)
            names = self.job.names if self.job.nc == len(self.job.names) else {0: "object"}
            self.confusion.plot(save_dir=self.job.folder, names=names)
        return bool(self.observers)


def _is_coco(data: str | dict) -> bool:
    """Whether a dataset YAML is COCO's own, whose categories have numbers with gaps."""
    name = data.get("yaml_file", "") if isinstance(data, dict) else data
    return Path(str(name)).name == "coco.yaml"


def validate_loaded(job: Job, compute_loss: Callable | None) -> Evaluation:
    """Measure a model in memory and log the row of all classes; it is afterwards as it was."""
    from utils.validating.validation import evaluate_loaded, log_evaluation

    writers = Writers(job)
    evaluation = evaluate_loaded(
        job.model, job.loader, job.settings, nc=job.nc, compute_loss=compute_loss, observers=writers.observers
    )
    writers.finish(evaluation)
    log_evaluation(evaluation, job.names, verbose=job.options.verbose)
    return evaluation


def prepare_loaded(options: ValOptions, model: Any, loader: Any, *, save_dir: Path, plots: bool) -> Job:
    """Return the job for a model in memory."""
    from explainer.checkpoints.repair import count_classes, names_by_index

    if loader is None:
        raise ValueError("a model in memory needs its batches: give dataloader as well")
    device = next(model.parameters()).device
    classes = count_classes(model) or len(model.names)
    nc, names = 1 if options.single_cls else classes, names_by_index(getattr(model, "names", None), classes)
    settings = settings_of(options, options.half and device.type != "cpu")
    return Job(options, model, names, nc, loader, device, save_dir, plots, settings)


def measure_speed(options: ValOptions) -> None:
    """Validate each of the weights with the thresholds that detect.py uses."""
    for weights in options.weights:
        validate(prepare(replace(options, weights=weights, **SPEED_SETTINGS), plots=False))


def study(options: ValOptions) -> None:
    """Validate each of the weights at many sizes, and write figures and times to study_<data>_<weights>.txt."""
    from utils.base.paths import writing_whole

    for weights in options.weights:
        path = Path(f"study_{Path(str(options.data)).stem}_{Path(weights).stem}.txt")
        rows = []
        for imgsz in STUDY_SIZES:
            one_size = replace(options, weights=weights, imgsz=imgsz, iou_thres=0.65, save_json=False)
            figures, _, milliseconds = validate(prepare(one_size, plots=False)).as_tuple()
            rows.append((imgsz, *figures, *milliseconds))
            with writing_whole(path) as part:
                part.write_text("".join(" ".join(f"{v:.4g}" for v in row) + "\n" for row in rows), encoding="utf-8")


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    return build_parser(ValOptions, "val.py", "Measure a detector on a data set.").parse_args(arguments)


def main(opt: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, 1 for a failed write, 2 for a mistake, 130 for Ctrl-C."""
    if opt.task in ("speed", "study"):
        work = measure_speed if opt.task == "speed" else study
        return exit_code("val.py", lambda: ValOptions(**vars(opt)), work)
    return exit_code("val.py", lambda: prepare(ValOptions(**vars(opt))), validate)


if __name__ == "__main__":
    open_streams()
    sys.exit(main(parse_opt()))
