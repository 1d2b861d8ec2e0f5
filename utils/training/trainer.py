"""Train a detector, epoch by epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.base.distributed import agree, is_main, process_count
from utils.base.image_io import write_image
from utils.base.logger import LOGGER
from utils.data.pictures import draw_batch, labels_of_image
from utils.data.training_data import LoadImagesAndLabels
from utils.loss import ComputeLoss
from utils.training.checkpoints import save_checkpoint, training_entries
from utils.training.evolution import DivergedError
from utils.training.model_ema import ModelEMA
from utils.training.optimizers import (
    LEAST_WARM_UP,
    NOMINAL_BATCH,
    EarlyStopping,
    Stepper,
    WarmUp,
    make_schedule,
    smart_optimizer,
)
from utils.training.options import TrainOptions
from utils.training.results_log import ResultsLog
from utils.validating.metrics import fitness
from utils.validating.validation import Evaluation, ValSettings, evaluate_loaded, log_evaluation

COPIED_TO_EMA = ("yaml", "nc", "hyp", "names", "stride")
COLUMNS = ("Epoch", "GPU_mem", "box_loss", "obj_loss", "cls_loss", "Instances", "Size")
DRAWN_BATCHES = 3
# What four images joined into one of twice the size count as.
QUAD_GAIN = 4.0


@dataclass(frozen=True)
class TrainData:
    """The images to train and to validate on. `val_loader` is None in all processes but the first."""

    loader: DataLoader
    dataset: LoadImagesAndLabels
    val_loader: DataLoader | None
    names: Mapping[int, str]

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)


class Trainer:
    """Trains a model and leaves checkpoints, figures and pictures in a folder.

    Attributes:
        model: perhaps wrapped for several processes; ema: its running average, in the first process only.
        start_epoch: the first epoch to be done; last, best: paths of the checkpoints.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainData,
        options: TrainOptions,
        *,
        folder: Path,
        device: torch.device,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a model on its device, with names and hyp set; `resumed` is the checkpoint to go on from."""
        self.data, self.options, self.folder, self.device = data, options, folder, device
        self.amp = device.type == "cuda"
        self.start_epoch = resumed["epoch"] + 1 if resumed else 0
        self.last, self.best = (folder / "weights" / f"{name}.pt" for name in ("last", "best"))
        self.compute_loss = ComputeLoss(model)
        self._stride = max(int(model.stride.max()), 32)
        self.ema = ModelEMA(model) if is_main() else None
        optimizer = self._make_optimizer(model)
        self.stopper = EarlyStopping(options.patience)
        self.log = ResultsLog(folder, start_epoch=self.start_epoch) if is_main() else None
        if resumed:
            self._take_up(resumed, optimizer)
        self.model = self._wrapped(model)
        self.stepper = self._make_stepper(optimizer)
        self._rows: list[float] = [0.0] * 7
        self._maps = np.zeros(data.nc)

    def _make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer, its weight decay fitted to how many images make a step."""
        hyp, batch = model.hyp, self.options.batch_size
        accumulate = max(round(NOMINAL_BATCH / batch), 1)
        decay = hyp["weight_decay"] * batch * accumulate / NOMINAL_BATCH
        return smart_optimizer(model, self.options.optimizer, hyp["lr0"], hyp["momentum"], decay)

    def _make_stepper(self, optimizer: torch.optim.Optimizer) -> Stepper:
        hyp, batches = self.compute_loss.hyp, len(self.data.loader)
        warm_up = WarmUp(
            iterations=max(round(hyp["warmup_epochs"] * batches), LEAST_WARM_UP) if hyp["warmup_epochs"] > 0 else -1,
            bias_lr=hyp["warmup_bias_lr"],
            momentum=hyp["warmup_momentum"],
            final_momentum=hyp["momentum"],
            accumulate=NOMINAL_BATCH / self.options.batch_size,
        )
        schedule = make_schedule(self.options.epochs, hyp["lrf"], cosine=self.options.cos_lr)
        start = self.start_epoch * batches
        return Stepper(self.model, optimizer, schedule, warm_up, ema=self.ema, amp=self.amp, start=start)

    def _take_up(self, resumed: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Put optimizer, average and early stopping where the checkpoint left them."""
        optimizer.load_state_dict(resumed["optimizer"])
        if self.ema and resumed.get("ema") is not None:
            self.ema.ema.load_state_dict(resumed["ema"].float().state_dict())
            self.ema.updates = resumed["updates"]
        for epoch, earlier in self.log.earlier_fitness if self.log else ():
            self.stopper(int(epoch), earlier)
        self.stopper.best_fitness = max(self.stopper.best_fitness, float(resumed.get("best_fitness") or 0.0))

    def _wrapped(self, model: nn.Module) -> nn.Module:
        """Return the model ready to train with other processes, if there are any."""
        if process_count() == 1:
            return model
        if self.options.sync_bn and self.amp:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        devices = [self.device] if self.amp else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def fit(self) -> None:
        """Go through all epochs that are left, or until nothing gets better any more."""
        LOGGER.info(f"Image sizes {self.options.imgsz}, {self.data.loader.num_workers} workers to load them")
        LOGGER.info(f"Logging results to {self.folder}\nStarting training for {self.options.epochs} epochs...")
        for epoch in range(self.start_epoch, self.options.epochs):
            losses = self._train_epoch(epoch)
            if agree(is_main() and self._finish_epoch(epoch, losses)):
                break
        if self.log:
            self.log.close()

    def _train_epoch(self, epoch: int) -> Tensor:
        """Train on all batches once and return the mean box, objectness and class losses (3,)."""
        self.model.train()
        self.data.loader.sampler.epoch = epoch
        self._weigh_images()
        self.stepper.begin_epoch(epoch)
        mean = torch.zeros(3, device=self.device)
        batches = len(self.data.loader)
        for i, (images, targets, paths, _) in enumerate(progress := self._progress()):
            iteration = epoch * batches + i
            if is_main() and iteration < DRAWN_BATCHES and not self.options.noplots:
                self._draw(images, targets, paths, iteration)
            images = self._resized(images.to(self.device, non_blocking=True).float() / 255, iteration)
            parts = self._train_batch(images, targets.to(self.device), iteration)
            mean += (parts - mean) / (i + 1)
            progress.set_description(self._progress_text(epoch, mean, len(targets), images.shape[-1]))
        if not torch.isfinite(mean).all():
            raise DivergedError(
                f"the loss became {mean.sum():g} in epoch {epoch}; lower lr0 in --hyp, or begin from weights"
            )
        return mean

    def _train_batch(self, images: Tensor, targets: Tensor, iteration: int) -> Tensor:
        """Learn from one batch and return its box, objectness and class losses (3,)."""
        self.stepper.begin_batch(iteration)
        with torch.autocast(self.device.type, enabled=self.amp):
            loss, parts = self.compute_loss(self.model(images), targets)
        # Several processes average their gradients; here they are to be summed, as if all were one batch.
        loss = loss * process_count() * (QUAD_GAIN if self.options.quad else 1.0)
        self.stepper.backward(loss, iteration)
        return parts

    def _resized(self, images: Tensor, iteration: int) -> Tensor:
        """Return the batch (B, 3, h, w), with multi-scale resized at random by up to half."""
        if not self.options.multi_scale:
            return images
        stride = self._stride
        smallest, largest = self.options.imgsz // 2, self.options.imgsz * 3 // 2
        # Seeded by hand so that all processes draw the same size, as do runs that go on.
        side = random.Random(f"{self.options.seed} {iteration}").randrange(smallest, largest + stride)
        factor = side // stride * stride / max(images.shape[2:])
        size = [math.ceil(length * factor / stride) * stride for length in images.shape[2:]]
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False) if factor != 1 else images

    def _weigh_images(self) -> None:
        """Show images more often whose classes are rare or badly found."""
        if not self.options.image_weights:
            return
        by_class = [np.bincount(rows[:, 0].astype(int), minlength=self.data.nc) for rows in self.data.dataset.labels]
        rarity = 1 / np.maximum(np.sum(by_class, axis=0), 1)
        weights = np.array(by_class) @ (rarity / rarity.sum() * (1 - self._maps) ** 2)
        self.data.loader.sampler.weights = weights + 1e-9

    def _progress(self) -> Iterable:
        from tqdm import tqdm

        LOGGER.info("\n" + "%11s" * 7, *COLUMNS)
        return tqdm(self.data.loader, disable=not is_main(), bar_format="{desc} {percentage:3.0f}%|{bar:10}{r_bar}")

    def _progress_text(self, epoch: int, losses: Tensor, instances: int, size: int) -> str:
        memory = f"{torch.cuda.memory_reserved() / 1e9 if self.amp else 0:.3g}G"
        ahead = f"{epoch}/{self.options.epochs - 1}"
        return ("%11s" * 2 + "%11.4g" * 5) % (ahead, memory, *losses.tolist(), instances, size)

    def _draw(self, images: Tensor, targets: Tensor, paths: Iterable[str], number: int) -> None:
        """Save a picture of a batch (B, 3, h, w) uint8 as it goes into the model."""
        height, width = images.shape[2:]
        pixels = targets * targets.new_tensor([1, 1, width, height, width, height])
        boxes = [labels_of_image(pixels, i) for i in range(len(images))]
        picture = draw_batch(images, boxes, list(paths), self.data.names)
        write_image(self.folder / f"train_batch{number}.jpg", picture)

    def _finish_epoch(self, epoch: int, losses: Tensor) -> bool:
        """Validate, log and save after an epoch; return whether to stop early."""
        options = self.options
        self.ema.update_attr(self.model, include=COPIED_TO_EMA)
        is_final = epoch + 1 == options.epochs or self.stopper.possible_stop
        if not options.noval or is_final:
            evaluation = self._validate()
            self._rows, self._maps = list(evaluation.as_tuple()[0]), evaluation.maps
        now = float(fitness(np.array([self._rows]))[0])
        stop = self.stopper(epoch, now)
        self.log.add(epoch, (*losses.tolist(), *self._rows, *self.stepper.rates))
        if not options.nosave or is_final or stop:
            for path in self._paths_to_save(epoch, is_best=self.stopper.best_epoch == epoch):
                save_checkpoint(self._entries(epoch), path)
        return stop

    def _validate(self) -> Evaluation:
        settings = ValSettings(single_cls=self.options.single_cls, half=self.amp)
        evaluation = evaluate_loaded(
            self.ema.ema, self.data.val_loader, settings, nc=self.data.nc, compute_loss=self.compute_loss
        )
        log_evaluation(evaluation, self.data.names, verbose=False)
        return evaluation

    def _paths_to_save(self, epoch: int, *, is_best: bool) -> Iterator[Path]:
        if is_best:
            yield self.best
        period = self.options.save_period
        if period > 0 and epoch % period == 0:
            yield self.last.with_name(f"epoch{epoch}.pt")
        # Last, so that what it promises to a run that goes on is there.
        yield self.last

    def _entries(self, epoch: int) -> dict[str, Any]:
        return training_entries(
            self.model,
            self.ema,
            self.stepper.optimizer,
            epoch=epoch,
            best_fitness=self.stopper.best_fitness,
            opt=self.options.as_plain() | {"save_dir": str(self.folder)},
        )
