"""What does a cluster cost, and what does it bring? Ratios in one run, on this machine, by local clusters of Ray.

    pip install -r requirements-ray.txt
    python benchmarks/scale_speed.py [--images 2000] [--many 20000]

The scenes of the demo, over and over, by its model at 64 pixels; tables alone, no pictures.

    workers    images per second of two workers with one thread each, as a multiple of one such worker, once all are at work
    overhead   seconds of the whole command with --ray and one worker, as a multiple of the command without, both with one
               thread, over --images; at 64 pixels, where an image takes least, and at 480
    memory     peak of the process that shares out the work, in MB, over 1,000 images and over --many
    inside     share of evaluate.py's time that its workers spend inside the model
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data/demo"
# Of the images, before the rate is taken: meanwhile workers begin.
SETTLING = 0.25
# Runs in a process of its own, and prints when each image was counted and the peak of its memory, as JSON.
COUNTING = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from explainer.command import sharding
from explainer.command.options import build_options
from explainer.explainer import explain_source
times, count = [], sharding.ShardedRun._count
sharding.ShardedRun._count = lambda self, *what: (times.append(time.perf_counter()), count(self, *what))
explain_source(build_options(json.loads(sys.argv[2])))
status = Path("/proc/self/status").read_text()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps({"times": times, "peak": peak / 1024}))
"""


def parse_opt() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="images of the runs whose speed is compared")
    parser.add_argument("--many", type=int, default=20_000, help="images of the run whose memory is looked at")
    return parser.parse_args()


def folder_of(count: int, parent: Path) -> Path:
    """Return a folder of so many images, which are links to the scenes of the demo."""
    folder, scenes = parent / f"images-{count}", sorted((DEMO / "images").glob("*.jpg"))
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}.jpg").symlink_to(scenes[number % len(scenes)])
    return folder


def counted(source: Path, parent: Path, workers: int, threads: int) -> dict:
    """Return when each image of a source was counted, in seconds, and the peak of memory, of a run on a local cluster.

    threads: of all workers together
    """
    options = {
        "weights": str(DEMO / "demo.pt"), "source": str(source), "imgsz": 64, "nosave": True, "project": str(parent / "runs"),
        "device": "cpu", "ray": "local", "workers": workers,
    }  # fmt: skip
    command = [sys.executable, "-c", COUNTING, str(ROOT), json.dumps(options)]
    ran = subprocess.run(on_cores(threads, command), capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def on_cores(count: int, command: list[str]) -> list[str]:
    """Return a command that is held to so many cores."""
    return ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:count])), *command]


def rate(times: list[float]) -> float:
    """Return images per second, once all workers are at work."""
    first = int(SETTLING * len(times))
    return (len(times) - 1 - first) / (times[-1] - times[first])


def seconds(source: Path, parent: Path, imgsz: int, *further: str) -> float:
    """Return the seconds of a whole command with one thread."""
    command = [
        sys.executable, str(ROOT / "explainer/explainer.py"), "--weights", str(DEMO / "demo.pt"), "--source", str(source),
        "--imgsz", str(imgsz), "--nosave", "--device", "cpu", "--project", str(parent / "runs"), *further,
    ]  # fmt: skip
    started = perf_counter()
    subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return perf_counter() - started


def share_inside(parent: Path) -> float:
    """Return the share of its time that an evaluation on a cluster spends inside the model."""
    command = [
        sys.executable, str(ROOT / "explainer/evaluate.py"), "--weights", str(DEMO / "demo.pt"), "--data",
        str(DEMO / "images"), "--device", "cpu", "--nosave", "--project", str(parent / "runs"), "--ray",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"(\d+) % of it inside the model", ran.stdout + ran.stderr).group(1)) / 100


def main(opt: argparse.Namespace) -> None:
    """Print all ratios."""
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        images = folder_of(opt.images, parent)
        one, two = (rate(counted(images, parent, workers, workers)["times"]) for workers in (1, 2))
        print(f"workers   {two / one:.2f} ({one:.1f} and {two:.1f} images per second)", flush=True)
        for imgsz in (64, 480):
            alone = seconds(images, parent, imgsz)
            spread = seconds(images, parent, imgsz, "--ray", "--workers", "1")
            print(f"overhead  {spread / alone:.2f} at {imgsz} pixels ({alone:.0f} and {spread:.0f} s)", flush=True)
        few, many = (counted(folder_of(count, parent), parent, 2, 2)["peak"] for count in (1000, opt.many))
        print(f"memory    {few:.0f} MB over 1,000 images, {many:.0f} MB over {opt.many:,}", flush=True)
        print(f"inside    {share_inside(parent):.2f}")


if __name__ == "__main__":
    main(parse_opt())
