"""The kinds of evidence and of targets by the names that the table of methods uses."""

from explainer.black_box import FocusedGrids, RandomGrids
from explainer.evidence import Activations, Curvature, Gradients, RandomWeights
from explainer.forward_only import Ablation, Masking
from explainer.fullgrad import BiasGradients
from explainer.object_evidence import ItemGradients, RegionGradients
from explainer.object_targets import boxes_target, items_target
from explainer.similarity import similarity_target
from explainer.targets import detections_target, finer_target

EVIDENCE = {
    "activations": Activations,
    "gradients": Gradients,
    "random": RandomWeights,
    "curvature": Curvature,
    "items": ItemGradients,
    "region": RegionGradients,
    "biases": BiasGradients,
    "ablation": Ablation,
    "masking": Masking,
    "grids": RandomGrids,
    "focused": FocusedGrids,
}
TARGETS = {
    "detections": detections_target,
    "finer": finer_target,
    "items": items_target,
    "boxes": boxes_target,
    "similarity": similarity_target,
}
