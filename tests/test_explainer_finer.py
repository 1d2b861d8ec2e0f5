"""FinerCAM explains what sets a class apart from the three that come closest to it."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from plain_scores import fixed_score
from scenes import confident_detector, picture
from torch import nn

from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.scores import Matches
from explainer.targets import finer_scores

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}


class ClassifierOfOneBox(nn.Module):
    """A detector that returns the logit of each class for one of its boxes, (1, classes)."""

    def __init__(self, detector, found):
        super().__init__()
        self.detector, self.found = detector, found

    def forward(self, image):
        raw = self.detector(image)[0][0]
        score, classes = fixed_score(self.found, raw.detach()), range(raw.shape[1] - 5)
        own = self.found.class_index
        # The score reads the column of the found class: let every class stand there in turn.
        swapped = [torch.cat((raw[:, : 5 + own], raw[:, 5 + c, None], raw[:, 6 + own :]), dim=1) for c in classes]
        return torch.stack([score(each).exp() for each in swapped]).logit()[None]


def plain_finer_target(index):
    """Return the score of a class for logits (classes,), written out plainly."""

    def target(logits):
        nearest = sorted(range(len(logits)), key=lambda i: abs(logits[i] - logits[index]).item())
        others = [i for i in nearest if i != index][:3]
        probabilities = logits.sigmoid()
        return sum(probabilities[i] * (logits[index] - logits[i]) for i in others) / sum(
            probabilities[i] for i in others
        )

    return target


@pytest.mark.parametrize("layer", [4, 7])
def test_the_map_is_grad_cam_of_the_lead_over_the_nearest_classes(layer):
    explanation = Explainer(confident_detector(), method="FinerCAM", layer=layer, **SETTINGS)(PICTURE)
    image = torch.from_numpy(PICTURE.transpose(2, 0, 1)[None].copy()).float() / 255
    compared = 0
    for entry in explanation.detections[:6]:
        model = ClassifierOfOneBox(confident_detector(), entry.detection)
        cam = pytorch_grad_cam.GradCAM(model, [model.detector.model[layer]])
        targets = [plain_finer_target(entry.detection.class_index)]
        expected = cam(image, targets)[0] if entry.cams[0].any() else 0
        np.testing.assert_allclose(entry.heatmap, expected, atol=1e-3)
        compared += entry.heatmap.any()
    assert compared


def test_the_score_is_the_weighted_mean_lead_over_the_three_nearest_classes():
    probabilities = torch.tensor([0.8, 0.5, 0.2, 0.1, 0.001])
    predictions = torch.cat((torch.zeros(5), probabilities))[None, None]
    matches = Matches(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1), torch.tensor([0]))
    expected = (0.5 * np.log(4) + 0.2 * np.log(16) + 0.1 * np.log(36)) / 0.8
    assert finer_scores(predictions, matches).item() == pytest.approx(expected)


def test_a_model_with_one_class_has_nothing_to_compare():
    detector = confident_detector(nc=1)
    detector.names = {0: "ant"}
    with pytest.raises(UsageError, match="FinerCAM compares classes, and the model has only one"):
        Explainer(detector, method="FinerCAM", **SETTINGS)
