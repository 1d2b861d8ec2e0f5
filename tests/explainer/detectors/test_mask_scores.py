"""The item `mask`: the mean logit of a mask over what it was in the recorded image, of two kinds of detectors."""

import numpy as np
import pytest
import torch
from scenes import confident, confident_detector, picture
from small_torchvision import small_model
from tiny_detectors import tiny_segmenter

from explainer.detectors.detector import Sight, Suppression
from explainer.detectors.predictions import Predictions
from explainer.detectors.weights import detector_of
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.methods.catalogue import METHODS
from explainer.methods.targets import boxes_target, detections_target, items_target

PICTURE = picture(90, 120)
SETTINGS = {"imgsz": 96, "conf_thres": 0.05, "max_det": 3}
KINDS = {"Mask R-CNN": lambda: small_model("Mask R-CNN"), "YOLOv5": lambda: confident(tiny_segmenter())}


class Case:
    """A small model, recorded on the picture, with the scores of its first detections by its own predictions."""

    def __init__(self, kind, items=("mask",), layers=(), with_graph=False):
        self.model = KINDS[kind]()
        with detector_of(self.model, None).borrowed() as self.detector:
            self.seen = self.detector.see(PICTURE, Sight((96, 96), layers, with_graph))
            self.recording = self.seen.recording
            some = Suppression(conf_thres=0.05, iou_thres=0.5, max_det=4)
            self.found, self.boxes = self.detector.detect(self.recording, self.seen.letterbox, some)
        classes = torch.tensor([entry.class_index for entry in self.found])
        self.own = torch.tensor([entry.row for entry in self.found])
        self.target = detections_target(self.recording.predictions, self.boxes, classes, items, self.own)
        self.scores = self.detector.scores(self.recording, self.target)

    def pyramid(self):
        """Return copies of what the head reads."""
        return [each.detach().clone() for each in self.recording.head_inputs]

    def of(self, pyramid):
        """Return the scores (D,) of another pyramid."""
        with torch.no_grad():
            return self.scores.of_features(self.scores.select(pyramid))[0]


def mean_logits_of_torchvision(case):
    """Return the mean logit where each mask is more likely than not, from torchvision's own heads."""
    heads, found = case.model.roi_heads, []
    names = {str(level): each for level, each in enumerate(case.recording.head_inputs)}
    for entry, box in zip(case.found, case.boxes, strict=True):
        height, width = case.seen.letterbox.content_size
        clipped = box.clamp(min=0).minimum(box.new_tensor([width, height] * 2))
        parts = heads.mask_roi_pool(names, [clipped[None]], [(height, width)])
        logits = heads.mask_predictor(heads.mask_head(parts))[0, entry.class_index + 1]
        found.append(logits[logits > 0].mean().item())
    return found


def mean_logits_of_yolov5(case):
    """Return the mean logit where each mask is more likely than not, from the whole model's outputs."""
    raw, prototypes, _ = case.model(case.recording.image)
    logits = torch.einsum("dc,chw->dhw", raw[0, case.own, 8:], prototypes[0])
    cell = case.recording.image.shape[3] / prototypes.shape[3]
    y, x = (torch.arange(side) * cell for side in prototypes.shape[2:])
    found = []
    for logit, (x1, y1, x2, y2) in zip(logits, case.boxes, strict=True):
        inside = ((y >= y1) & (y < y2))[:, None] & (x >= x1) & (x < x2) & (logit > 0)
        found.append(logit[inside].mean().item())
    return found


@pytest.mark.parametrize(
    ("kind", "expected"), [("Mask R-CNN", mean_logits_of_torchvision), ("YOLOv5", mean_logits_of_yolov5)]
)
def test_the_score_is_the_mean_logit_where_the_mask_was(kind, expected):
    case = Case(kind)
    with torch.no_grad():
        wanted = expected(case)
    np.testing.assert_allclose(case.scores.values.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert min(wanted) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_region_stays_where_the_mask_was(kind):
    case = Case(kind)
    changed = [each * 0.5 for each in case.pyramid()]
    whole = case.of(changed)
    # A region that moved along would hold positive logits alone.
    assert not torch.allclose(whole, case.scores.values)
    torch.testing.assert_close(case.of(case.pyramid()), case.scores.values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [("mask",), ("mask", "class")], ids="+".join)
def test_gradients_are_those_of_finite_differences(kind, items):
    case, looked_at = Case(kind, items), 0
    for index in range(len(case.found)):
        for level, gradient in enumerate(case.scores.head_gradient(index)):
            if gradient is None:
                continue
            place = tuple(int(each) for each in np.unravel_index(gradient.abs().argmax().item(), gradient.shape))
            ends = []
            for step in (1e-2, -1e-2):
                pyramid = case.pyramid()
                pyramid[level][place] += step
                ends.append(case.of(pyramid)[index].item())
            assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(gradient[place].item(), rel=3e-2, abs=1e-4)
            looked_at += 1
    assert looked_at >= len(case.found)


def test_gradients_of_a_yolov5_mask_go_to_its_prototypes_and_its_coefficients():
    case = Case("YOLOv5")
    coarse = next(index for index, entry in enumerate(case.found) if entry.level == 1)
    finest, own = case.scores.head_gradient(coarse)
    assert finest is not None
    assert own is not None
    assert (own != 0).any(dim=1).sum() == 1


def test_gradients_of_a_mask_go_to_the_map_that_its_box_is_cut_out_of():
    case = Case("Mask R-CNN")
    levels = case.detector.levels_of(case.recording, case.found, ("mask",))
    for index, level in enumerate(levels):
        there = [number for number, each in enumerate(case.scores.head_gradient(index)) if each is not None]
        assert there == list(level)
    together = case.detector.levels_of(case.recording, case.found, ("class", "mask"))
    assert together == [tuple(dict.fromkeys((e.level, *own))) for e, own in zip(case.found, levels, strict=True)]
    assert any(len(several) == 2 for several in together)
    assert case.detector.levels_of(case.recording, case.found, ("class",)) == [(entry.level,) for entry in case.found]


def test_masks_are_explained_at_the_maps_that_their_boxes_are_cut_out_of():
    answers = {
        items: Explainer(KINDS["Mask R-CNN"](), backprop_array=items, **SETTINGS)(PICTURE).detections
        for items in (("class",), ("mask",), ("class", "mask"))
    }
    moved = 0
    for by_class, by_mask, by_both in zip(*answers.values(), strict=True):
        assert by_mask.cams[0].any()
        assert by_both.layers == tuple(dict.fromkeys(by_class.layers + by_mask.layers))
        moved += by_class.layers != by_mask.layers
    assert moved


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_several_items_are_sums(kind):
    alone = [Case(kind, (item,)).scores.values for item in ("mask", "class", "width")]
    together = Case(kind, ("mask", "class", "width")).scores.values
    torch.testing.assert_close(sum(alone), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_is_taken_away_from_what_is_read_as_from_the_map(kind):
    level = next(index for index, each in enumerate(Case(kind).scores.head_gradient(0)) if each is not None)
    if kind == "YOLOv5":
        detector = detector_of(KINDS[kind](), None)
        layer = detector.levels[level].source
    else:
        layer = f"pyramid.{level}"
    case = Case(kind, layers=(layer,))
    case.scores.at_head = True
    again = case.scores.rerun(layer)
    torch.testing.assert_close(again(again.activations)[0], case.scores.baseline, rtol=1e-4, atol=1e-5)
    ablated = again.activations.clone()
    ablated[:, 1] = 0
    pyramid = case.pyramid()
    pyramid[level][:, 1] = 0
    torch.testing.assert_close(again(ablated)[0], case.of(pyramid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_without_a_pixel_has_no_gradient(kind):
    model = KINDS[kind]()
    with torch.no_grad():
        if kind == "YOLOv5":
            head = model.model[-1]
            for convolution in head.m:
                convolution.weight.view(head.na, head.no, -1)[:, 8:] = 0
                convolution.bias.view(head.na, head.no)[:, 8:] = 0
        else:
            model.roi_heads.mask_predictor.mask_fcn_logits.bias.fill_(-1e3)
    explanation = Explainer(model, backprop_array="mask", **SETTINGS)(PICTURE)
    assert not explanation.heatmap.any()
    assert all("has no gradient" in entry.note for entry in explanation.detections)
    assert not any(entry.mask.any() for entry in explanation.detections)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "ODAM", "ShapleyCAM", "SSGradCAMPlusPlus", "AblationCAM"])
def test_methods_explain_masks(kind, method):
    explanation = Explainer(KINDS[kind](), method=method, backprop_array=("mask", "class"), **SETTINGS)(PICTURE)
    plain = Explainer(KINDS[kind](), method=method, backprop_array="class", **SETTINGS)(PICTURE)
    for entry, other in zip(explanation.detections, plain.detections, strict=True):
        assert all(cam.any() for cam in entry.cams)
        assert len(entry.cams) > len(other.cams) or not np.allclose(entry.cams[0], other.cams[0])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_given_boxes_and_of_smoothed_views_are_explained(kind):
    explainer = Explainer(KINDS[kind](), backprop_array="mask", aug_smooth=True, layer="head", **SETTINGS)
    assert np.isfinite(explainer(PICTURE, boxes=[(5, 5, 110, 80, 1)]).heatmap).all()


@pytest.mark.parametrize(
    "make", [lambda: small_model("Faster R-CNN"), lambda: small_model("RetinaNet"), confident_detector]
)
def test_models_without_masks_say_so_before_an_image_is_looked_at(make):
    with pytest.raises(UsageError, match="this model predicts no masks; leave --backprop-array mask out"):
        Explainer(make(), backprop_array="mask")


def test_targets_say_that_they_read_masks():
    predictions = Predictions(torch.rand(4, 4) * 50, torch.rand(4), torch.rand(4, 3), torch.rand(4))
    boxes, classes = torch.tensor([[0.0, 0, 30, 30]]), torch.tensor([1])
    for make in (detections_target, items_target, boxes_target):
        said = [make(predictions, boxes, classes, items).reads_masks for items in (("mask", "class"), ("class",))]
        assert said == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_all_methods_that_take_items_give_the_mask_the_same_score(kind):
    model, scores = KINDS[kind](), {}
    for name, method in METHODS.items():
        if "backprop_array" not in method.refuses and not (kind == "Mask R-CNN" and name == "FullGrad"):
            explanation = Explainer(model, method=name, backprop_array="mask", **SETTINGS)(PICTURE)
            scores[name] = [entry.score for entry in explanation.detections]
    assert len(scores) > 10
    assert np.ptp(list(scores.values()), axis=0) == pytest.approx(np.zeros(3), abs=1e-4)
