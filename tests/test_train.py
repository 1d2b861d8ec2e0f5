"""Training: a few steps on a few coloured squares, what they leave, and the pieces they are made of."""

import os
import pickletools
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import train
from explainer.checkpoints.checkpoint import read_checkpoint
from models.loading import attempt_load
from tests.tiny_data import make_dataset
from tests.tiny_models import tiny_detector, tiny_spec
from utils.autoanchor import check_anchors, kmean_anchors
from utils.general import strip_optimizer
from utils.optimizers import WarmUp, make_schedule
from utils.results_log import COLUMNS, ResultsLog, read_results
from utils.torch_utils import EarlyStopping, ModelEMA, smart_optimizer
from utils.train_options import OPTIMIZERS, TrainOptions
from utils.trainer import Trainer
from utils.training_data import LoadImagesAndLabels

ENTRIES = {"epoch", "best_fitness", "model", "ema", "updates", "optimizer", "opt", "git", "date"}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A dataset YAML; its folder also has a model YAML."""
    path = make_dataset(tmp_path_factory.mktemp("data") / "set")
    (path.parent / "tiny.yaml").write_text(yaml.safe_dump(tiny_spec()))
    return path


def options_for(squares, folder, **changes):
    fast = {"weights": "", "cfg": squares.parent / "tiny.yaml", "data": str(squares), "imgsz": 64, "batch_size": 4}
    return {**fast, "workers": 0, "device": "cpu", "project": folder, "epochs": 1, "noplots": True, **changes}


def main(squares, folder, **changes):
    words = []
    for name, value in options_for(squares, folder, **changes).items():
        given = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, given)]
    return train.main(train.parse_opt(words))


def rows_of(folder):
    return read_results(folder / "results.csv")


# --- a whole training


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """The folder of a training of two epochs, with all that it leaves."""
    folder = tmp_path_factory.mktemp("runs")
    return train.run(**options_for(squares, folder, epochs=2, noplots=False, save_period=1))


def test_a_training_leaves_checkpoints_figures_and_pictures(trained):
    left = {path.relative_to(trained.folder).as_posix() for path in trained.folder.rglob("*") if path.is_file()}
    assert left >= {
        *("weights/last.pt", "weights/best.pt", "weights/epoch0.pt", "weights/epoch1.pt"),
        *("opt.yaml", "hyp.yaml", "results.csv", "results.png", "labels.jpg", "train_batch0.jpg"),
        *("val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png", "PR_curve.png"),
    }
    assert not [name for name in left if name.endswith(".part")]


def test_results_have_the_columns_of_yolov5(trained):
    header, *rows = (trained.folder / "results.csv").read_text().splitlines()
    assert [name.strip() for name in header.split(",")] == ["epoch", *COLUMNS]
    assert len(rows) == 2
    assert len(trained.results) == 7


def test_a_finished_checkpoint_is_stripped_and_detects(trained):
    entries = read_checkpoint(trained.folder / "weights/best.pt")
    assert set(entries) == ENTRIES
    assert (entries["epoch"], entries["optimizer"], entries["ema"]) == (-1, None, None)
    assert {p.dtype for p in entries["model"].parameters()} == {torch.float16}
    assert not any(p.requires_grad for p in entries["model"].parameters())
    model = attempt_load(trained.folder / "weights/best.pt")
    assert model.names == {0: "blue", 1: "green", 2: "red"}
    assert model(torch.zeros(1, 3, 64, 64))[0].shape[2] == 8


def test_a_checkpoint_names_only_classes_that_yolov5_has(trained):
    with zipfile.ZipFile(trained.folder / "weights/epoch0.pt") as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
        named = {arg for op, arg, _ in pickletools.genops(archive.read(name)) if op.name == "GLOBAL"}
    ours = {each for each in named if each.startswith(("models", "utils", "explainer"))}
    assert ours == {
        "models.yolo DetectionModel",
        "models.yolo Detect",
        *(f"models.common {block}" for block in ("Conv", "C3", "Bottleneck", "SPPF", "Concat")),
    }
    assert {each.split(" ")[0].split(".")[0] for each in named - ours} <= {"torch", "collections", "__builtin__"}


def test_a_running_checkpoint_holds_all_that_going_on_needs(trained):
    entries = read_checkpoint(trained.folder / "weights/epoch1.pt")
    assert set(entries) == ENTRIES
    assert entries["epoch"] == 1
    assert len(entries["optimizer"]["param_groups"]) == 3
    assert entries["opt"]["epochs"] == 2


def test_stripping_takes_the_average(trained, tmp_path):
    whole = read_checkpoint(trained.folder / "weights/epoch1.pt")
    strip_optimizer(trained.folder / "weights/epoch1.pt", tmp_path / "small.pt")
    small = read_checkpoint(tmp_path / "small.pt")
    averaged = whole["ema"].state_dict()
    assert all(torch.equal(v, averaged[k]) for k, v in small["model"].state_dict().items())


def test_training_on_from_a_checkpoint_starts_with_its_weights(squares, trained, tmp_path):
    best = trained.folder / "weights/best.pt"
    options = TrainOptions(**options_for(squares, tmp_path, weights=best, cfg=""))
    source = train.find_source(options)
    model, other = (train.create_model(options, source, hyp={}, nc=nc) for nc in (3, 5))
    given = attempt_load(best, fuse=False).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())
    assert other.model[-1].nc == 5
    assert torch.equal(other.model[0].conv.weight, given["model.0.conv.weight"])


def test_a_tiny_model_learns_where_and_what_the_squares_are(squares, tmp_path):
    hyp = {"warmup_epochs": 0.0, "mosaic": 0.0, "lr0": 0.03, "box": 0.1, "obj": 100.0, "cls": 20.0, "scale": 0.2}
    hyp |= {"hsv_h": 0.0, "hsv_s": 0.2, "hsv_v": 0.1}
    changes = {"epochs": 40, "batch_size": 64, "hyp": hyp, "optimizer": "Adam", "noval": True}
    folder = train.run(**options_for(squares, tmp_path, **changes)).folder
    losses = rows_of(folder)[:, 1:4]
    box, objectness, category = losses[-5:].mean(0) / losses[0]
    assert box < 0.8
    assert objectness < 0.9
    assert category < 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"rect": True, "multi_scale": True},
        {"quad": True, "cos_lr": True, "cache": "ram"},
        {"image_weights": True, "single_cls": True, "optimizer": "AdamW"},
        {"freeze": [3], "label_smoothing": 0.1, "nosave": True, "exist_ok": True},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_options_work_together(squares, tmp_path, changes):
    assert main(squares, tmp_path, **changes) == 0
    assert (tmp_path / "exp/weights/last.pt").exists()
    assert np.isfinite(rows_of(tmp_path / "exp")).all()


def test_frozen_layers_keep_their_weights(squares, tmp_path):
    options = TrainOptions(**options_for(squares, tmp_path, freeze=(2,), epochs=2))
    job = train.prepare(options)
    before = {name: value.clone() for name, value in job.trainer.model.state_dict().items()}
    job.trainer.fit()
    after = dict(job.trainer.model.named_parameters())
    moved = {int(name.split(".")[1]) for name, value in after.items() if not torch.equal(value, before[name])}
    assert min(moved) == 2


# --- going on after a kill


def interrupted_at(monkeypatch, epoch):
    """Make trainings stop as by Ctrl-C when `epoch` begins."""
    whole = Trainer._train_epoch

    def stopping(self, number):
        if number == epoch:
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(Trainer, "_train_epoch", stopping)


def test_a_killed_training_goes_on_where_it_was(squares, tmp_path, monkeypatch):
    whole = train.run(**options_for(squares, tmp_path / "whole", epochs=4)).folder
    with monkeypatch.context() as patched:
        interrupted_at(patched, 2)
        assert main(squares, tmp_path / "killed", epochs=4) == 130
    killed = tmp_path / "killed/exp"
    assert len(rows_of(killed)) == 2
    assert train.main(train.parse_opt(["--resume", str(killed / "weights/last.pt")])) == 0
    assert rows_of(killed)[:, 0].tolist() == [0, 1, 2, 3]
    # weights are kept in half precision between epochs
    assert rows_of(killed)[:, 1:4] == pytest.approx(rows_of(whole)[:, 1:4], rel=0.01)
    assert rows_of(killed)[:, -3:] == pytest.approx(rows_of(whole)[:, -3:])


def test_going_on_takes_the_weights_and_not_their_average(squares, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupted_at(patched, 1)
        main(squares, tmp_path, epochs=2)
    last = tmp_path / "exp/weights/last.pt"
    entries = read_checkpoint(last)
    entries["ema"].requires_grad_(False).model[0].conv.weight.zero_()
    torch.save(entries, last)
    trainer = train.prepare(TrainOptions(resume=str(last))).trainer
    saved = entries["model"].model[0].conv.weight
    assert torch.equal(trainer.model.model[0].conv.weight.half(), saved)
    assert trainer.ema.ema.model[0].conv.weight.abs().max() == 0
    assert trainer.start_epoch == 1


def test_resume_without_a_path_takes_the_latest_run(squares, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupted_at(patched, 1)
        main(squares, tmp_path, epochs=2)
    assert train.main(train.parse_opt(["--resume", "--project", str(tmp_path)])) == 0
    assert len(rows_of(tmp_path / "exp")) == 2


def test_a_finished_training_cannot_be_resumed(trained, capsys):
    assert train.main(train.parse_opt(["--resume", str(trained.folder / "weights/last.pt")])) == 2
    assert "this training is finished" in capsys.readouterr().err


def test_rows_of_repeated_epochs_are_dropped(tmp_path):
    log = ResultsLog(tmp_path)
    for epoch in range(3):
        log.add(epoch, [0.1 * epoch] * len(COLUMNS))
    again = ResultsLog(tmp_path, start_epoch=2)
    assert rows_of(tmp_path)[:, 0].tolist() == [0, 1]
    assert again.earlier_fitness == [(0, 0.0), (1, pytest.approx(0.1))]


def test_figures_go_to_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    written = {}

    class SummaryWriter:
        def __init__(self, folder):
            written["folder"] = folder

        def add_scalar(self, name, value, epoch):
            written[name, epoch] = value

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("utils.results_log.find_spec", lambda name: module)
    ResultsLog(tmp_path).add(3, range(len(COLUMNS)))
    assert written["folder"] == str(tmp_path)
    assert written["metrics/mAP_0.5", 3] == 5


# --- mistakes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"cfg": "nowhere.yaml"}, "no model file 'nowhere.yaml'"),
        ({"weights": "nowhere.pt"}, "nowhere.pt does not exist"),
        ({"weights": "weights.onnx"}, "allowed is .pt"),
        ({"hyp": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"freeze": [99]}, "has no layer 98"),
        ({"epochs": 0}, "--epochs 0 is too small"),
        ({"batch_size": 0}, "--batch-size 0 is not possible"),
        ({"quad": True, "batch_size": 6}, "multiple of 4"),
        ({"device": "0,1"}, "torchrun --nproc_per_node 2"),
        ({"cache": "tape"}, "--cache tape is unknown"),
        ({"cfg": ""}, "neither --weights nor --cfg"),
        ({"resume": "nowhere/last.pt"}, "nowhere/last.pt does not exist"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_mistake_is_one_line_and_exit_code_two(squares, tmp_path, capsys, changes, complaint):
    assert main(squares, tmp_path, **changes) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("train.py: ")
    assert complaint in line
    assert not tmp_path.exists() or not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("label", "complaint"),
    [("7 0.5 0.5 0.2 0.2", "0.txt has class 7"), (None, "have no labels")],
)
def test_labels_that_cannot_be_learnt_are_an_error(tmp_path, capsys, label, complaint):
    data = make_dataset(tmp_path / "set", count=2)
    (data.parent / "tiny.yaml").write_text(yaml.safe_dump(tiny_spec()))
    for path in (tmp_path / "set/labels").iterdir():
        path.write_text(label) if label else path.unlink()
    assert main(data, tmp_path / "runs") == 2
    assert complaint in capsys.readouterr().err


def test_an_exploding_loss_is_an_error(squares, tmp_path, capsys):
    (tmp_path / "hyp.yaml").write_text("lr0: 1.0e+9\nwarmup_epochs: 0\nmomentum: 0.0")
    assert main(squares, tmp_path, hyp=tmp_path / "hyp.yaml", epochs=9) == 2
    assert "lower lr0" in capsys.readouterr().err


# --- several processes


def test_two_processes_train_one_model(squares, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["--weights", "", "--cfg", squares.parent / "tiny.yaml", "--data", squares, "--imgsz", 64, "--epochs", 2]
    words += ["--batch-size", 4, "--workers", 0, "--device", "cpu", "--project", tmp_path, "--noplots"]
    root = Path(train.__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(root / "train.py"), *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(rows_of(tmp_path / "exp")) == 2
    assert attempt_load(tmp_path / "exp/weights/best.pt").names[2] == "red"
    assert not (tmp_path / "exp2").exists()


# --- pieces


def test_options_and_optimizers_name_the_same():
    for name in OPTIMIZERS:
        assert len(smart_optimizer(tiny_detector(), name).param_groups) == 3
    with pytest.raises(ValueError, match="choose SGD, Adam, AdamW, RMSProp"):
        smart_optimizer(tiny_detector(), "Lion")


def test_only_weights_of_convolutions_decay():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    biases, weights, norms = smart_optimizer(model, "SGD", lr=0.1, momentum=0.9, decay=0.5).param_groups
    assert [len(group["params"]) for group in (biases, weights, norms)] == [2, 1, 1]
    assert [group["weight_decay"] for group in (biases, weights, norms)] == [0, 0.5, 0]


@pytest.mark.parametrize(("cosine", "middle"), [(False, 0.55), (True, 0.55)])
def test_the_learning_rate_falls_to_its_last_share(cosine, middle):
    schedule = make_schedule(10, 0.1, cosine=cosine)
    assert [schedule(epoch) for epoch in (0, 5, 10)] == pytest.approx([1, middle, 0.1])


def test_rates_rise_in_the_warm_up_but_those_of_biases_fall():
    optimizer = smart_optimizer(tiny_detector(), "SGD", lr=0.01, momentum=0.9)
    warm_up = WarmUp(iterations=100, bias_lr=0.1, momentum=0.8, final_momentum=0.9, accumulate=4)
    found = [(warm_up.apply(optimizer, i, 1.0), *(g["lr"] for g in optimizer.param_groups)) for i in (0, 50, 100)]
    assert found[0] == pytest.approx((1, 0.1, 0, 0))
    assert found[1] == pytest.approx((2, 0.055, 0.005, 0.005))
    assert found[2] == pytest.approx((4, 0.01, 0.01, 0.01))
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.9)


def test_the_average_follows_the_model():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    ema = ModelEMA(model, decay=0.5, tau=1e-9)
    nn.init.constant_(model.weight, 3.0)
    ema.update(model)
    assert ema.ema.weight.item() == 2
    assert ema.updates == 1


def test_patience_counts_from_the_best_epoch():
    stopper = EarlyStopping(patience=2)
    assert [stopper(epoch, fitness) for epoch, fitness in enumerate((0.1, 0.3, 0.2, 0.2))] == [
        False,
        False,
        False,
        True,
    ]
    assert stopper.best_epoch == 1


def test_without_patience_nothing_stops():
    stopper = EarlyStopping(patience=0)
    assert not any(stopper(epoch, 1.0 if epoch == 0 else 0.0) for epoch in range(500))


def test_anchors_that_fit_stay(squares):
    model, dataset = tiny_detector(), LoadImagesAndLabels(squares.parent / "images", 64)
    before = model.model[-1].anchors.clone()
    check_anchors(dataset, model, imgsz=64)
    assert torch.equal(model.model[-1].anchors, before)


def test_anchors_that_fit_badly_are_replaced(squares):
    model = tiny_detector(anchors=[[200, 210, 250, 230], [300, 310, 400, 390]])
    dataset = LoadImagesAndLabels(squares.parent / "images", 64)
    check_anchors(dataset, model, imgsz=64)
    head = model.model[-1]
    pixels = head.anchors * head.stride[:, None, None]
    assert 8 < pixels.min() < pixels.max() < 25


def test_anchors_can_be_left_to_be_found(squares, tmp_path):
    options = TrainOptions(**options_for(squares, tmp_path, hyp={"anchors": 2}))
    head = train.prepare(options).trainer.model.model[-1]
    assert (head.anchors * head.stride[:, None, None]).min() > 5


def test_new_anchors_go_from_small_to_large(squares):
    anchors = kmean_anchors(LoadImagesAndLabels(squares.parent / "images", 64), n=4, img_size=64, gen=10)
    areas = anchors.prod(1)
    assert anchors.shape == (4, 2)
    assert (np.diff(areas) >= 0).all()
