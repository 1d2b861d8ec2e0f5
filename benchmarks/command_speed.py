"""How long does the whole command take: to start, and over a folder of photographs, next to detect.py?

    python benchmarks/command_speed.py --weights yolov5n.pt --source ../datasets/coco128/images/train2017

Start-up is the time of a command that explains one image, against that of importing torch, torchvision and cv2. The folder
is timed as a user types it, start included, against detect.py drawing boxes on the same images; `--detect` may name the
detect.py of another checkout. Commands take turns, each in a process of its own; the ratios are those of the medians.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = ["-c", "import torch, torchvision, cv2"]
START_BUDGET, FOLDER_BUDGET = 1.5, 1.0


def seconds(arguments: list[str]) -> float:
    """Return how long Python takes for a command; CalledProcessError if it fails."""
    started = perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
    return perf_counter() - started


def command(script: Path, weights: str, source: Path, folder: str) -> list[str]:
    """Return a command that reads the images of a source and writes pictures into a folder."""
    return [str(script), "--weights", weights, "--source", str(source), "--project", folder]


def take_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Return the median time of each command in seconds, run in alternating rounds."""
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            times[name].append(seconds(arguments))
    return {name: median(taken) for name, taken in times.items()}


def report(what: str, times: dict[str, float], budget: float) -> None:
    """Print the times of the explainer and of what it is held against, and their ratio."""
    other = next(name for name in times if name != "explainer")
    ratio = times["explainer"] / times[other]
    print(
        f"{what}: {other} {times[other]:.2f} s, explainer {times['explainer']:.2f} s, ratio {ratio:.2f} (budget {budget})"
    )


def main() -> None:
    """Measure the start on one image, then the whole folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="yolov5s.pt", help="the checkpoint of both commands")
    parser.add_argument("--source", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--detect", type=Path, default=ROOT / "detect.py", help="the detect.py to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds")
    args = parser.parse_args()
    source, explainer = args.source.resolve(), ROOT / "explainer/explainer.py"
    weights = str(Path(args.weights).resolve()) if Path(args.weights).exists() else args.weights
    with TemporaryDirectory() as folder:
        one = command(explainer, weights, min(source.iterdir()), folder)
        report("start", take_turns({"imports": IMPORTS, "explainer": one}, args.rounds), START_BUDGET)
        folders = {
            "detect.py": command(args.detect.resolve(), weights, source, folder),
            "explainer": command(explainer, weights, source, folder),
        }
        report(f"{source.name}", take_turns(folders, args.rounds), FOLDER_BUDGET)


if __name__ == "__main__":
    main()
