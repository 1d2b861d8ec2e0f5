"""The methods: one table that drives the option, the help text, the error text, the README and the computation.

An entry says what evidence is taken of what target, which function makes a map of it, and where `auto` reads. To add a method
is to add an entry, and its function to `explainer.methods.formulas` if none there does: see docs/extending.md.

    METHODS["GradCAM"].formula(eigen_smooth=False)(activations, gradients)  # (1, C, h, w) each -> map (h, w)

Importing this module imports no torch: the command's help is made of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from explainer.detectors.detector import BACKBONE, COARSEST, FINE_AND_DEEP, HEAD, NECK, NECK_AND_HEAD, Place
from explainer.detectors.predictions import Target
from explainer.errors import UsageError, unknown
from explainer.maps.detail import detail_of
from explainer.maps.heatmaps import (
    Cams,
    Letterbox,
    merged_by_max,
    merged_by_product,
    merged_by_sum,
    merged_fine_times_deep,
)
from explainer.methods import formulas
from explainer.methods.black_box import FocusedGrids, RandomGrids
from explainer.methods.evidence import (
    Ablation,
    Activations,
    BiasGradients,
    Curvature,
    Evidence,
    Gradients,
    ItemGradients,
    Masking,
    RandomWeights,
    RegionGradients,
)
from explainer.methods.formulas import Contributions, Formula, Library, Projection
from explainer.methods.targets import boxes_target, detections_target, finer_target, items_target, similarity_target

# The maps (h, w) of several layers, and how they lie on the image -> those that stand for them.
Merge = Callable[[list[np.ndarray], Letterbox], Cams]
# The network's input (h, w, 3), float32 in 0..1, and how the image lies in it -> a factor for each pixel, (h, w).
Detail = Callable[[np.ndarray, Letterbox], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to turn what a recorded image holds at some layers into a map.

    contributions  from activations and evidence to what each channel adds, (C, h, w); see `explainer.methods.formulas`
    place          where `auto` reads; None where the evidence itself says what is read
    evidence       what speaks for a score; see `explainer.methods.evidence`
    target         from predictions, boxes, classes and items to the scores; see `explainer.methods.targets`
    project        makes one map of the contributions; where it is left out they are added up, or with `--eigen-smooth`
                   projected on their first principal component
    merge          how the maps of several layers become one unless `--fuse` says so; None to keep them apart, until the
                   heatmap of the image is their mean
    detail         what of the input itself multiplies the maps, pixel by pixel; None for maps as coarse as their layers
    items          what of a detection is explained unless `--backprop-array` says so
    no_sign        why negative values of the map do not mean that something speaks against; empty where they do
    refuses        settings that it has no use for, by name, and how a sentence with the method's name goes on to say why
    least_classes  how many classes a model must have
    """

    summary: str
    paper: str
    contributions: Contributions | Library
    place: Place | None = HEAD
    evidence: type[Evidence] = Gradients
    target: Callable[..., Target] = detections_target
    project: Projection | None = None
    merge: Merge | None = None
    detail: Detail | None = None
    items: tuple[str, ...] = ("class",)
    no_sign: str = ""
    refuses: Mapping[str, str] = field(default_factory=dict)
    least_classes: int = 1

    @property
    def chooses_layers(self) -> bool:
        """Whether it reads the layers that it is told to."""
        return self.place is not None

    @property
    def reads_layers(self) -> bool:
        """Whether it reads layers at all, which a model that gives predictions alone does not have."""
        return self.evidence.reads_layers

    def formula(self, eigen_smooth: bool) -> Formula:
        """Return the way from activations and evidence to a map; what it needs is imported now."""
        project = formulas.principal_projection if eigen_smooth else formulas.sum_of_channels
        return formulas.formula_of(self.contributions, self.project or project)


SINGLE_DETECTIONS = {"use_old_target_method": "explains single detections"}
PREDICTIONS_ALONE = {
    "layer": "reads no layer, only predictions",
    "fuse": "reads no layers that could be fused",
    "eigen_smooth": "has no channels to smooth over",
    "backprop_array": "explains box, class and confidence together",
    **SINGLE_DETECTIONS,
}
POSITIVE_ALONE = "it weighs positive gradients alone"
ARBITRARY = "the sign of a principal component is arbitrary"

METHODS = {
    "GradCAM": Method(
        "weights each channel by its mean gradient",
        "https://arxiv.org/abs/1610.02391",
        Library("GradCAM"),
    ),
    "GradCAMPlusPlus": Method(
        "Grad-CAM whose weights count each cell by the higher derivatives of the score",
        "https://arxiv.org/abs/1710.11063",
        Library("GradCAMPlusPlus"),
        no_sign=POSITIVE_ALONE,
    ),
    "XGradCAM": Method(
        "weights each channel by its gradient times its share of the activation",
        "https://arxiv.org/abs/2008.02312",
        Library("XGradCAM"),
    ),
    "HiResCAM": Method(
        "gradient times activation, cell by cell",
        "https://arxiv.org/abs/2011.08891",
        Library("HiResCAM"),
        place=BACKBONE,
    ),
    "LayerCAM": Method(
        "positive gradient times activation, cell by cell",
        "https://ieeexplore.ieee.org/document/9462463",
        Library("LayerCAM"),
        place=NECK,
        no_sign=POSITIVE_ALONE,
    ),
    "FusedLayerCAM": Method(
        "LayerCAM of a layer with fine cells, times the mean of widened ones of deep layers: what is there, where they point",
        "https://ieeexplore.ieee.org/document/9462463",
        Library("LayerCAM"),
        place=FINE_AND_DEEP,
        merge=merged_fine_times_deep,
        items=("class_confidence",),
        no_sign="it multiplies maps of what speaks for",
    ),
    "DetailCAM": Method(
        "FusedLayerCAM times how far each pixel stands out from its surroundings: evidence, where there is something to see",
        "https://arxiv.org/abs/1610.02391",
        Library("LayerCAM"),
        place=FINE_AND_DEEP,
        merge=merged_fine_times_deep,
        detail=detail_of,
        items=("class_confidence",),
        no_sign="it multiplies maps of what speaks for",
    ),
    "GradCAMElementWise": Method(
        "gradient times activation, cell by cell, negative products left out",
        "https://github.com/jacobgil/pytorch-grad-cam",
        Library("GradCAMElementWise"),
        place=BACKBONE,
        no_sign="it leaves negative products out",
    ),
    "GuidedGradients": Method(
        "weights each channel by the mean of its positive gradients where it is active itself",
        "https://arxiv.org/abs/1412.6806",
        formulas.weighted_by_guided_mean,
        place=BACKBONE,
        no_sign=POSITIVE_ALONE,
    ),
    "ShapleyCAM": Method(
        "weights each channel by its mean gradient, less half the curvature of the score along the activations",
        "https://arxiv.org/abs/2501.06261",
        formulas.weighted_by_mean,
        evidence=Curvature,
    ),
    "FinerCAM": Method(
        "Grad-CAM of what sets the class apart from the three most similar ones",
        "https://arxiv.org/abs/2501.11309",
        Library("GradCAM"),
        target=finer_target,
        refuses={"backprop_array": "compares classes", "use_old_target_method": "compares classes of one detection"},
        least_classes=2,
    ),
    "RefineCAM": Method(
        "product of the Grad-CAM++ maps of several layers",
        "https://arxiv.org/abs/2605.14641",
        Library("GradCAMPlusPlus"),
        place=NECK_AND_HEAD,
        merge=merged_by_product,
        no_sign="it multiplies maps of what speaks for",
    ),
    "FullGrad": Method(
        "gradient times input, and gradient times bias of every layer, by size",
        "https://arxiv.org/abs/1905.00780",
        formulas.absolute_product,
        place=None,
        evidence=BiasGradients,
        project=formulas.sum_of_scaled_channels,
        merge=merged_by_sum,
        no_sign="it adds up sizes",
        refuses={"layer": "reads all layers that have a bias", "fuse": "adds its layers up"},
    ),
    "ODAM": Method(
        "gradient times activation, cell by cell, with smoothed gradients; of several items each by itself",
        "https://arxiv.org/abs/2304.06354",
        formulas.smoothed_gradient_times_activation,
        evidence=ItemGradients,
        target=items_target,
        project=formulas.largest_of_items,
        no_sign="it keeps the strongest of what speaks for each item",
        refuses=SINGLE_DETECTIONS,
    ),
    "SSGradCAM": Method(
        "Grad-CAM whose channels count where their own gradient is large",
        "https://doi.org/10.1109/ICIP46576.2022.9897350",
        formulas.weighted_by_mean_where_it_matters,
        place=BACKBONE,
    ),
    "SSGradCAMPlusPlus": Method(
        "SSGradCAM with the weights of Grad-CAM++ inside the detected box",
        "https://openaccess.thecvf.com/content/CVPR2024W/XAI4CV/html/Yamauchi_Spatial_Sensitive_Grad-CAM_"
        "Improved_Visual_Explanation_for_Object_Detectors_via_Weighted_CVPRW_2024_paper.html",
        formulas.weighted_by_region_where_it_matters,
        place=NECK,
        evidence=RegionGradients,
        target=boxes_target,
        no_sign=POSITIVE_ALONE,
        refuses=SINGLE_DETECTIONS,
    ),
    "AblationCAM": Method(
        "weights each channel by how much the score falls without it",
        "https://doi.org/10.1109/WACV45572.2020.9093360",
        formulas.weighted,
        evidence=Ablation,
    ),
    "ScoreCAM": Method(
        "weights each channel by how well the score holds when the picture shows only what the channel responds to (slow)",
        "https://arxiv.org/abs/1910.01279",
        formulas.weighted,
        evidence=Masking,
        no_sign="its weights are shares, which are never negative",
    ),
    "EigenCAM": Method(
        "first principal component of the activations: the same for every class and object",
        "https://arxiv.org/abs/2008.00299",
        formulas.activations_alone,
        place=COARSEST,
        evidence=Activations,
        project=formulas.principal_projection,
        no_sign=ARBITRARY,
    ),
    "EigenGradCAM": Method(
        "first principal component of gradient times activation",
        "https://arxiv.org/abs/2008.00299",
        formulas.gradient_times_activation,
        place=NECK,
        project=formulas.principal_projection,
        no_sign=ARBITRARY,
    ),
    "SegEigenCAM": Method(
        "first principal component of the gradient's size times activation, its sign set by its peak",
        "https://doi.org/10.3390/app15137562",
        formulas.absolute_gradient_times_activation,
        place=NECK,
        project=formulas.principal_projection_with_positive_peak,
        no_sign=ARBITRARY,
    ),
    "KPCA_CAM": Method(
        "first principal component of the activations under a sigmoid kernel: the same for every class and object",
        "https://arxiv.org/abs/2410.00267",
        formulas.activations_alone,
        evidence=Activations,
        project=formulas.kernel_projection,
        no_sign=ARBITRARY,
    ),
    "FEM": Method(
        "weights each channel by the share of its cells that stand out: the same for every class and object",
        "https://hal.science/hal-02963298/document",
        Library("FEM"),
        evidence=Activations,
        no_sign="its weights count cells, and are never negative",
    ),
    "DRISE": Method(
        "random masks, weighted by how much more or less of the detection each leaves than others do (black box, slow)",
        "https://arxiv.org/abs/2006.03204",
        formulas.weighted,
        place=None,
        evidence=RandomGrids,
        target=similarity_target,
        refuses=PREDICTIONS_ALONE,
    ),
    "FocusedRISE": Method(
        "how the detection rises with what random masks keep, which are fine around small objects (black box)",
        "https://arxiv.org/abs/2306.02744",
        formulas.weighted,
        place=None,
        evidence=FocusedGrids,
        target=similarity_target,
        refuses=PREDICTIONS_ALONE,
    ),
    "RandomCAM": Method(
        "weights each channel at random: the baseline that a useful method must beat",
        "https://github.com/jacobgil/pytorch-grad-cam",
        formulas.weighted,
        evidence=RandomWeights,
        no_sign="the sign of its weights is drawn at random",
    ),
}
# The method that the figures of docs/methods.md recommend, and that --method best stands for.
BEST = "FusedLayerCAM"
METHOD_ALIASES = {"best": BEST, "GradCAM++": "GradCAMPlusPlus", "SSGradCAM++": "SSGradCAMPlusPlus", "D-RISE": "DRISE"}

# How the maps of several layers can become one by `--fuse`, besides the method's own way.
FUSIONS: dict[str, Merge | None] = {"mean": None, "max": merged_by_max, "product": merged_by_product}


class NotApplicable(NamedTuple):
    """Why a method is of no use for a detector, and the name and the value of the setting that takes its place."""

    reason: str
    instead: tuple[str, object]


# What pytorch_grad_cam offers too and a detector cannot use.
NOT_APPLICABLE = {
    "SESS": NotApplicable(
        "it weights crops of the picture by how a classifier rates each, and a detection's score is bound to its box",
        ("aug_smooth", True),
    ),
    "GuidedBackpropReLUModel": NotApplicable(
        "it changes ReLU layers, and hardly a detector has any", ("method", "GuidedGradients")
    ),
    "DeepFeatureFactorization": NotApplicable(
        "it finds concepts in a picture and explains no detection", ("method", "EigenCAM")
    ),
}


def predictions_alone(what: str, name: str, layers_elsewhere: str = "") -> str:
    """Return the line for a model that has no layers to read, called `what`, and a method that needs them.

    layers_elsewhere: where the layers of the same model are, or ""
    """
    known = ", ".join(other for other, method in METHODS.items() if not method.reads_layers)
    advice = f"give {layers_elsewhere}, or" if layers_elsewhere else "take"
    return f"{what} gives predictions alone, and {name} reads layers; {advice} --method {known}"


def canonical_method(name: str, advice: Callable[[str], str] = lambda known: "") -> str:
    """Return the method's name as the table spells it; UsageError for an unknown one, or one that cannot apply.

    advice: from a name in `NOT_APPLICABLE` to the end of that line, which says what to try.
    """
    spellings = {known.lower(): known for known in (*METHODS, *NOT_APPLICABLE)}
    spellings |= {alias.lower(): full for alias, full in METHOD_ALIASES.items()}
    if str(name).lower() not in spellings:
        raise unknown("method", name, [*METHODS, *METHOD_ALIASES], "not case-sensitive")
    known = spellings[name.lower()]
    if known in NOT_APPLICABLE:
        raise UsageError(f"--method {known} does not apply: {NOT_APPLICABLE[known].reason}{advice(known)}")
    return known
