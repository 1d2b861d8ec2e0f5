"""What train.py can be asked for: names, defaults, help texts and checks, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from utils.base.command_line import flag, option
from utils.base.paths import ROOT
from utils.training.hyperparameters import DEFAULT

OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSProp")
GENERATIONS = 300
# What YOLOv5 hands to services outside, by option: where there is nothing of the kind here.
NOT_HERE = {
    "bucket": "nothing is copied to or from a Google Cloud bucket",
    "entity": "there is no Weights & Biases logging; results.csv and TensorBoard hold the figures",
    "upload_dataset": "no data set is uploaded",
    "bbox_interval": "there is no Weights & Biases logging of boxes",
    "artifact_alias": "data sets are read from the disk alone",
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of one run of train.py. ValueError for values that make no sense."""

    weights: str = option(ROOT / "yolov5s.pt", "checkpoint to start from; '' to start from nothing, with --cfg")
    cfg: str = option("", "model YAML; by default the one inside the weights")
    data: str | Mapping = option(ROOT / "data/coco128.yaml", "dataset YAML")
    hyp: str | Mapping = option(DEFAULT, "YAML with hyperparameters")
    epochs: int = option(100, "how many times to go through the images", type=int)
    batch_size: int = option(16, "images per batch, over all GPUs; -1 for as many as fit on the GPU", type=int)
    imgsz: int = option(640, "pixels of the longer side", type=int)
    rect: bool = option(False, "train on rectangles, without mosaics and unshuffled")
    resume: str | bool = option(False, "go on with the latest run, or with the last.pt given", nargs="?", const=True)
    nosave: bool = option(False, "save the last checkpoint only")
    noval: bool = option(False, "validate after the last epoch only")
    noautoanchor: bool = option(False, "do not look whether the anchors fit")
    noplots: bool = option(False, "save no pictures")
    evolve: int = option(
        0,
        f"evolve hyperparameters over so many generations (default with no value: {GENERATIONS}); with --exist-ok it "
        "goes on with those in the folder",
        nargs="?",
        const=GENERATIONS,
        type=int,
    )
    bucket: str = option("", "accepted for old commands; does nothing")
    cache: str | None = option(
        None, "keep images in ram or on disk (default with no value: ram)", nargs="?", const="ram"
    )
    image_weights: bool = option(False, "show images of badly found classes more often")
    device: str = option("", "0 for a GPU, or cpu; several GPUs: start with torchrun")
    multi_scale: bool = option(False, "vary the image size by half")
    single_cls: bool = option(False, "treat all classes as one")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    sync_bn: bool = option(False, "normalise over the batches of all GPUs, under torchrun")
    workers: int = option(8, "the most processes that load images, for each GPU", type=int)
    project: str = option(ROOT / "runs/train", "folder of all runs")
    name: str = option("exp", "folder of this run in the project; a number is added where it exists")
    exist_ok: bool = option(False, "write into an existing folder instead")
    quad: bool = option(False, "join four images of a batch into one of twice the size")
    cos_lr: bool = option(False, "let the learning rate follow a cosine")
    label_smoothing: float = option(0.0, "how far wanted class probabilities stay from 0 and 1", type=float)
    patience: int = option(100, "stop after so many epochs without a better one; 0 for never", type=int)
    freeze: tuple[int, ...] = option(
        (0,), "layers not to train: a number for the first n, or a list", nargs="+", type=int
    )
    save_period: int = option(-1, "also keep the checkpoint of every n-th epoch", type=int)
    seed: int = option(0, "of everything random", type=int)
    entity: str | None = option(None, "accepted for old commands; does nothing")
    upload_dataset: str | bool = option(False, "accepted for old commands; does nothing", nargs="?", const=True)
    bbox_interval: int = option(-1, "accepted for old commands; does nothing", type=int)
    artifact_alias: str = option("latest", "accepted for old commands; does nothing")
    trust: bool = option(False, "unpickle the weights fully, which can run any program: for files you made yourself")

    def __post_init__(self) -> None:
        freeze = (self.freeze,) if isinstance(self.freeze, int) else tuple(self.freeze)
        object.__setattr__(self, "freeze", freeze)
        for name in ("weights", "cfg", "project"):
            object.__setattr__(self, name, str(getattr(self, name)))
        self._check_numbers()
        self._check_choices()

    def _check_numbers(self) -> None:
        for name, least in (("epochs", 1), ("imgsz", 1), ("patience", 0), ("workers", 0), ("seed", 0), ("evolve", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{flag(name)} {getattr(self, name)} is too small; give {least} or more")
        if self.batch_size < 1 and self.batch_size != -1:
            raise ValueError(
                f"--batch-size {self.batch_size} is not possible; give 1 or more, or -1 to have it measured"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"--label-smoothing {self.label_smoothing} is not possible; give 0 to 1, such as 0.1")

    def _check_choices(self) -> None:
        if self.evolve and self.resume:
            raise ValueError("--evolve goes on by itself: give the --name of its folder and --exist-ok, not --resume")
        if self.cache not in (None, "ram", "disk"):
            raise ValueError(f"--cache {self.cache} is unknown; give ram or disk")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"--optimizer {self.optimizer} is unknown; give one of {', '.join(OPTIMIZERS)}")
        if not (self.weights or self.cfg or self.resume):
            raise ValueError(
                "neither --weights nor --cfg is given; give a checkpoint, or a model YAML such as yolov5n.yaml"
            )

    def without_effect(self) -> list[str]:
        """Return a line on each option that was given and does nothing here."""
        given = [name for name in NOT_HERE if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        return [f"{flag(name)} does nothing: {NOT_HERE[name]}" for name in given]

    @property
    def evolution_project(self) -> str:
        """The folder of all evolutions: beside that of the trainings where no other was asked for."""
        is_default = self.project == str(type(self).__dataclass_fields__["project"].default)
        return str(ROOT / "runs/evolve") if is_default else self.project

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """The numbers of the layers that are not trained."""
        return tuple(range(self.freeze[0])) if len(self.freeze) == 1 else self.freeze

    def as_plain(self) -> dict[str, Any]:
        """Return all options as texts, numbers, lists and dictionaries, for YAML and checkpoints."""
        return {
            name: value if isinstance(value, (bool, int, float, dict, type(None))) else _plain(value)
            for name, value in asdict(self).items()
        }


def _plain(value: Any) -> str | list:
    return list(value) if isinstance(value, (list, tuple)) else str(value)
