"""How much faster than one full forward pass per channel is AblationCAM, and does it give the same map?

    python benchmarks/ablation_speed.py [--weights best.pt] [--image photo.jpg] [--layer 17]

By its definition Ablation-CAM runs the network once for each channel of the layer, with that channel set to zero. Here
only what lies above the layer is run again, for a batch of channels and for all detections at once. The time of the
definition is that of some channels, times their number; these channels' drops in score are compared too. Without a layer
the head's own inputs are read, each detection at its stride. Without a photograph, noise is explained, by a random
network.
"""

import argparse
import sys
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from explain_speed import random_network, threshold_for  # noqa: E402

from explainer.detectors.weights import open_model  # noqa: E402
from explainer.detectors.white_box import undisturbed  # noqa: E402
from explainer.explain import Explainer  # noqa: E402
from explainer.methods.evidence import Ablation  # noqa: E402
from explainer.subjects import Asked, subjects  # noqa: E402

GOAL = 20
TOLERANCE = 1e-3


class Case:
    """One image with its detections, ready for AblationCAM at one layer."""

    def __init__(self, model: torch.nn.Module, image_rgb: np.ndarray, layer: int | None):
        explainer = Explainer(model, method="AblationCAM", layer="auto" if layer is None else layer)
        self.detector = explainer.detector
        threshold = threshold_for(self.detector, image_rgb)
        explainer = Explainer(self.detector, **vars(explainer.settings) | {"conf_thres": threshold})
        self.settings, layers = explainer.settings, explainer.attributor.layers
        with self.detector.borrowed() as self.lent:
            seen = self.lent.see(image_rgb, explainer.sight)
            found = subjects(seen, Asked(), self.settings, explainer.chosen)
            plan = explainer.attributor.planner.plan(found)
            self.recording, self.target = seen.recording, plan.target(seen.recording, explainer.attributor.views[0])
        self.at_head, self.count = layers.at_head, len(found.detections)
        levels = sorted({detection.level for detection in found.detections})
        self.layers = sorted({name for level in levels for name in layers.by_level[level]})

    def fast(self) -> dict[str, torch.Tensor]:
        """Return the drops (C, D) of all layers by re-running only what lies above."""
        with undisturbed(self.lent.device):
            evidence = Ablation(self.lent, self.recording, self.target, self.settings, at_head=self.at_head)
            return {layer: evidence.weights(layer) for layer in self.layers}

    def by_definition(self, layer: str, channels: range) -> torch.Tensor:
        """Return the drops (channels, D) by full forward passes."""
        clean, drops = self.target.of(self.recording.predictions), []
        with undisturbed(self.lent.device), torch.no_grad():
            for channel in channels:
                with self._without(layer, channel):
                    drops.append(clean - self.target.of(self.lent.predict(self.recording.image))[0])
        return torch.stack(drops)

    def _without(self, layer: str, channel: int):
        """Return the hook that sets a channel to zero: for the head alone, or for all that reads the layer."""

        def zero(tensor: torch.Tensor) -> torch.Tensor:
            tensor = tensor.clone()
            tensor[:, channel] = 0
            return tensor

        if not self.at_head:
            module = self.lent.model.get_submodule(layer)
            return module.register_forward_hook(lambda module, args, output: zero(output))
        level = next(index for index, entry in enumerate(self.lent.levels) if entry.source == layer)
        head = self.lent.levels[level].head
        return head.register_forward_pre_hook(
            lambda head, args: ([zero(tensor) if i == level else tensor for i, tensor in enumerate(args[0])],)
        )


def compare(case: Case, samples: int) -> tuple[float, float]:
    """Return how many times faster it is, and the largest difference of the drops, against the largest drop."""
    case.fast()
    started = perf_counter()
    drops = case.fast()
    fast, slow, difference = perf_counter() - started, 0.0, 0.0
    for layer in case.layers:
        channels = range(min(samples, len(drops[layer])))
        started = perf_counter()
        expected = case.by_definition(layer, channels)
        slow += (perf_counter() - started) / len(channels) * len(drops[layer])
        error = (expected - drops[layer][: len(channels)]).abs().amax(0) / drops[layer].abs().amax(0).clamp_min(1e-6)
        difference = max(difference, error.max().item())
    where = " ".join(f"{layer} ({len(drops[layer])} channels)" for layer in case.layers)
    print(
        f"{where}, {case.count} detections: {slow:.2f} s by definition, {fast * 1e3:.1f} ms here, ratio {slow / fast:.0f} "
        f"(goal {GOAL} at a head layer); drops differ by {difference:.1e} of the largest (at most {TOLERANCE})"
    )
    return slow / fast, difference


def main() -> int:
    """Measure, and return 1 where the drops are not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a checkpoint to measure instead of a random yolov5s")
    parser.add_argument("--image", help="a photograph to explain instead of noise")
    parser.add_argument("--layer", type=int, help="a numbered layer instead of the head's inputs")
    parser.add_argument("--samples", type=int, default=8, help="channels of each layer that are run by definition")
    args = parser.parse_args()
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    image_rgb = cv2.imread(args.image)[..., ::-1].copy() if args.image else noise
    model = open_model(args.weights, device="cpu") if args.weights else random_network("yolov5s.yaml", image_rgb)
    _, difference = compare(Case(model, image_rgb, args.layer), args.samples)
    return int(difference > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
