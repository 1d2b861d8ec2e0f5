"""Training: a few steps on a few coloured squares, and what they leave."""

import os
import pickletools
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_data import make_dataset
from tiny_models import tiny_spec

import train
from explainer.checkpoints.checkpoint import read_checkpoint
from models.loading import attempt_load
from utils.base.paths import ROOT
from utils.training.checkpoints import restored_options, strip_optimizer
from utils.training.hyperparameters import MOST
from utils.training.options import TrainOptions
from utils.training.results_log import COLUMNS, read_results
from utils.training.trainer import Trainer

ENTRIES = {"epoch", "best_fitness", "model", "ema", "updates", "optimizer", "opt", "git", "date"}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A dataset YAML; its folder also has a model YAML."""
    path = make_dataset(tmp_path_factory.mktemp("data") / "set")
    (path.parent / "tiny.yaml").write_text(yaml.safe_dump(tiny_spec()), encoding="utf-8")
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
    header, *rows = (trained.folder / "results.csv").read_text(encoding="utf-8").splitlines()
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


def test_a_training_that_is_killed_goes_on_and_has_each_epoch_once(squares, tmp_path):
    words = [sys.executable, str(ROOT / "train.py")]
    for name, value in options_for(squares, tmp_path, epochs=300).items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    last, log, end = tmp_path / "exp/weights/last.pt", tmp_path / "exp/results.csv", time.monotonic() + 120
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not (last.exists() and len(log.read_bytes().splitlines()) > 2):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        process.kill()
    assert process.returncode != 0
    started = train.prepare(TrainOptions(resume=str(last))).trainer.start_epoch
    assert started >= 1
    epochs = rows_of(tmp_path / "exp")[:, 0].tolist()
    assert epochs == list(range(len(epochs)))
    assert started <= len(epochs)


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


@pytest.mark.parametrize("content", ["- a", "epochs: [", "epochs: [1]", "epochs: many", ""])
def test_a_damaged_opt_yaml_is_one_line_that_names_it(tmp_path, content):
    (tmp_path / "opt.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"opt\.yaml"):
        restored_options(tmp_path, {})


def test_a_finished_training_cannot_be_resumed(trained, capsys):
    assert train.main(train.parse_opt(["--resume", str(trained.folder / "weights/last.pt")])) == 2
    assert "this training is finished" in capsys.readouterr().err


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
    (data.parent / "tiny.yaml").write_text(yaml.safe_dump(tiny_spec()), encoding="utf-8")
    for path in (tmp_path / "set/labels").iterdir():
        path.write_text(label, encoding="utf-8") if label else path.unlink()
    assert main(data, tmp_path / "runs") == 2
    assert complaint in capsys.readouterr().err


def test_an_exploding_loss_is_an_error(squares, tmp_path, capsys, monkeypatch):
    # With the rates that are taken a network as small as this one may stay finite.
    monkeypatch.setitem(MOST, "lr0", 1e9)
    (tmp_path / "hyp.yaml").write_text("lr0: 1.0e+9\nwarmup_epochs: 0\nmomentum: 0.0", encoding="utf-8")
    assert main(squares, tmp_path, hyp=tmp_path / "hyp.yaml", epochs=9) == 2
    assert "lower lr0" in capsys.readouterr().err


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


def test_anchors_can_be_left_to_be_found(squares, tmp_path):
    options = TrainOptions(**options_for(squares, tmp_path, hyp={"anchors": 2}))
    head = train.prepare(options).trainer.model.model[-1]
    assert (head.anchors * head.stride[:, None, None]).min() > 5


def test_label_smoothing_of_a_file_is_that_of_the_option_and_a_difference_is_told(squares, tmp_path, capsys):
    options = TrainOptions(**options_for(squares, tmp_path, hyp={"label_smoothing": 0.2}))
    assert train.prepare(options).trainer.compute_loss.cp == 1
    assert "label_smoothing 0.2 in --hyp does nothing: give --label-smoothing 0.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hyp", {"anchors": "three"}, "anchors is three"),
        ("hyp", {"label_smoothing": "much"}, "label_smoothing is 'much'"),
        ("hyp", {"anchors": [[1, 2]]}, "2 inputs and anchors for 1"),
        ("cfg", tiny_spec(nc=None), "nc is None"),
        ("cfg", tiny_spec(ch=1), "images of 1 channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_value_in_a_file_is_one_line(squares, tmp_path, capsys, name, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(squares, tmp_path, **{name: str(path)}) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("train.py: ")
    assert message in line
    assert not (tmp_path / "exp").exists()


def test_hyperparameters_evolve_and_go_on(squares, tmp_path, capsys):
    assert main(squares, tmp_path, evolve=1, name="e") == 0
    assert main(squares, tmp_path, evolve=2, name="e", exist_ok=True) == 0
    assert "Generation 2 of 2" in capsys.readouterr().err
    left = {path.name for path in (tmp_path / "e").iterdir()}
    assert left == {"evolve.csv", "hyp_evolve.yaml", "evolve.png", "training"}
    assert len((tmp_path / "e/evolve.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_evolutions_lie_beside_the_trainings_by_default():
    assert Path(TrainOptions(evolve=1).evolution_project).parts[-2:] == ("runs", "evolve")
    assert TrainOptions(evolve=1, project="mine").evolution_project == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--evolve", "2", "--resume"], "--evolve goes on by itself"),
        (["--evolve", "-1"], "--evolve -1 is too small"),
        (["--evolve", "2", "--data", "gone.yaml"], "gone.yaml does not exist"),
    ],
)
def test_a_mistake_in_an_evolution_is_one_line(words, message, capsys, tmp_path):
    assert train.main(train.parse_opt([*words, "--project", str(tmp_path), "--device", "cpu"])) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_evolve_without_a_number_is_three_hundred_generations():
    assert train.parse_opt(["--evolve"]).evolve == 300
    assert train.parse_opt([]).evolve == 0


def test_options_of_services_that_are_not_here_are_taken_with_a_word():
    words = ["--bucket", "b", "--entity", "me", "--upload_dataset", "--bbox_interval", "3", "--artifact_alias", "v1"]
    lines = TrainOptions(**vars(train.parse_opt(words))).without_effect()
    assert [line.split()[0] for line in lines] == [
        *("--bucket", "--entity", "--upload-dataset", "--bbox-interval", "--artifact-alias")
    ]
    assert TrainOptions().without_effect() == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[1:] = sys.argv[2:]
import train
sys.exit(train.main(train.parse_opt()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
@pytest.mark.parametrize(("limit", "name"), [(100, "hyp.yaml"), (20_000, "weights/best.pt")])
def test_a_training_without_room_on_the_disk_is_one_line_and_leaves_nothing_half_written(
    squares, tmp_path, limit, name
):
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options_for(squares, tmp_path, noplots="").items()]
    words = ["--noplots" if word == "--noplots=" else word for word in words]
    command = [sys.executable, "-c", LIMITED, str(limit), *words]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert f"train.py: {tmp_path}/exp/{name}: cannot be written: File too large" in answer.stderr
    left = {path.relative_to(tmp_path / "exp").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == (set() if limit == 100 else {"hyp.yaml", "opt.yaml", "results.csv"})


def test_a_folder_that_is_deleted_while_a_training_goes_on_is_an_error(squares, tmp_path, capsys, monkeypatch):
    finish = Trainer._finish_epoch

    def delete_before(trainer, *arguments):
        shutil.rmtree(tmp_path / "exp")
        return finish(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_finish_epoch", delete_before)
    assert main(squares, tmp_path) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"train.py: {tmp_path}/exp/results.csv: cannot be written: No such file or directory"
    assert not (tmp_path / "exp").exists()
