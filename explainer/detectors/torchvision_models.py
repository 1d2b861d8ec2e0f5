"""Models of torchvision: which detector each is."""

from torch import nn


def pyramidal(model: nn.Module) -> type | None:
    """Return the class of detector for a model of torchvision; None for any other."""
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    from explainer.detectors.dense import Dense, PointsWithCentreness, SingleShot
    from explainer.detectors.two_stage import TwoStage

    kinds = {GeneralizedRCNN: TwoStage, RetinaNet: Dense, FCOS: PointsWithCentreness, SSD: SingleShot}
    return next((kind for family, kind in kinds.items() if isinstance(model, family)), None)
