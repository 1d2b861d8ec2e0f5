"""Validation: the published figures of the official model, and what val.py writes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tiny_data import make_dataset
from tiny_models import tiny_detector, tiny_spec

import val
from models.yolo import DetectionModel
from utils.base.boxes import xyxy2xywhn
from utils.data.loaders import create_dataloader
from utils.loss import ComputeLoss


class Oracle(torch.nn.Module):
    """A detector that knows the labels of the squares: raw predictions of exactly them, in the order of images."""

    def __init__(self, loader, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.names = {0: "blue", 1: "green", 2: "red"}
        self.batches = [self._predictions(targets, len(images), size) for images, targets, *_ in loader]
        self.turn = -1

    @staticmethod
    def _predictions(targets, count, size):
        out = torch.zeros(count, 3, 8)
        for image in range(count):
            rows = targets[targets[:, 0] == image]
            out[image, :, :4] = rows[:, 2:] * size
            out[image, :, 4] = 0.9
            out[image, torch.arange(3), 5 + rows[:, 1].long()] = 1
        return out

    def forward(self, images):
        self.turn += 1
        return self.batches[self.turn], None


@pytest.fixture
def squares(tmp_path):
    return make_dataset(tmp_path / "set")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = DetectionModel(tiny_spec())
    model.names = {0: "blue", 1: "green", 2: "red"}
    torch.save({"model": model.half()}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def main(**options):
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return val.main(val.parse_opt(words))


def test_the_official_model_reaches_the_published_figures(assets, tmp_path):
    reference = json.loads((assets / "golden/yolov5n_coco128_val.json").read_text(encoding="utf-8"))
    names = yaml.safe_load((val.Path(val.__file__).parent / "data/coco128.yaml").read_text(encoding="utf-8"))["names"]
    data = {"path": str(assets / "coco128"), "train": "images/train2017", "val": "images/train2017", "names": names}
    (tmp_path / "coco128.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    options = val.ValOptions(
        data=tmp_path / "coco128.yaml", weights=assets / "weights/yolov5n.pt", batch_size=16, project=tmp_path
    )
    evaluation = val.validate(val.prepare(options, plots=False))
    wanted = reference["all"]
    assert evaluation.means == pytest.approx([wanted[k] for k in ("P", "R", "mAP50", "mAP50_95")], abs=6e-4)
    by_name = {names[c]: i for i, c in enumerate(evaluation.curves.classes)}
    for name, figures in reference["per_class"].items():
        assert evaluation.curves.objects[by_name[name]] == figures["n"]
        found = evaluation.by_class[by_name[name]]
        assert found == pytest.approx([figures[k] for k in ("P", "R", "mAP50", "mAP50_95")], abs=6e-4)


def test_a_model_that_knows_the_labels_reaches_one(squares):
    loader, _ = create_dataloader(squares.parent / "images", 64, 3, 32, workers=0)
    figures, maps, _ = val.run(squares, imgsz=64, model=Oracle(loader, 64), dataloader=loader, plots=False)
    assert figures[:4] == pytest.approx((1, 1, 0.995, 0.995), abs=2e-3)
    assert maps.tolist() == pytest.approx([0.995] * 3, abs=2e-3)


def test_a_model_in_memory_stays_as_it_was(squares):
    loader, _ = create_dataloader(squares.parent / "images", 64, 3, 32, workers=0)
    model = tiny_detector().train()
    model.hyp = {"box": 1, "obj": 1, "cls": 1, "obj_pw": 1, "cls_pw": 1, "anchor_t": 4}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = ComputeLoss(model)
    figures, maps, times = val.run(squares, imgsz=64, model=model, dataloader=loader, plots=False, compute_loss=loss)
    assert (len(figures), len(maps), len(times)) == (7, 3, 3)
    assert min(figures[4:]) > 0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_everything_that_is_asked_for_is_written(squares, checkpoint, tmp_path):
    done = main(
        weights=checkpoint, data=squares, imgsz=64, workers=0, project=tmp_path / "runs", device="cpu",
        save_txt=True, save_conf=True, save_json=True, verbose=True, conf_thres=1e-6,
    )  # fmt: skip
    folder = tmp_path / "runs/exp"
    assert done == 0
    left = {path.name for path in folder.iterdir()}
    assert left >= {"labels", "tiny_predictions.json", "confusion_matrix.png", "F1_curve.png", "val_batch0_pred.jpg"}
    entries = json.loads((folder / "tiny_predictions.json").read_text(encoding="utf-8"))
    lines = (folder / "labels/0.txt").read_text(encoding="utf-8").splitlines()
    first = [entry for entry in entries if entry["image_id"] == 0]
    assert len(first) == len(lines) > 0
    category, *box, confidence = map(float, lines[0].split())
    assert (category, confidence) == pytest.approx((first[0]["category_id"], first[0]["score"]), abs=1e-5)
    left_x, top, width, height = first[0]["bbox"]
    corners = torch.tensor([[left_x, top, left_x + width, top + height]])
    assert xyxy2xywhn(corners, 64, 48)[0].tolist() == pytest.approx(box, abs=1e-3)


def test_hybrid_labels_hold_the_labels_themselves(squares, checkpoint, tmp_path):
    common = {"weights": checkpoint, "data": squares, "imgsz": 64, "workers": 0, "project": tmp_path / "runs"}
    assert main(**common, device="cpu", save_hybrid=True, conf_thres=0.5) == 0
    labels = (tmp_path / "set/labels/0.txt").read_text(encoding="utf-8").splitlines()
    saved = (tmp_path / "runs/exp/labels/0.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(line[0] for line in saved) == sorted(line[0] for line in labels)


@pytest.mark.parametrize("task", ["train", "speed"])
def test_other_tasks_run_too(squares, checkpoint, tmp_path, task):
    options = {"weights": checkpoint, "data": squares, "imgsz": 64, "workers": 0, "project": tmp_path / "runs"}
    assert main(**options, device="cpu", task=task, single_cls=True, augment=True) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": "nowhere.pt"}, "nowhere.pt does not exist"),
        ({"data": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"conf_thres": 2}, "--conf-thres 2.0 is no fraction"),
        ({"imgsz": 0}, "--imgsz 0 is too small"),
        ({"task": "test"}, "names no images to test"),
        ({"data": "coco8"}, "knows 3 classes, but"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_mistake_is_one_line_and_exit_code_two(squares, checkpoint, tmp_path, capsys, changes, complaint):
    if changes.get("data") == "coco8":
        other = yaml.safe_load(squares.read_text(encoding="utf-8")) | {"names": ["a", "b"]}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
        changes = {"data": tmp_path / "other.yaml"}
    options = {"weights": checkpoint, "data": squares, "project": tmp_path / "runs", "device": "cpu", "workers": 0}
    assert main(**{**options, **changes}) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("val.py: ")
    assert complaint in line


def test_a_folder_that_is_deleted_while_the_run_goes_on_is_an_error(squares, checkpoint, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "runs/exp"
    monkeypatch.setattr("utils.validating.files.count_confusions", lambda *_: shutil.rmtree(folder, ignore_errors=True))
    options = {"weights": checkpoint, "data": squares, "imgsz": 64, "workers": 0, "project": folder.parent}
    assert main(**options, device="cpu", save_txt=True, batch_size=1) == 1
    log = capsys.readouterr().err
    assert log.splitlines()[-1] == f"val.py: {folder}: was deleted or moved while results were written to it"
    assert "Results saved" not in log
    assert not folder.exists()


@pytest.mark.parametrize("name", ["tiny_predictions.json", "labels/0.txt", "val_batch0_labels.jpg", "P_curve.png"])
def test_a_failed_write_is_one_line_and_leaves_nothing_half_written(
    squares, checkpoint, tmp_path, capsys, monkeypatch, name
):
    kept = Path.replace

    def full(path, target):
        if target == folder / name:
            raise OSError(28, "No space left on device")
        return kept(path, target)

    folder = tmp_path / "runs/exp"
    monkeypatch.setattr(Path, "replace", full)
    options = {"weights": checkpoint, "data": squares, "imgsz": 64, "workers": 0, "project": folder.parent}
    assert main(**options, device="cpu", save_txt=True, save_json=True) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"val.py: {folder / name}: cannot be written: No space left on device"
    )
    assert not (folder / name).exists()
    assert not list(folder.rglob(".*"))
