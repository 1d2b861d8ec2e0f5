"""Detections of one picture, and models that have none."""

import pytest
import torch

from utils.detecting.detector import Detector, Found

BOXES = torch.tensor([[10.0, 20, 30, 60, 0.9, 1], [0, 0, 100, 200, 0.5, 0]])


def found(boxes=BOXES):
    return Found(boxes, (200, 100), boxes[:, 6:])


def test_counts_per_class_are_put_into_words():
    names = {0: "cat", 1: "dog"}
    assert found(torch.cat((BOXES, BOXES[:1]))).summary(names) == "1 cat, 2 dogs, "
    assert found(BOXES[:0]).summary(names) == "(no detections), "


def test_a_model_without_detections_is_refused():
    class Classifier:
        pt, fp16, device, names = True, False, torch.device("cpu"), {0: "cat"}

        def __call__(self, im, **options):
            return torch.zeros(1, 1000)

    with pytest.raises(ValueError, match="these weights do not detect"):
        Detector(Classifier(), {}).check((64, 64))
