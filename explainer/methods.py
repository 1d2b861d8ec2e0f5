"""The methods: one table that drives the option, the help text, the error text and the computation.

The formulas are the classes of pytorch_grad_cam, fed with activations and gradients that were recorded on the detector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainer.errors import unknown

# activations (1, C, h, w) and gradients of the same shape, float32 -> map (h, w), float32, which may be negative.
# Gradients are None for a method that uses none.
Formula = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to turn a layer's activations and gradients into a map.

    `load()` returns the formula; it imports what the formula needs. `reads` says where `auto` reads it: "head" for
    methods that pool the gradient over the map, and therefore work on the few cells that a detection touches at its own
    Detect input; "neck" for methods that multiply gradient and activation cell by cell, which shrink to dots there.
    """

    summary: str
    paper: str
    load: Callable[[], Formula]
    reads: str = "head"
    uses_gradients: bool = True


def from_library(name: str) -> Callable[[], Formula]:
    """Return the loader of the formula of the pytorch_grad_cam class called `name`."""

    def load() -> Formula:
        import pytorch_grad_cam
        from torch import nn

        # The class wants a model to hook. It gets a stand-in: activations and gradients come from outside.
        cam = getattr(pytorch_grad_cam, name)(nn.Linear(1, 1), [])
        return lambda activations, gradients: cam.get_cam_image(None, None, None, activations, gradients, False)[0]

    return load


def principal_projection(features: np.ndarray) -> np.ndarray:
    """Return the projection (h, w) of features (1, C, h, w) on their first principal component.

    The library's function computes a full basis of the h*w pixels for it; the first right singular vector needs only the
    economy-size decomposition, which is 100 times cheaper on an 80x80 map and gives the same vector, sign included.
    """
    columns, shape = features.shape[1], features.shape[2:]
    pixels = np.nan_to_num(features[0], nan=0.0).reshape(columns, -1).T
    pixels = pixels - pixels.mean(axis=0)
    _, _, components = np.linalg.svd(pixels, full_matrices=False)
    return np.float32(pixels @ components[0]).reshape(shape)


METHODS = {
    "GradCAM": Method(
        "weights each channel by its mean gradient",
        "https://arxiv.org/abs/1610.02391",
        from_library("GradCAM"),
    ),
    "GradCAMPlusPlus": Method(
        "Grad-CAM whose weights count each cell by the higher derivatives of the score",
        "https://arxiv.org/abs/1710.11063",
        from_library("GradCAMPlusPlus"),
    ),
    "XGradCAM": Method(
        "weights each channel by its gradient times its share of the activation",
        "https://arxiv.org/abs/2008.02312",
        from_library("XGradCAM"),
    ),
    "HiResCAM": Method(
        "gradient times activation, cell by cell",
        "https://arxiv.org/abs/2011.08891",
        from_library("HiResCAM"),
        reads="neck",
    ),
    "LayerCAM": Method(
        "positive gradient times activation, cell by cell",
        "https://ieeexplore.ieee.org/document/9462463",
        from_library("LayerCAM"),
        reads="neck",
    ),
    "GradCAMElementWise": Method(
        "gradient times activation, cell by cell, negative products left out",
        "https://github.com/jacobgil/pytorch-grad-cam",
        from_library("GradCAMElementWise"),
        reads="neck",
    ),
    "EigenCAM": Method(
        "first principal component of the activations: the same for every class and object",
        "https://arxiv.org/abs/2008.00299",
        lambda: lambda activations, gradients: principal_projection(activations),
        reads="neck",
        uses_gradients=False,
    ),
    "EigenGradCAM": Method(
        "first principal component of gradient times activation",
        "https://arxiv.org/abs/2008.00299",
        lambda: lambda activations, gradients: principal_projection(gradients * activations),
        reads="neck",
    ),
}
METHOD_ALIASES = {"GradCAM++": "GradCAMPlusPlus"}


def canonical_method(name: str) -> str:
    """Return the method's name as the table spells it; UsageError for an unknown one."""
    spellings = {known.lower(): known for known in METHODS} | {a.lower(): full for a, full in METHOD_ALIASES.items()}
    if str(name).lower() not in spellings:
        raise unknown("method", name, [*METHODS, *METHOD_ALIASES], "not case-sensitive")
    return spellings[name.lower()]
