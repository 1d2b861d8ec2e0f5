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

    `reads` is one of PLACES, where `auto` reads; "biases" for a method that reads all layers that have one; "predictions"
    for black-box methods, which read no layer.
    `merge` says how the maps of several layers become one unless `--fuse` does, by the names of `MERGES` in maps/heatmaps.py.
    `items` are what of a detection is explained unless `--backprop-array` says so.
    `no_sign` says why negative values of the map do not mean that something speaks against; empty where they do.
    """

    summary: str
    paper: str
    load: Callable[[], Contributions]
    reads: str = "head"
    evidence: str = "gradients"
    target: str = "detections"
    project: Projection | None = None
    merge: str = "mean"
    items: tuple[str, ...] = ("class",)
    no_sign: str = ""

    @property
    def chooses_layers(self) -> bool:
        """Whether it reads the layers that it is told to."""
        return self.reads not in ("biases", "predictions")

    def formula(self, eigen_smooth: bool) -> Formula:
        """Return the way from activations and evidence to a map."""
        contributions = self.load()
        project = self.project or (formulas.principal_projection if eigen_smooth else formulas.added_up)
        return lambda activations, evidence: project(contributions(activations, evidence))


# Where a map can be read, for `reads` and `--layer`; `explainer.places` finds each in a network by its structure.
PLACES = {
    "head": "the Detect input of a detection's own stride",
    "neck": "the block where the neck first fuses its features with the backbone's",
    "backbone": "the end of the backbone",
    "coarsest": "the Detect input of the largest stride, whatever a detection's own is",
    "neck+head": "the two together",
    "fine+deep": "the finest layer that the neck takes from the backbone, and the deep layers that follow it",
}

POSITIVE_ALONE = "it weighs positive gradients alone"
ARBITRARY = "the sign of a principal component is arbitrary"

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
        no_sign=POSITIVE_ALONE,
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
        reads="backbone",
    ),
    "LayerCAM": Method(
        "positive gradient times activation, cell by cell",
        "https://ieeexplore.ieee.org/document/9462463",
        from_library("LayerCAM"),
        reads="neck",
        no_sign=POSITIVE_ALONE,
    ),
    "FusedLayerCAM": Method(
        "LayerCAM of a layer with fine cells, times the mean of widened ones of deep layers: what is there, where they point",
        "https://ieeexplore.ieee.org/document/9462463",
        from_library("LayerCAM"),
        reads="fine+deep",
        merge="fine*deep",
        items=("class_confidence",),
        no_sign="it multiplies maps of what speaks for",
    ),
    "GradCAMElementWise": Method(
        "gradient times activation, cell by cell, negative products left out",
        "https://github.com/jacobgil/pytorch-grad-cam",
        from_library("GradCAMElementWise"),
        reads="backbone",
        no_sign="it leaves negative products out",
    ),
    "GuidedGradients": Method(
        "weights each channel by the mean of its positive gradients where it is active itself",
        "https://arxiv.org/abs/1412.6806",
        formulas.weighted_by_guided_mean,
        reads="backbone",
        no_sign=POSITIVE_ALONE,
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
        reads="neck+head",
        merge="product",
        no_sign="it multiplies maps of what speaks for",
    ),
    "FullGrad": Method(
        "gradient times input, and gradient times bias of every layer, by size",
        "https://arxiv.org/abs/1905.00780",
        formulas.absolute_product,
        reads="biases",
        evidence="biases",
        project=formulas.scaled_and_added_up,
        merge="sum",
        no_sign="it adds up sizes",
    ),
    "ODAM": Method(
        "gradient times activation, cell by cell, with smoothed gradients; of several items each by itself",
        "https://arxiv.org/abs/2304.06354",
        formulas.smoothed_gradient_times_activation,
        evidence="items",
        target="items",
        project=formulas.strongest,
        no_sign="it keeps the strongest of what speaks for each item",
    ),
    "SSGradCAM": Method(
        "Grad-CAM whose channels count where their own gradient is large",
        "https://doi.org/10.1109/ICIP46576.2022.9897350",
        formulas.weighted_by_mean_where_it_matters,
        reads="backbone",
    ),
    "SSGradCAMPlusPlus": Method(
        "SSGradCAM with the weights of Grad-CAM++ inside the detected box",
        "https://openaccess.thecvf.com/content/CVPR2024W/XAI4CV/html/Yamauchi_Spatial_Sensitive_Grad-CAM_"
        "Improved_Visual_Explanation_for_Object_Detectors_via_Weighted_CVPRW_2024_paper.html",
        formulas.weighted_by_region_where_it_matters,
        reads="neck",
        evidence="region",
        target="boxes",
        no_sign=POSITIVE_ALONE,
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
        no_sign="its weights are shares, which are never negative",
    ),
    "EigenCAM": Method(
        "first principal component of the activations: the same for every class and object",
        "https://arxiv.org/abs/2008.00299",
        formulas.activations_alone,
        reads="coarsest",
        evidence="activations",
        project=formulas.principal_projection,
        no_sign=ARBITRARY,
    ),
    "EigenGradCAM": Method(
        "first principal component of gradient times activation",
        "https://arxiv.org/abs/2008.00299",
        formulas.gradient_times_activation,
        reads="neck",
        project=formulas.principal_projection,
        no_sign=ARBITRARY,
    ),
    "SegEigenCAM": Method(
        "first principal component of the gradient's size times activation, its sign set by its peak",
        "https://doi.org/10.3390/app15137562",
        formulas.absolute_gradient_times_activation,
        reads="neck",
        project=formulas.principal_projection_with_positive_peak,
        no_sign=ARBITRARY,
    ),
    "KPCA_CAM": Method(
        "first principal component of the activations under a sigmoid kernel: the same for every class and object",
        "https://arxiv.org/abs/2410.00267",
        formulas.activations_alone,
        evidence="activations",
        project=formulas.kernel_projection,
        no_sign=ARBITRARY,
    ),
    "FEM": Method(
        "weights each channel by the share of its cells that stand out: the same for every class and object",
        "https://hal.science/hal-02963298/document",
        from_library("FEM"),
        evidence="activations",
        no_sign="its weights count cells, and are never negative",
    ),
    "DRISE": Method(
        "mean of random masks, weighted by how much of the detection each leaves (black box, slow)",
        "https://arxiv.org/abs/2006.03204",
        formulas.weighted,
        reads="predictions",
        evidence="grids",
        target="similarity",
        no_sign="its map is a mean of masks, which is never negative",
    ),
    "FocusedRISE": Method(
        "how the detection rises with what random masks keep, which are fine around small objects (black box)",
        "https://arxiv.org/abs/2306.02744",
        formulas.weighted,
        reads="predictions",
        evidence="focused",
        target="similarity",
    ),
    "RandomCAM": Method(
        "weights each channel at random: the baseline that a useful method must beat",
        "https://github.com/jacobgil/pytorch-grad-cam",
        formulas.weighted,
        evidence="random",
        no_sign="the sign of its weights is drawn at random",
    ),
}
METHOD_ALIASES = {"GradCAM++": "GradCAMPlusPlus", "SSGradCAM++": "SSGradCAMPlusPlus", "D-RISE": "DRISE"}

# What a masked image shows where nothing of it is kept.
BASELINES = ("grey", "zero", "blur")

# How the maps of several layers can become one, besides the method's own way.
FUSIONS = ("mean", "max", "product")

# What pytorch_grad_cam offers too and a detector cannot use, with the reason.
NOT_APPLICABLE = {
    "SESS": "it weights crops of the picture by how a classifier rates each, and a detection's score is bound to its box; "
    "try --aug-smooth",
    "GuidedBackpropReLUModel": "it changes ReLU layers, and YOLOv5 has none; try --method GuidedGradients",
    "DeepFeatureFactorization": "it finds concepts in a picture and explains no detection; try --method EigenCAM",
}


def needs_layers(name: str) -> bool:
    """Return whether a method reads layers or gradients, which an exported model does not have."""
    return METHODS[name].reads != "predictions"


def predictions_alone(what: str, name: str) -> str:
    """Return the line for a model that has no layers to read, called `what`, and a method that needs them."""
    known = ", ".join(other for other in METHODS if not needs_layers(other))
    return (
        f"{what} gives predictions alone, and {name} reads layers; give the .pt file that it was made from, "
        f"or --method {known}"
    )


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
