"""Pixels replaced by what their neighbours let one expect, so that a hole does not tell where it is: ROAD."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from explainer.perturbing import Perturbation

SHARES = (0.2, 0.4, 0.6, 0.8)
# The missing pixels are the unknowns of one linear system, which is solved on a grid with this longer side.
GRID_SIDE = 160


def road(perturbation: Perturbation, maps: Sequence[np.ndarray], detections: Sequence[int]) -> list[float]:
    """Return, for each heatmap and its detection, half of: score without the coldest less score without the hottest pixels.

    The mean over shares of the pixels, which the library's noisy linear imputation replaces; the whole image scores 1.
    ROAD, https://arxiv.org/abs/2202.00449.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(perturbation.protocol.seed)
        asked = zip(maps, detections, strict=True)
        left = perturbation.left((image, index) for heatmap, index in asked for image in imputed(perturbation, heatmap))
    hottest, coldest = left.reshape(len(maps), 2, len(SHARES)).mean(axis=2).T
    return ((coldest - hottest) / 2).tolist()


def imputed(perturbation: Perturbation, heatmap: np.ndarray) -> Iterator[Tensor]:
    """Yield the image without its hottest pixels, for each share of them, then without its coldest."""
    order = perturbation.order(heatmap)
    for place in (order, order.numel() - 1 - order):
        for share in SHARES:
            missing = place < share * order.numel()
            yield perturbation.replaced(lambda content, missing=missing: without(content, missing))


def without(content: Tensor, missing: Tensor) -> Tensor:
    """Return an image (1, 3, h, w) whose missing pixels (h, w) are imputed on a coarser grid; the others stay."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    height, width = missing.shape
    scale = min(GRID_SIDE / max(height, width), 1)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    known = interpolate((~missing)[None, None].float(), size, mode="area")[0, 0] >= 0.5
    coarse = interpolate(content.float(), size, mode="area")[0]
    filled = NoisyLinearImputer()(coarse.cpu(), known.float().cpu())
    smooth = interpolate(filled[None], (height, width), mode="bilinear")
    return torch.where(missing, smooth.to(content), content)
