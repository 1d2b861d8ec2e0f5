"""Train a detector on a data set, from a checkpoint or from nothing.

    python train.py --data coco128.yaml --weights yolov5n.pt --imgsz 640                  # fine-tune
    python train.py --data coco128.yaml --weights '' --cfg yolov5n.yaml --imgsz 640       # from nothing
    python train.py --resume                                                              # go on after a kill
    python train.py --data coco128.yaml --weights yolov5n.pt --epochs 10 --evolve 300     # find hyperparameters
    torchrun --nproc_per_node 4 train.py --data coco128.yaml --weights yolov5n.pt         # several GPUs

Results go to runs/train/exp, exp2, ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explainer.errors import UsageError, open_streams
from utils.base.command_line import build_parser, exit_code
from utils.training.options import TrainOptions

# torch and OpenCV are imported where they are needed, so that --help and mistakes are answered at once.
if TYPE_CHECKING:
    import torch
    from torch import nn

    from utils.training.evolution import Evolution
    from utils.training.trainer import TrainData, Trainer


@dataclass(frozen=True)
class Job:
    """All that a training needs, checked and loaded. `data` is the checked dataset YAML."""

    options: TrainOptions
    trainer: Trainer
    data: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Summary:
    """What came of a training: its folder, and the figures of the best checkpoint.

    `results` are precision, recall, mAP50, mAP50-95, box, objectness and class loss.
    """

    folder: Path
    results: tuple[float, ...]


def run(**options: Any) -> Summary:
    """Train, with the options of the command by keyword: `run(data="coco128.yaml", imgsz=320, weights="yolov5n.pt")`.

    Raises:
        ValueError: for an option, a file or data that make no sense.
        FileNotFoundError, OSError: for files that are not there, or results that cannot be written.
    """
    from utils.base.distributed import process_group

    checked = TrainOptions(**options)
    with process_group(use_cuda=checked.device != "cpu"):
        return evolve(checked, prepare_evolution(checked)) if checked.evolve else train(prepare(checked))


def prepare(options: TrainOptions) -> Job:
    """Check everything that the user gave, the quick checks first, and load model and images."""
    from utils.base.checks import print_args
    from utils.base.devices import init_seeds
    from utils.base.distributed import process_index
    from utils.base.logger import LOGGER
    from utils.data.dataset_yaml import check_dataset
    from utils.training.checkpoints import take_up
    from utils.training.hyperparameters import load_hyp

    quiet_unless_main()
    options, resumed, folder = take_up(options) if options.resume else (options, None, None)
    print_args(options.as_plain())
    for line in options.without_effect():
        LOGGER.warning(f"WARNING: {line}")
    hyp = load_hyp(options.hyp)
    if hyp.get("label_smoothing", 0.0) not in (0.0, options.label_smoothing):
        smoothing = hyp["label_smoothing"]
        LOGGER.warning(
            f"WARNING: label_smoothing {smoothing} in --hyp does nothing: give --label-smoothing {smoothing}"
        )
    hyp["label_smoothing"] = options.label_smoothing
    data = check_dataset(options.data)
    check_combination(options)
    device = choose_device(options)
    source = resumed["model"].float() if resumed else find_source(options)
    init_seeds(options.seed + 1 + process_index(), deterministic=True)

    nc = 1 if options.single_cls else data["nc"]
    model = create_model(options, source, hyp=hyp, nc=nc).to(device)
    options = fit_to_model(options, model, hyp, device)
    folder = folder or open_folder(options, hyp)
    trainer = open_trainer(options, model, data, folder=folder, resumed=resumed)
    return Job(options, trainer, data, folder)


def open_trainer(
    options: TrainOptions, model: nn.Module, data: Mapping, *, folder: Path, resumed: Mapping | None
) -> Trainer:
    """Load the images, fit the model to them, and return what trains it."""
    from utils.autoanchor import check_anchors
    from utils.base.distributed import is_main
    from utils.training.hyperparameters import scaled_to_model
    from utils.training.trainer import Trainer

    hyp, head = dict(options.hyp), model.model[-1]
    names = {0: "item"} if options.single_cls and data["nc"] != 1 else dict(data["names"])
    train_data = load_data(options, data, names, stride=stride_of(model))
    if not options.noautoanchor and not resumed:
        check_anchors(train_data.dataset, model, thr=hyp["anchor_t"], imgsz=options.imgsz, seed=options.seed)
    model.nc, model.names = len(names), names
    model.hyp = scaled_to_model(hyp, levels=head.nl, classes=len(names), imgsz=options.imgsz)
    if is_main() and not resumed and not options.noplots:
        draw_labels(train_data, folder)
    device = next(model.parameters()).device
    return Trainer(model, train_data, options, folder=folder, device=device, resumed=resumed)


def quiet_unless_main() -> None:
    """Let only the first of several processes log more than errors."""
    from utils.base.distributed import is_main
    from utils.base.logger import LOGGER

    if not is_main():
        LOGGER.setLevel("ERROR")


def check_combination(options: TrainOptions) -> None:
    """Raise ValueError for options that do not go together."""
    from utils.base.distributed import process_count

    count = process_count()
    if count > 1 and options.image_weights:
        raise ValueError("--image-weights works in one process only; leave it off, or train without torchrun")
    if count > 1 and options.batch_size % count:
        raise ValueError(f"--batch-size {options.batch_size} does not divide by {count} processes; give a multiple")
    if options.quad and (options.batch_size // count) % 4:
        raise ValueError(f"--quad joins four images; give a --batch-size that is a multiple of {4 * count}")


def find_source(options: TrainOptions) -> nn.Module | None:
    """Return the model in the checkpoint to start from, fetched where it is official and missing; None for none.

    Raises:
        ValueError: for a checkpoint that holds no detector.
    """
    from explainer.checkpoints.checkpoint import load_model
    from models.yolo import DetectionModel
    from utils.base.checks import check_suffix
    from utils.base.distributed import process_rank, rank_zero_first
    from utils.base.downloads import attempt_download

    if not options.weights:
        return None
    check_suffix(options.weights, (".pt",), msg="--weights ")
    with rank_zero_first(process_rank()):
        weights = attempt_download(options.weights)
    source = load_model(weights, trust=options.trust)
    if not isinstance(source, DetectionModel):
        raise ValueError(f"{weights} holds a {type(source).__name__}; give a detection checkpoint such as yolov5n.pt")
    return source


def choose_device(options: TrainOptions) -> torch.device:
    """Return the device of this process; ValueError where several are named without torchrun."""
    import torch

    from utils.base.devices import select_device
    from utils.base.distributed import local_rank

    rank = local_rank()
    if rank == -1 and "," in options.device:
        count = len(options.device.split(","))
        raise ValueError(
            f"--device {options.device} names several GPUs: torchrun --nproc_per_node {count} train.py ..."
        )
    if rank == -1 or options.device == "cpu" or not torch.cuda.is_available():
        return select_device(options.device)
    numbers = [word for word in options.device.split(",") if word] or [str(i) for i in range(torch.cuda.device_count())]
    if rank >= len(numbers):
        raise ValueError(f"process {rank} has no GPU of its own: start as many processes as there are ({len(numbers)})")
    device = select_device(numbers[rank])
    torch.cuda.set_device(device)
    return device


def create_model(options: TrainOptions, source: nn.Module | None, *, hyp: Mapping[str, Any], nc: int) -> nn.Module:
    """Return a model with as many weights of `source` as fit it, all trainable but those of frozen layers.

    Raises:
        ValueError: for a model that is no detector.
    """
    from models.yolo import Detect, DetectionModel
    from utils.base.logger import LOGGER
    from utils.training.checkpoints import intersect_dicts

    model = DetectionModel(options.cfg or source.yaml, ch=3, nc=nc, anchors=hyp.get("anchors"))
    if type(model.model[-1]) is not Detect:
        raise ValueError(
            f"the model ends in {type(model.model[-1]).__name__}; only models that end in Detect are trained"
        )
    if model.yaml["ch"] != 3:
        raise ValueError(f"the model takes images of {model.yaml['ch']} channels; only those of 3 are trained")
    if source is not None:
        # New anchors, named by the user, must not be overwritten by the checkpoint's.
        exclude = ("anchor",) if (options.cfg or hyp.get("anchors")) and not options.resume else ()
        fitting = intersect_dicts(source.state_dict(), model.state_dict(), exclude)
        model.load_state_dict(fitting, strict=False)
        LOGGER.info(f"Transferred {len(fitting)}/{len(model.state_dict())} items from {options.weights}")
    freeze(model, options.frozen_layers)
    return model


def freeze(model: nn.Module, layers: tuple[int, ...]) -> None:
    """Make all parameters trainable but those of `layers`; ValueError for a layer that the model does not have."""
    from utils.base.logger import LOGGER

    count = len(model.model)
    if layers and max(layers) >= count:
        raise ValueError(f"--freeze: the model has no layer {max(layers)}; its layers are 0 to {count - 1}")
    model.requires_grad_(True)
    for i in layers:
        model.model[i].requires_grad_(False)
    if layers:
        LOGGER.info(f"freezing layers {', '.join(map(str, layers))}")


def stride_of(model: nn.Module) -> int:
    """Return what image sides must be multiples of, in pixels."""
    return max(int(model.stride.max()), 32)


def fit_to_model(options: TrainOptions, model: nn.Module, hyp: dict, device: torch.device) -> TrainOptions:
    """Return options whose image size suits the model, with a batch size that fits onto the GPU where asked for."""
    from utils.autobatch import find_batch_size
    from utils.base.checks import check_img_size

    stride = stride_of(model)
    imgsz = check_img_size(options.imgsz, stride, floor=stride * 2)
    batch_size = options.batch_size
    if batch_size == -1:
        batch_size = find_batch_size(model, imgsz, device)
    return replace(options, imgsz=imgsz, batch_size=batch_size, hyp=dict(hyp))


def open_folder(options: TrainOptions, hyp: dict[str, float]) -> Path:
    """Return the folder of a new run, with its hyperparameters and options in it."""
    import yaml

    from utils.base.distributed import is_main
    from utils.base.paths import increment_path, writing_whole

    folder = Path(options.project) / options.name
    if not is_main():
        return folder
    folder = increment_path(folder, exist_ok=options.exist_ok, mkdir=True)
    (folder / "weights").mkdir(exist_ok=True)
    for name, content in (("hyp", hyp), ("opt", options.as_plain() | {"save_dir": str(folder)})):
        with writing_whole(folder / f"{name}.yaml") as part:
            part.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def load_data(options: TrainOptions, data: Mapping, names: dict[int, str], *, stride: int) -> TrainData:
    """Return the images to train and validate on; ValueError for labels that make no sense."""
    from utils.base.distributed import process_count, process_rank
    from utils.data.loaders import create_dataloader
    from utils.data.scan import check_classes
    from utils.training.trainer import TrainData

    batch_size = options.batch_size // process_count()
    loader, dataset = create_dataloader(
        data["train"],
        options.imgsz,
        batch_size,
        stride,
        options.single_cls,
        hyp=options.hyp,
        augment=True,
        cache=options.cache,
        rect=options.rect,
        rank=process_rank(),
        workers=options.workers,
        image_weights=options.image_weights,
        quad=options.quad,
        prefix="train: ",
        shuffle=True,
        seed=options.seed,
    )
    check_classes(dataset.label_files, dataset.labels, len(names))
    if not any(map(len, dataset.labels)):
        raise ValueError(
            f"the images in {data['train']} have no labels, as in {dataset.label_files[0]}; nothing to learn"
        )
    val_loader = load_val_data(options, data, batch_size=2 * batch_size, nc=len(names), stride=stride)
    return TrainData(loader, dataset, val_loader, names)


def load_val_data(options: TrainOptions, data: dict, *, batch_size: int, nc: int, stride: int) -> Any:
    """Return the loader to validate with in the first process, None in the others."""
    from utils.base.distributed import is_main
    from utils.data.loaders import create_dataloader
    from utils.data.scan import check_classes

    if not is_main():
        return None
    loader, dataset = create_dataloader(
        data["val"],
        options.imgsz,
        batch_size,
        stride,
        options.single_cls,
        cache=None if options.noval else options.cache,
        pad=0.5,
        rect=True,
        workers=options.workers * 2,
        prefix="val: ",
    )
    check_classes(dataset.label_files, dataset.labels, nc)
    return loader


def draw_labels(data: TrainData, folder: Path) -> None:
    """Save a picture of what the labels are like."""
    from utils.data.pictures import plot_labels

    plot_labels(data.dataset.labels, data.names, folder)


def train(job: Job) -> Summary:
    """Train, then make the checkpoints ready to detect with and measure the best one."""
    from utils.base.distributed import is_main, wait_for_all

    job.trainer.fit()
    summary = finish(job) if is_main() else Summary(job.folder, ())
    wait_for_all()
    return summary


def prepare_evolution(options: TrainOptions) -> Evolution:
    """Check what the user gave, the quick checks first, and return the evolution to begin or to go on with."""
    from utils.base.distributed import process_count
    from utils.base.paths import increment_path
    from utils.data.dataset_yaml import check_dataset
    from utils.training.evolution import Evolution
    from utils.training.hyperparameters import load_hyp

    if process_count() > 1:
        raise ValueError("--evolve works in one process only; start it without torchrun")
    hyp = load_hyp(options.hyp)
    check_dataset(options.data)
    check_combination(options)
    folder = increment_path(Path(options.evolution_project) / options.name, exist_ok=options.exist_ok)
    evolution = Evolution(folder, hyp)
    folder.mkdir(parents=True, exist_ok=True)
    return evolution


def evolve(options: TrainOptions, evolution: Evolution) -> Summary:
    """Train generation after generation, and return the figures of the best."""
    from utils.training.evolution import evolve as evolve_with

    def train_once(one: TrainOptions) -> tuple[float, ...]:
        try:
            job = prepare(one)
        except (ValueError, ModuleNotFoundError) as error:
            raise UsageError(str(error)) from error
        return train(job).results

    return Summary(evolution.folder, evolve_with(options, evolution, train_once).figures)


def finish(job: Job) -> Summary:
    """Strip the checkpoints, measure the best one class by class, and draw what happened."""
    from utils.base.logger import LOGGER, colorstr
    from utils.training.checkpoints import strip_optimizer
    from utils.training.results_log import plot_results

    trainer, results = job.trainer, ()
    for path in (trainer.last, trainer.best):
        if path.exists():
            strip_optimizer(path)
    if trainer.best.exists():
        LOGGER.info(f"\nValidating {trainer.best}...")
        results = measure_best(job)
    if not job.options.noplots:
        plot_results(trainer.log.path)
    LOGGER.info(f"Results saved to {colorstr('bold', str(job.folder))}")
    return Summary(job.folder, results)


def measure_best(job: Job) -> tuple[float, ...]:
    """Validate best.pt with pictures and return its figures."""
    import val
    from models.loading import attempt_load

    trainer, options = job.trainer, job.options
    model = attempt_load(trainer.best, trainer.device)
    results, _, _ = val.run(
        job.data,
        batch_size=trainer.data.val_loader.batch_size,
        imgsz=options.imgsz,
        model=model,
        dataloader=trainer.data.val_loader,
        save_dir=job.folder,
        plots=not options.noplots,
        single_cls=options.single_cls,
        half=trainer.amp,
        verbose=True,
        compute_loss=trainer.compute_loss,
    )
    return results


def parse_opt(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    return build_parser(TrainOptions, "train.py", "Train a detector on a data set.").parse_args(arguments)


def main(opt: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0, 1 for a failed write, 2 for a mistake, 130 for Ctrl-C."""
    from utils.base.distributed import process_group

    def prepare_either() -> tuple[TrainOptions, Any]:
        options = TrainOptions(**vars(opt))
        return options, prepare_evolution(options) if options.evolve else prepare(options)

    def work(prepared: tuple[TrainOptions, Any]) -> Summary:
        options, job = prepared
        return evolve(options, job) if options.evolve else train(job)

    with process_group(use_cuda=opt.device != "cpu"):
        return exit_code("train.py", prepare_either, work)


if __name__ == "__main__":
    open_streams()
    sys.exit(main(parse_opt()))
