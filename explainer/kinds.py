"""The kinds of evidence and of targets by the names that the table of methods uses."""

from explainer.evidence import Activations, Curvature, Gradients, RandomWeights
from explainer.forward_only import Ablation, Masking
from explainer.fullgrad import BiasGradients
from explainer.targets import detections_target, finer_target

EVIDENCE = {
    "activations": Activations,
    "gradients": Gradients,
    "random": RandomWeights,
    "curvature": Curvature,
    "biases": BiasGradients,
    "ablation": Ablation,
    "masking": Masking,
}
TARGETS = {"detections": detections_target, "finer": finer_target}
