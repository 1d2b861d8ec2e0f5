"""The methods: one table that drives the option, the help text, the error text, the README and the computation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainer import formulas
from explainer.errors import UsageError, unknown
from explainer.formulas import Contributions, Projection, from_library

# activations and evidence -> map (h, w), float32, which may be negative
Formula = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to turn what a recorded image holds at a layer into a map.

    `load()` returns the contributions of the channels; it imports what they need. `project` makes one map of them; where
    it is left out they are added up, or with `--eigen-smooth` projected on their first principal component. `evidence` and
    `target` are the kind of evidence and what it is taken of, as `explainer.kinds` names them.

    `reads` says where `auto` reads: "head" for methods that pool the evidence over the map, and therefore work on the few
    cells that a detection touches at its own Detect input; "neck" for methods that go cell by cell, which shrink to dots
    there; "both" for one that combines layers; "biases" for one that reads all that have a bias.
    `merge` says how the maps of several layers become one: "mean", "product" or "sum".
    """

    summary: str
    paper: str
    load: Callable[[], Contributions]
    reads: str = "head"
    evidence: str = "gradients"
    target: str = "detections"
    project: Projection | None = None
    merge: str = "mean"

    def formula(self, eigen_smooth: bool) -> Formula:
        """Return the way from activations and evidence to a map."""
        contributions = self.load()
        project = self.project or (formulas.principal_projection if eigen_smooth else formulas.added_up)
        return lambda activations, evidence: project(contributions(activations, evidence))


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
    "GuidedGradients": Method(
        "weights each channel by the mean of its positive gradients where it is active itself",
        "https://arxiv.org/abs/1412.6806",
        formulas.weighted_by_guided_mean,
    ),
    "ShapleyCAM": Method(
        "weights each channel by its mean gradient, less half the curvature of the score along the activations",
        "https://arxiv.org/abs/2501.06261",
        formulas.weighted_by_mean,
        evidence="curvature",
    ),
    "FinerCAM": Method(
        "Grad-CAM of what sets the class apart from the three most similar ones",
        "https://arxiv.org/abs/2501.11309",
        from_library("GradCAM"),
        target="finer",
    ),
    "RefineCAM": Method(
        "product of the Grad-CAM++ maps of several layers",
        "https://arxiv.org/abs/2605.14641",
        from_library("GradCAMPlusPlus"),
        reads="both",
        merge="product",
    ),
    "FullGrad": Method(
        "gradient times input, and gradient times bias of every layer, by size",
        "https://arxiv.org/abs/1905.00780",
        formulas.absolute_product,
        reads="biases",
        evidence="biases",
        project=formulas.scaled_and_added_up,
        merge="sum",
    ),
    "AblationCAM": Method(
        "weights each channel by how much the score falls without it",
        "https://doi.org/10.1109/WACV45572.2020.9093360",
        formulas.weighted,
        evidence="ablation",
    ),
    "ScoreCAM": Method(
        "weights each channel by how well the score holds when the picture shows only what the channel responds to (slow)",
        "https://arxiv.org/abs/1910.01279",
        formulas.weighted,
        evidence="masking",
    ),
    "EigenCAM": Method(
        "first principal component of the activations: the same for every class and object",
        "https://arxiv.org/abs/2008.00299",
        formulas.activations_alone,
        reads="neck",
        evidence="activations",
        project=formulas.principal_projection,
    ),
    "EigenGradCAM": Method(
        "first principal component of gradient times activation",
        "https://arxiv.org/abs/2008.00299",
        formulas.gradient_times_activation,
        reads="neck",
        project=formulas.principal_projection,
    ),
    "SegEigenCAM": Method(
        "first principal component of the gradient's size times activation, its sign set by its peak",
        "https://doi.org/10.3390/app15137562",
        formulas.absolute_gradient_times_activation,
        reads="neck",
        project=formulas.principal_projection_with_positive_peak,
    ),
    "KPCA_CAM": Method(
        "first principal component of the activations under a sigmoid kernel: the same for every class and object",
        "https://arxiv.org/abs/2410.00267",
        formulas.activations_alone,
        reads="neck",
        evidence="activations",
        project=formulas.kernel_projection,
    ),
    "FEM": Method(
        "weights each channel by the share of its cells that stand out: the same for every class and object",
        "https://hal.science/hal-02963298/document",
        from_library("FEM"),
        reads="neck",
        evidence="activations",
    ),
    "RandomCAM": Method(
        "weights each channel at random: the baseline that a useful method must beat",
        "https://github.com/jacobgil/pytorch-grad-cam",
        formulas.weighted,
        evidence="random",
    ),
}
METHOD_ALIASES = {"GradCAM++": "GradCAMPlusPlus"}

# What pytorch_grad_cam offers too and a detector cannot use, with the reason.
NOT_APPLICABLE = {
    "SESS": "it weights crops of the picture by how a classifier rates each, and a detection's score is bound to its box; "
    "try --aug-smooth",
    "GuidedBackpropReLUModel": "it changes ReLU layers, and YOLOv5 has none; try --method GuidedGradients",
    "DeepFeatureFactorization": "it finds concepts in a picture and explains no detection; try --method EigenCAM",
}


def canonical_method(name: str) -> str:
    """Return the method's name as the table spells it; UsageError for an unknown one, or one that cannot apply."""
    spellings = {known.lower(): known for known in (*METHODS, *NOT_APPLICABLE)}
    spellings |= {alias.lower(): full for alias, full in METHOD_ALIASES.items()}
    if str(name).lower() not in spellings:
        raise unknown("method", name, [*METHODS, *METHOD_ALIASES], "not case-sensitive")
    known = spellings[name.lower()]
    if known in NOT_APPLICABLE:
        raise UsageError(f"--method {known} does not apply: {NOT_APPLICABLE[known]}")
    return known
