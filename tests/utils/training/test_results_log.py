"""The table of results: repeated epochs, and TensorBoard."""

import sys
import types
from pathlib import Path

import pytest

from utils.training.results_log import COLUMNS, ResultsLog, read_results


def test_rows_of_repeated_epochs_are_dropped(tmp_path):
    log = ResultsLog(tmp_path)
    for epoch in range(3):
        log.add(epoch, [0.1 * epoch] * len(COLUMNS))
    again = ResultsLog(tmp_path, start_epoch=2)
    assert read_results(tmp_path / "results.csv")[:, 0].tolist() == [0, 1]
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
    monkeypatch.setattr("utils.training.results_log.find_spec", lambda name: module)
    ResultsLog(tmp_path).add(3, range(len(COLUMNS)))
    assert written["folder"] == str(tmp_path)
    assert written["metrics/mAP_0.5", 3] == 5


def test_going_on_keeps_the_earlier_rows_when_they_cannot_be_written_again(tmp_path, monkeypatch):
    log = ResultsLog(tmp_path)
    for epoch in range(3):
        log.add(epoch, [0.1 * epoch] * len(COLUMNS))
    before = log.path.read_bytes()

    def full(path, text, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"results\.csv"):
        ResultsLog(tmp_path, start_epoch=2)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("results.csv", before)]
