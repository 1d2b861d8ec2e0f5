"""Runs on a Ray cluster: the same answers as one process gives, nothing lost and nothing twice, whatever dies."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fresh_interpreter import tree

ray = pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")

from explainer.command import sharding  # noqa: E402
from explainer.command.cluster import (  # noqa: E402
    MOST_DEATHS,
    Crew,
    Size,
    Task,
    check_versions,
    connected,
    greeting,
    size_of,
    versions_of_libraries,
)
from explainer.command.options import build_options  # noqa: E402
from explainer.errors import UsageError  # noqa: E402
from explainer.evaluate import run as evaluate  # noqa: E402
from explainer.explainer import explain_source, main, parse_opt, run  # noqa: E402
from explainer.files.parts import PARTS, Part, ShardResults, parts_in, path_of, remove_unfinished, rows_of, write_part  # noqa: E402
from explainer.files.sources import read_image  # noqa: E402

DEMO = Path(__file__).parents[3] / "data/demo"
COUNT = 12


@pytest.fixture(scope="module", autouse=True)
def started():
    """Start a cluster of two cores once, for all tests of this file."""
    paths = os.pathsep.join([str(tree()), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def options(tmp_path):
    """Return the options of a small run over the scenes of the demo."""
    return {
        "weights": DEMO / "demo.pt",
        "source": str(DEMO / "images"),
        "imgsz": 160,
        "device": "cpu",
        "project": str(tmp_path),
    }


def table(folder):
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def images_in(folder):
    """Return how often each image is in the parts of a run, as a file that is finished."""
    return Counter(Path(name).name for part in parts_in(folder) for name in part.files)


def local(kind):
    """Return a class that other processes get whole, since they cannot import this file."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[kind.__module__])
    return kind


class Mortal:
    """A worker that a unit kills: `once` where a file is not there yet, `always`, or never."""

    def open(self, folder):
        self.folder = Path(folder)
        return greeting()

    def work(self, task):
        for place in task.left():
            unit = task.units[place]
            marker = self.folder / f"{task.number}-{place}"
            if unit == "always" or (unit == "once" and not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if unit == "wrong":
                raise UsageError("that is no unit")
            yield place, f"{unit} of {task.number}"


@pytest.mark.parametrize("whole", [True, False])
def test_each_unit_comes_once_and_one_that_kills_three_workers_is_given_up(tmp_path, whole):
    units = [["a", "b"], ["a", "once", "b"], ["a", "always", "b"], ["c"]]
    tasks = [Task(number, entries, whole) for number, entries in enumerate(units)]
    found, ended = [], []
    with Crew(local(Mortal), (str(tmp_path),), Size(2, 1)) as crew:
        for task, place, said in crew.run(tasks):
            if place is None:
                ended.append(task.number)
            else:
                found.append((task.number, place, said))
    wanted = {(n, p): f"{unit} of {n}" for n, entries in enumerate(units) for p, unit in enumerate(entries)}
    del wanted[2, 1]
    assert len(found) == len(wanted)
    assert {(number, place): said for number, place, said in found} == wanted
    assert sorted(ended) == [0, 1, 2, 3]
    assert list(tasks[2].lost) == [1]
    assert f"killed {MOST_DEATHS} workers" in tasks[2].lost[1]
    # A first worker, of which it is not known at what it died, and two that were watched.
    assert tasks[2].attempt == MOST_DEATHS + 1


def test_what_a_worker_raises_is_raised_here(tmp_path):
    with Crew(local(Mortal), (str(tmp_path),), Size(1, 1)) as crew, pytest.raises(UsageError, match="that is no unit"):
        list(crew.run([Task(0, ["wrong"], whole=True)]))


def test_the_table_and_the_pictures_are_those_of_one_process(options, tmp_path):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = explain_source(build_options(options | {"name": "alone", "save_npz": True, "suspects": 2}))
    torch.set_num_threads(threads)
    spread = explain_source(
        build_options(options | {"name": "spread", "save_npz": True, "suspects": 2, "ray": "local", "workers": 2})
    )
    one, other = tmp_path / "alone", tmp_path / "spread"
    assert (one / "explanations.csv").read_bytes() == (other / "explanations.csv").read_bytes()
    assert spread.done == alone.done == COUNT
    assert spread.outcomes == alone.outcomes
    assert [each.line for each in spread.suspects.kept] == [each.line for each in alone.suspects.kept]
    for path in [*one.rglob("*.jpg"), *one.rglob("*.npz")]:
        (same,) = [
            found for found in other.rglob(path.name) if found.parent.name == path.parent.name or path.parent == one
        ]
        if path.suffix == ".jpg":
            assert np.array_equal(read_image(path), read_image(same))
    assert not list(other.rglob(".*"))


def test_the_parts_are_a_data_set_that_others_read(options, tmp_path):
    pandas = pytest.importorskip("pandas")
    explain_source(build_options(options | {"ray": "local", "workers": 1, "nosave": True}))
    folder = tmp_path / "exp"
    rows = pandas.read_parquet(folder / PARTS)
    assert len(rows) == len(table(folder))
    assert rows["confidence"].dtype == float
    assert rows["energy_in_box"].between(0, 1).all()
    assert not list(folder.glob("shard-*"))


def test_an_image_that_kills_its_workers_is_skipped_and_all_others_are_there_once(
    options, tmp_path, monkeypatch, caplog
):
    class Poisoned(sharding.ShardWorker):
        def _frames(self, task, called):
            for place, frame in super()._frames(task, called):
                if frame is not None and frame.path.name == "00004.jpg":
                    os.kill(os.getpid(), signal.SIGKILL)
                yield place, frame

    monkeypatch.setattr(sharding, "ShardWorker", local(Poisoned))
    monkeypatch.setattr(sharding, "SHARDS_FOR_EACH", 2)
    findings = explain_source(build_options(options | {"ray": "local", "workers": 2}))
    folder = tmp_path / "exp"
    assert (findings.done, findings.skipped) == (COUNT - 1, 1)
    assert "00004.jpg: it killed 3 workers" in caplog.text
    assert images_in(folder) == Counter(path.name for path in (DEMO / "images").glob("*.jpg"))
    assert {Path(row["image"]).name for row in table(folder)} == set(images_in(folder)) - {"00004.jpg"}
    assert len(list(folder.rglob("*.jpg"))) == COUNT - 1
    # The run goes on with what it lacks, and with nothing else.
    monkeypatch.undo()
    again = explain_source(build_options({"resume": str(folder)}))
    assert (again.done, again.skipped) == (1, 0)
    assert len({row["image"] for row in table(folder)}) == COUNT


def test_a_run_whose_process_was_killed_goes_on_with_each_image_once(options, tmp_path, monkeypatch):
    whole = explain_source(build_options(options | {"name": "whole", "ray": "local", "workers": 1}))

    class StoppedError(Exception):
        pass

    count = sharding.ShardedRun._count

    def until_the_fifth(self, path, found):
        count(self, path, found)
        if self.findings.done == 5:
            raise StoppedError

    monkeypatch.setattr(sharding.ShardedRun, "_count", until_the_fifth)
    with pytest.raises(StoppedError):
        explain_source(build_options(options | {"name": "cut", "ray": "local", "workers": 1}))
    folder = tmp_path / "cut"
    assert not (folder / "explanations.csv").exists()
    (folder / ".shard-00009.1.part").mkdir()
    monkeypatch.undo()
    again = explain_source(build_options({"resume": str(folder)}))
    assert 0 < again.done < COUNT
    assert again.outcomes == whole.outcomes
    assert (folder / "explanations.csv").read_bytes() == (tmp_path / "whole/explanations.csv").read_bytes()
    assert images_in(folder) == Counter(path.name for path in (DEMO / "images").glob("*.jpg"))
    assert not list(folder.rglob(".*"))


THREE_MACHINES = """
import json, sys
from ray.cluster_utils import Cluster
sys.path.insert(0, sys.argv[1])
from explainer.command import sharding
from explainer.command.options import build_options
from explainer.explainer import explain_source

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
counted, count = [], sharding.ShardedRun._count

def until_two_machines_go(self, path, found):
    counted.append(path)
    if len(counted) == 3:
        for machine in machines:
            cluster.remove_node(machine, allow_graceful=False)
    count(self, path, found)

sharding.ShardedRun._count = until_two_machines_go
findings = explain_source(build_options(json.loads(sys.argv[2]) | {"ray": cluster.address, "workers": 3}))
print(json.dumps({"done": findings.done, "skipped": findings.skipped}))
"""


def test_machines_may_go_while_a_run_is_on(options, tmp_path):
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    command = [sys.executable, "-c", THREE_MACHINES, str(tree()), json.dumps(settings)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {"done": COUNT, "skipped": 0}
    explain_source(build_options(options | {"name": "calm", "ray": "local", "workers": 1}))
    assert (tmp_path / "exp/explanations.csv").read_bytes() == (tmp_path / "calm/explanations.csv").read_bytes()


def test_images_that_lie_elsewhere_are_fetched_and_called_by_their_address(options, tmp_path):
    address = f"file://{DEMO / 'images'}/0000[0-2].jpg"
    findings = explain_source(build_options(options | {"source": address, "ray": "local", "workers": 1}))
    names = [row["image"] for row in table(tmp_path / "exp")]
    assert findings.done == 3
    assert list(dict.fromkeys(names)) == [f"file://{DEMO / 'images'}/0000{number}.jpg" for number in range(3)]


def test_an_unreadable_image_is_reported_and_counted(options, tmp_path, caplog):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes((DEMO / "images/00000.jpg").read_bytes())
    (images / "b.jpg").write_text("no image")
    code = main(parse_opt([
        "--weights", str(DEMO / "demo.pt"), "--source", str(images), "--imgsz", "160", "--project", str(tmp_path), "--ray",
        "--workers", "1",
    ]))  # fmt: skip
    assert code == 1
    assert "b.jpg" in caplog.text
    assert {Path(row["image"]).name for row in table(tmp_path / "exp")} == {"a.jpg"}


def test_run_returns_the_last_picture(options):
    image = run(**options | {"source": str(DEMO / "images/00000.jpg"), "ray": "local", "workers": 1})
    assert image.shape == read_image(DEMO / "images/00000.jpg").shape


def test_an_evaluation_has_the_figures_of_one_process(tmp_path):
    import torch

    common = {
        "weights": DEMO / "demo.pt", "data": DEMO / "images", "imgsz": 160, "method": "LayerCAM", "steps": 2,
        "max_det_per_image": 1, "fraction": 0.4, "project": tmp_path, "nosave": True, "device": "cpu",
    }  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = evaluate(**common, name="alone")
    torch.set_num_threads(threads)
    other = evaluate(**common, name="spread", ray="local", workers=2)
    costs = ("milliseconds", "memory")
    rows = [
        sorted(
            tuple(value for name, value in row.items() if name not in costs)
            for row in csv.DictReader(text.splitlines())
        )
        for text in ((folder / "detections.csv").read_text(encoding="utf-8") for folder in (one, other))
    ]
    assert rows[0] == rows[1]
    assert rows[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"source": "0"}, "stream or a screen"),
        ({"workers": 9}, "room for 2"),
        ({"gpus_per_worker": 1.0}, "0 GPUs"),
        ({"view_img": True}, "leave it out"),
        ({"workers": 0}, "whole number"),
        ({"ray": None}, "add --ray"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(options, wrong, words):
    with pytest.raises(UsageError, match=words):
        explain_source(build_options(options | {"ray": "local", "workers": 1} | wrong))


def test_a_run_in_one_piece_does_not_go_on_in_parts(options, tmp_path):
    explain_source(build_options(options | {"source": str(DEMO / "images/00000.jpg")}))
    with pytest.raises(UsageError, match="leave --ray out"):
        explain_source(build_options({"resume": str(tmp_path / "exp"), "ray": "local"}))


def test_without_ray_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="requirements-ray"), connected("local"):
        pass


def test_a_cluster_that_is_not_there_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def nobody_answers(**settings):
        raise ConnectionError("Could not find any running Ray instance at 192.0.2.1:6379.")

    monkeypatch.setattr(ray, "init", nobody_answers)
    with pytest.raises(UsageError, match="no cluster could be joined"), connected("192.0.2.1:6379"):
        pass


def test_workers_of_other_versions_are_told_in_a_line(monkeypatch):
    ours = versions_of_libraries()
    check_versions(ours)
    with pytest.raises(UsageError, match="other versions"):
        check_versions([*ours[:-1], "opencv-python 0.1"])


def test_the_cores_are_shared_out_evenly():
    assert size_of(None, None) == Size(2, 1, 0.0)
    assert size_of(1, None) == Size(1, 2, 0.0)


def test_a_worker_that_does_not_see_the_folder_says_so(options, tmp_path):
    arguments = build_options(options), ray.put({}), 1, str(tmp_path / "elsewhere")
    with (
        Crew(sharding.ShardWorker, arguments, Size(1, 1)) as crew,
        pytest.raises(UsageError, match="a --project that all machines share"),
    ):
        list(crew.run([Task(0, [str(DEMO / "images/00000.jpg")], whole=True)]))


def test_a_worker_of_an_earlier_run_cannot_finish_what_a_later_one_has_removed(tmp_path):
    with ShardResults(tmp_path, 0, {}) as results:
        pass
    remove_unfinished(tmp_path)
    with pytest.raises(FileNotFoundError):
        results.finish(Part(0, ["a.jpg"]))
    assert not list(parts_in(tmp_path))
    assert not list(tmp_path.glob("shard-*"))


def test_a_damaged_part_is_told_by_its_name(tmp_path):
    (tmp_path / PARTS).mkdir()
    (tmp_path / PARTS / "part-00000.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UsageError, match="is no part of a run"):
        list(parts_in(tmp_path))


def test_a_part_keeps_names_that_are_no_utf8(tmp_path):
    from explainer.files.results import as_utf8

    name = as_utf8(os.fsdecode(b"/caf\xe9.jpg"))
    part = Part(3, [name], {0: "torn"}, {"": {"": 2}})
    path_of(tmp_path, 3).parent.mkdir()
    write_part(path_of(tmp_path, 3), part, [{"image": name, "class": 1, "confidence": "0.5"}])
    (part,) = parts_in(tmp_path)
    assert (part.number, part.files, part.skipped, part.outcomes) == (3, [name], {0: "torn"}, {"": {"": 2}})
    assert rows_of(tmp_path, 3, ("image", "confidence")) == [{"image": name, "confidence": 0.5}]
