"""Do several threads that share an explainer get through their images sooner or later than one thread alone?

    python benchmarks/thread_speed.py [--weights best.pt] [--threads 2 4] [--method GradCAM]

What is measured is a service: an explainer in one process, and threads that take images from one pile until it is empty.
Each number of threads has its turn in each round, next to the one thread that it is held against; the ratio is that of the
medians, with 1 thread and with 2 threads of torch in every pass. A ratio of 1 means that threads cost nothing, which is
the budget, with 5 % for what the clock of a shared machine does; below 1 they gain. That every thread gets the answers
of one thread, to the bit, is looked at first.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from explain_speed import random_network, seconds, threshold_for  # noqa: E402

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.detectors.yolov5 import YOLOv5  # noqa: E402
from explainer.explain import Explainer  # noqa: E402

BUDGET = 1.05
HEIGHT, WIDTH = 480, 640
TORCH_THREADS = (1, 2)


def images(count: int) -> list[np.ndarray]:
    """Return images of noise, uint8 RGB (H, W, 3), the same on every run."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(count)]


def answers(explainer: Explainer, pile: list[np.ndarray], threads: int) -> list[np.ndarray]:
    """Return the heatmap of each image (H, W), the images shared out among so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        return [answer.heatmap for answer in pool.map(explainer, pile)]


def compare(explainer: Explainer, pile: list[np.ndarray], threads: int, rounds: int) -> float:
    """Return the seconds of so many threads over those of one, the medians of alternating rounds; print both."""
    alone = answers(explainer, pile, 1)
    same = all(map(np.array_equal, alone, answers(explainer, pile, threads)))
    pairs = [[seconds(answers, explainer, pile, number) for number in (1, threads)] for _ in range(rounds)]
    one, several = (median(spent) / len(pile) * 1e3 for spent in zip(*pairs, strict=True))
    print(
        f"torch threads {torch.get_num_threads()}: 1 thread {one:.1f} ms per image, {threads} threads {several:.1f} ms, "
        f"ratio {several / one:.2f} (budget {BUDGET}); answers {'the same' if same else 'DIFFERENT'}"
    )
    return several / one


def main() -> None:
    """Measure each number of threads with each number of torch's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a checkpoint to measure instead of a random yolov5n")
    parser.add_argument("--method", default="GradCAM", help="how it is explained")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4], help="how many share the explainer")
    parser.add_argument("--images", type=int, default=16, help="how many lie on the pile")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds")
    args = parser.parse_args()
    pile = images(args.images)
    model = open_model(args.weights, device="cpu") if args.weights else random_network("yolov5n.yaml", pile[0])
    explainer = Explainer(model, method=args.method, conf_thres=threshold_for(YOLOv5(model), pile[0]))
    for number in TORCH_THREADS:
        torch.set_num_threads(number)
        for threads in args.threads:
            compare(explainer, pile, threads, args.rounds)


if __name__ == "__main__":
    main()
