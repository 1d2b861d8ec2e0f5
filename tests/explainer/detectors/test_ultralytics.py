"""Models of the ultralytics package: their predictions are the package's own, and every method explains them."""

import cv2
import numpy as np
import pytest
import torch
from scenes import confident_detector
from torch import nn
from torchvision.ops import box_convert
from ultralytics_models import PICTURE, ultralytics_model

from explainer.comparing import Comparer
from explainer.detectors.detector import (
    BACKBONE,
    COARSEST,
    FINE_AND_DEEP,
    HEAD,
    IMAGE,
    NECK,
    NECK_AND_HEAD,
    Suppression,
)
from explainer.detectors.predictions import Target
from explainer.detectors.rtdetr import RTDETR
from explainer.detectors.ultralytics import Ultralytics
from explainer.detectors.weights import detector_of
from explainer.errors import UsageError
from explainer.evaluation.cost import Meter
from explainer.explain import Explainer
from explainer.methods.catalogue import METHODS
from explainer.methods.targets import detections_target

WITH_CELLS = ["yolov3-tiny", "yolov5n", "yolov8n", "yolov8n-p2", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]
DUAL = ["yolov10n", "yolo26n"]
CASES = [*((name, False) for name in WITH_CELLS), *((name, True) for name in DUAL), ("rtdetr-l", False)]


def detector_for(name="yolov8n", **options):
    return detector_of(ultralytics_model(name, **options), (160, 160))


def recorded(detector, image_rgb=PICTURE, layers=(), with_graph=False):
    """Return the recording of a picture, with its letterbox and the twin that made it."""
    with detector.borrowed() as lent:
        image, letterbox = lent.prepare(image_rgb, (160, 160))
        return lent, lent.record(image, layers, with_graph), letterbox


def detections_by_the_package(model, image, suppression):
    """Return rows of x1, y1, x2, y2, confidence, class in input pixels, as the package's own predictors have them."""
    from ultralytics.utils.nms import non_max_suppression

    with torch.no_grad():
        output = model(image)[0]
    if type(model.model[-1]).__name__ != "RTDETRDecoder":
        settings = (suppression.conf_thres, suppression.iou_thres)
        return non_max_suppression(output, *settings, max_det=suppression.max_det, end2end=model.end2end)[0]
    found = output[0][output[0][:, 4] > suppression.conf_thres][: suppression.max_det]
    height, width = image.shape[2:]
    boxes = box_convert(found[:, :4] * torch.tensor([width, height, width, height]), "cxcywh", "xyxy")
    return torch.cat((boxes, found[:, 4:]), dim=1)


@pytest.mark.parametrize(("name", "end_to_end"), CASES)
def test_detections_are_those_of_the_package(name, end_to_end):
    check_detections(name, end_to_end, PICTURE)


@pytest.mark.parametrize(("name", "end_to_end"), [("yolov8n", False), ("yolov10n", True), ("rtdetr-l", False)])
def test_detections_in_a_photograph_are_those_of_the_package(name, end_to_end, assets):
    check_detections(name, end_to_end, cv2.imread(str(sorted((assets / "images").glob("*.jpg"))[0]))[..., ::-1])


def check_detections(name, end_to_end, image_rgb):
    """Compare boxes, scores and labels of a picture."""
    model, suppression = ultralytics_model(name, end_to_end=end_to_end), Suppression(max_det=100)
    lent, recording, letterbox = recorded(detector_of(model, (160, 160)), image_rgb)
    found, boxes = lent.detect(recording, letterbox, suppression)
    wanted = detections_by_the_package(model, recording.image, suppression)
    assert 3 <= len(wanted) == len(found)
    torch.testing.assert_close(boxes, wanted[:, :4], atol=1e-4, rtol=0)
    confidences = torch.tensor([entry.confidence for entry in found])
    torch.testing.assert_close(confidences, wanted[:, 4], atol=1e-4, rtol=0)
    assert [entry.class_index for entry in found] == wanted[:, 5].tolist()


def test_the_classes_asked_for_alone_are_detected():
    lent, recording, letterbox = recorded(detector_for())
    everything, _ = lent.detect(recording, letterbox, Suppression())
    some, _ = lent.detect(recording, letterbox, Suppression(classes=(1, 2)))
    kept = {(entry.row, entry.class_index) for entry in some}
    assert kept == {(entry.row, entry.class_index) for entry in everything if entry.class_index in (1, 2)}
    assert 0 < len(some) < len(everything)


@pytest.mark.parametrize(
    ("name", "strides"), [("yolov8n", (8, 16, 32)), ("yolov3-tiny", (16, 32)), ("rtdetr-l", (None,))]
)
def test_every_detection_knows_its_stride(name, strides):
    detector = detector_for(name)
    lent, recording, letterbox = recorded(detector)
    assert detector.strides == strides
    height, width = recording.image.shape[2:]
    cells = [height * width // stride**2 for stride in strides if stride]
    assert recording.ends == (tuple(np.cumsum(cells)) if cells else (300,))
    found, _ = lent.detect(recording, letterbox, Suppression())
    assert [entry.stride for entry in found] == [strides[recording.level_of(entry.row)] for entry in found]


def test_a_model_is_found_inside_what_the_package_hands_out():
    ultralytics = pytest.importorskip("ultralytics")
    wrapped = ultralytics.YOLO("yolov8n.yaml")
    assert type(detector_of(wrapped, (160, 160))) is Ultralytics
    assert detector_of(wrapped, (160, 160)).model is wrapped.model
    assert type(detector_of(ultralytics.RTDETR("rtdetr-l.yaml"), (160, 160))) is RTDETR


@pytest.mark.parametrize("task", ["cls", "obb"])
def test_a_model_that_finds_no_upright_boxes_is_refused(task):
    package = pytest.importorskip("ultralytics")
    with pytest.raises(UsageError, match="cannot be explained; of the ultralytics package that can be"):
        detector_of(package.YOLO(f"yolov8n-{task}.yaml"), (160, 160))


PLACES = {
    HEAD: [(15,), (18,), (21,)],
    NECK: [(15,), (18,), (21,)],
    BACKBONE: [(9,)] * 3,
    COARSEST: [(21,)] * 3,
    NECK_AND_HEAD: [(12, 15), (12, 18), (12, 21)],
    FINE_AND_DEEP: [(4, 15), (4, 18), (4, 21)],
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_layers_lie_where_the_structure_says(place):
    wanted = tuple(tuple(f"model.{index}" for index in indices) for indices in PLACES[place])
    assert detector_for().layers_at(place).by_level == wanted


def test_a_query_is_read_at_all_inputs_of_the_head():
    detector = detector_for("rtdetr-l")
    assert detector.layers_at(HEAD).by_level == (("model.21", "model.24", "model.27"),)
    assert detector.layers_at(COARSEST).by_level == (("model.27",),)
    assert detector.layers_at(FINE_AND_DEEP).by_level == (("model.3", "model.16", "model.8", "model.9"),)
    assert detector.layers_called((16, "model_9")).by_level == (("model.16", "model.9"),)


def test_the_branches_that_count_alone_add_biases():
    def in_head(end_to_end):
        names = detector_for("yolov10n", end_to_end=end_to_end).layers_with_bias()
        assert names[0] == IMAGE
        return {name.split(".")[2] for name in names if name.startswith("model.23.")}

    assert in_head(False) == {"cv2", "cv3"}
    assert in_head(True) == {"one2one_cv2", "one2one_cv3"}


# What explains them.


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_a_yolov8(method):
    settings = {"masks": 24} if METHODS[method].place is None and "RISE" in method else {}
    explainer = Explainer(ultralytics_model(), method=method, imgsz=160, max_det=2, **settings)
    explanation = explainer(PICTURE)
    assert len(explanation.detections) == 2
    assert explanation.heatmap.shape == PICTURE.shape[:2]
    assert explanation.heatmap.max() == pytest.approx(1)


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n", "yolo12n", "rtdetr-l"])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM", "EigenCAM", "ODAM", "ShapleyCAM", "FullGrad"])
def test_gradient_methods_explain_the_others_or_say_why_not(name, method):
    model = ultralytics_model(name, end_to_end=name in DUAL)
    settings = {"method": method, "imgsz": 160, "max_det": 2}
    if name == "rtdetr-l" and method in ("ShapleyCAM", "FullGrad"):
        with pytest.raises(UsageError, match=r"RT-DETR .*take another --method"):
            Explainer(model, **settings)(PICTURE)
        return
    explanation = Explainer(model, **settings)(PICTURE)
    assert len(explanation.detections) == 2
    assert explanation.heatmap.max() == pytest.approx(1)


def test_an_ablation_decodes_the_queries_of_the_recorded_pass():
    layer = "model.27"
    lent, recording, letterbox = recorded(detector_for("rtdetr-l"), layers=(layer,))
    found, boxes = lent.detect(recording, letterbox, Suppression(max_det=3))
    classes = torch.tensor([entry.class_index for entry in found])
    scores = lent.scores(recording, detections_target(recording.predictions, boxes, classes, ("class",)))
    again = scores.rerun(layer)
    torch.testing.assert_close(again(again.activations)[0], scores.baseline)
    changed = again.activations.clone()
    changed[:, ::2] = 0
    again(changed)
    with torch.no_grad(), lent.at_layer(layer, lambda output: changed):
        lent.forward(recording.image)
    assert not torch.equal(lent.tokens, recording.tokens)
    torch.testing.assert_close(scores.of_images(recording.image)[0], scores.baseline)


def test_boxes_that_are_given_are_explained():
    explanation = Explainer(ultralytics_model(), imgsz=160)(PICTURE, boxes=[(20, 10, 90, 70, 1)])
    (entry,) = explanation.detections
    assert entry.detection.name == "kind1"
    assert entry.detection.outcome == "given"
    assert entry.heatmap.max() == pytest.approx(1)


def test_it_is_compared_with_a_yolov5_on_one_sheet():
    models, names = [ultralytics_model(), confident_detector()], ["eight", "five"]
    comparison = Comparer(models, names=names, method=["GradCAM", "EigenCAM"], imgsz=160, max_det=2)(PICTURE)
    assert list(comparison.found) == names
    for answers in comparison.by_model:
        for explanation in answers.values():
            assert len(explanation.detections) == 2
            assert explanation.heatmap.max() == pytest.approx(1)


def test_an_objectness_that_it_does_not_say_is_refused():
    with pytest.raises(UsageError, match="leave --backprop-array confidence out"):
        Explainer(ultralytics_model(), imgsz=160, backprop_array=["confidence"])(PICTURE)


@pytest.mark.parametrize("name", ["yolov8n", "rtdetr-l"])
def test_the_model_is_left_as_it_is(name):
    model = ultralytics_model(name).train()

    def state():
        head = vars(model.model[-1])
        return (
            {name: (tensor._version, tensor.sum().item()) for name, tensor in model.state_dict().items()},
            [module.training for module in model.modules()],
            [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
            {key: id(value) for key, value in head.items()},
        )

    before = state()
    Explainer(model, imgsz=160, max_det=2)(PICTURE)
    assert state() == before


@pytest.mark.parametrize(("name", "end_to_end"), [("yolov8n", False), ("yolov10n", True), ("rtdetr-l", False)])
def test_a_model_that_has_predicted_under_inference_mode_is_explained(name, end_to_end):
    model = ultralytics_model(name, end_to_end=end_to_end)
    with torch.inference_mode():
        model(torch.rand(1, 3, 160, 160))
    assert Explainer(model, imgsz=160, max_det=1)(PICTURE).heatmap.max() == pytest.approx(1)


# Whether gradients and maps are right.


@pytest.mark.parametrize(("name", "end_to_end"), [("yolov8n", False), ("yolo26n", True), ("rtdetr-l", False)])
@pytest.mark.parametrize("items", [("class",), ("x_center", "width")])
def test_gradients_are_those_of_finite_differences(name, end_to_end, items):
    layer = "model.9"
    detector = detector_of(ultralytics_model(name, end_to_end=end_to_end).double(), (160, 160))
    besides = detector.needed_above(layer)
    lent, recording, letterbox = recorded(detector, layers=(layer, *besides), with_graph=True)
    found, boxes = lent.detect(recording, letterbox, Suppression(max_det=2))
    classes = torch.tensor([entry.class_index for entry in found])
    target = detections_target(recording.predictions, boxes, classes, items)
    scores = lent.scores(recording, target)
    activations = recording.activations[layer].detach()
    direction = torch.randn(activations.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-7
    again = scores.rerun(layer)
    slopes = (again(activations + step * direction) - again(activations - step * direction))[0] / (2 * step)
    for index, slope in enumerate(slopes.tolist()):
        (gradient,) = scores.gradients(index, (layer,))
        assert abs(slope) > 1e-4
        assert (gradient * direction.numpy()).sum() == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(("name", "end_to_end"), [("yolov8n", False), ("yolo26n", True), ("rtdetr-l", False)])
def test_the_time_of_a_pass_is_spent_inside_the_model(name, end_to_end):
    lent, recording, _ = recorded(detector_for(name, end_to_end=end_to_end))
    with Meter(lent) as meter:
        with meter.calibrating():
            lent.predict(recording.image)
        with meter.measuring() as cost:
            lent.predict(recording.image)
    assert cost.passes == 1
    assert meter.inside > cost.seconds / 2


class OneScore(nn.Module):
    """What grad-cam's own classes want: a module that gives scores (B, 1) for images."""

    def __init__(self, detector: Ultralytics, target: Target):
        super().__init__()
        self.detector, self.target, self.model = detector, target, detector.model

    def forward(self, images):
        return self.target.of(self.detector.forward(images))


@pytest.mark.parametrize(
    ("name", "layer"), [("yolov8n", "model.15"), ("yolov8n", "model.12"), ("rtdetr-l", "model.16")]
)
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
def test_a_map_is_that_of_grad_cam_itself(name, layer, method):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = ultralytics_model(name)
    settings = {"layer": layer, "imgsz": 160, "max_det": 1, "conf_thres": 0.05}
    lent, recording, letterbox = recorded(detector_of(model, (160, 160)))
    found, boxes = lent.detect(recording, letterbox, Suppression(conf_thres=0.05, max_det=1))
    classes, own = (torch.tensor([getattr(entry, name) for entry in found]) for name in ("class_index", "row"))
    target = detections_target(recording.predictions, boxes, classes, ("class",), own)
    with getattr(pytorch_grad_cam, method)(OneScore(lent, target), [lent.model.get_submodule(layer)]) as cam:
        theirs = cam(recording.image.clone().requires_grad_(), targets=[ClassifierOutputTarget(0)])[0]
    inside = letterbox.to_image(theirs)
    (ours,) = Explainer(model, method=method, **settings)(PICTURE).detections
    inside = (inside - inside.min()) / (inside.max() - inside.min())
    assert ours.heatmap.max() == pytest.approx(1)
    np.testing.assert_allclose(ours.heatmap, inside, atol=1e-4)
