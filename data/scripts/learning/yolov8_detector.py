"""Train a narrow YOLOv8 through ultralytics on the Evidence set; ultralytics is kept from the network meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from data.scripts.evidence.reading import Labelled
from data.scripts.evidence.rendering import CLASSES
from data.scripts.learning.emblems import learn_emblems

ARCHITECTURE = Path(__file__).parents[1] / "yolov8-narrow.yaml"
# How the model is trained, as is written into its file too. Emblems stay whole and upright. Scenes are made smaller than
# those to look at, since things in them are up to twice as large.
HOW = {
    "imgsz": 256,
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "lrf": 0.02,
    "cos_lr": True,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "warmup_epochs": 0.5,
    "warmup_bias_lr": 0.002,
    "cls": 1.0,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "translate": 0.05,
    "scale": 0.2,
    "mosaic": 0.0,
}
HERE = {"device": "cpu", "cache": "ram", "workers": 0, "amp": False, "plots": False, "val": False, "verbose": False}


def train(out: Path, folder: Path, scenes: list[Labelled], *, epochs: int, emblem_epochs: int, seed: int) -> None:
    """Train the model, its backbone and neck on emblems first, and write it as ultralytics does, in half precision.

    Args:
        out: the checkpoint to write.
        folder: the Evidence set.
        scenes: those to learn the emblems from.
        epochs: how often all scenes are looked at.
        emblem_epochs: how often all emblems are, before that.
        seed: what all that is random depends on.
    """
    yolo = offline_yolo(ARCHITECTURE)
    layers = yolo.model.model[:-1].train().requires_grad_(True)
    levels = yolo.model.model[-1].f
    learn_emblems(
        layers,
        lambda images: neck_levels(layers, levels, images),
        scenes,
        epochs=emblem_epochs,
        rng=np.random.default_rng(seed),
    )
    yolo.load(yolo.model)
    with TemporaryDirectory() as working:
        data = Path(working) / "evidence.yaml"
        parts = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val"}
        data.write_text(yaml.safe_dump({**parts, "names": dict(enumerate(CLASSES))}), encoding="utf-8")
        yolo.train(data=str(data), project=working, name="yolov8", epochs=epochs, seed=seed, **HOW, **HERE)
        save(Path(working) / "yolov8/weights/last.pt", out, {"epochs": epochs, "seed": seed, **HOW})


def offline_yolo(model: Path):
    """Return ultralytics' YOLO of an architecture or a checkpoint, which neither installs, downloads nor reports anything."""
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
    from ultralytics import YOLO

    return YOLO(model)


def neck_levels(layers: nn.Sequential, levels: list[int], images: Tensor) -> list[Tensor]:
    """Return what the head of a model takes: the outputs of the layers with these numbers."""
    outputs = []
    for layer in layers:
        if not outputs:
            outputs.append(layer(images))
        elif isinstance(layer.f, int):
            outputs.append(layer(outputs[layer.f]))
        else:
            outputs.append(layer([outputs[number] for number in layer.f]))
    return [outputs[number] for number in levels]


def save(trained: Path, out: Path, how: dict) -> None:
    """Write a checkpoint of ultralytics anew, without its optimizer and the paths of this machine.

    That leaves the averaged weights in half precision, and how they came about.
    """
    checkpoint = torch.load(trained, map_location="cpu", weights_only=False)
    model = (checkpoint.get("ema") or checkpoint["model"]).half().requires_grad_(False)
    model.args = {"task": "detect", **how}
    model.yaml["yaml_file"] = ARCHITECTURE.name
    kept = {name: checkpoint[name] for name in ("version", "license")}
    torch.save({"epoch": -1, "model": model, "train_args": model.args, **kept}, out)
