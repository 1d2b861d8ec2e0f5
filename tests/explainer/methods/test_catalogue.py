"""One table of methods: it drives the names, the README, what is refused, and every entry explains."""

from pathlib import Path

import numpy as np
import pytest
from scenes import confident_detector, picture, state

from explainer.command.options import Options
from explainer.detectors.detector import PLACES
from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.explain import Explainer
from explainer.methods.catalogue import BEST, FUSIONS, METHOD_ALIASES, METHODS, NOT_APPLICABLE, canonical_method
from explainer.methods.evidence import ChannelWeights
from explainer.settings import Settings

PICTURE = picture(64, 96)
SETTINGS = {"conf_thres": 0.05, "imgsz": 96}
README = Path(__file__).parents[3] / "README.md"
BLACK_BOX = [name for name, method in METHODS.items() if not method.reads_layers]
# A method that is added has to say whether its map has a sign.
WITH_A_SIGN = {
    "GradCAM",
    "XGradCAM",
    "HiResCAM",
    "ShapleyCAM",
    "FinerCAM",
    "AblationCAM",
    "SSGradCAM",
    "DRISE",
    "FocusedRISE",
}


@pytest.mark.parametrize("spelling", ["gradcam", "GRADCAM", "gradcam++", "GradCAM++", "layercam", "EigenGradCam"])
def test_method_names_are_not_case_sensitive(spelling):
    assert canonical_method(spelling) in METHODS


def test_best_stands_for_the_method_that_the_figures_recommend():
    assert canonical_method("best") == canonical_method("BEST") == BEST


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown method 'GradCamel'; known: GradCAM, .*RandomCAM, best, GradCAM\+\+"):
        canonical_method("GradCamel")


def test_the_readme_lists_every_method_with_its_sentence_and_paper():
    readme = README.read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"| [{name}]({method.paper}) | {method.summary} |" in readme


@pytest.mark.parametrize("name", ["SESS", "sess", "GuidedBackpropReLUModel", "DeepFeatureFactorization"])
def test_a_method_that_cannot_apply_says_why_and_what_to_try(name):
    with pytest.raises(UsageError, match=r"--method \w+ does not apply: \w+"):
        canonical_method(name)
    with pytest.raises(UsageError, match=r"--method \w+ does not apply: .*; try --(aug-smooth|method \w+)$"):
        Settings(method=name)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Settings, {"method": "SESS", "aug_smooth": True}),
        (Settings, {"method": "SESS", "signed": True}),
        (Options, {"method": "SESS", "weights": "best.onnx"}),
        (Evaluation, {"method": "SESS"}),
        (Settings, {"method": "DeepFeatureFactorization", "eigen_smooth": True}),
        (Options, {"method": "DeepFeatureFactorization", "weights": "best.onnx"}),
        (Evaluation, {"method": ("eigencam", "DeepFeatureFactorization")}),
    ],
)
def test_nothing_is_advised_that_is_set_already_or_does_not_suit_the_other_options(kind, given):
    with pytest.raises(UsageError, match=r"does not apply: [^;]*$"):
        kind(**given)


def test_what_is_advised_besides_other_methods_is_accepted():
    with pytest.raises(UsageError, match=r"; try --aug-smooth$"):
        Options(method=("SESS", "DRISE"), weights="best.onnx")
    assert Options(method="DRISE", weights="best.onnx", aug_smooth=True).aug_smooth
    with pytest.raises(UsageError, match=r"; try --method EigenCAM$"):
        Evaluation(method=("DeepFeatureFactorization", "GradCAM"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "FullGrad", "layer": 4}, "FullGrad reads all layers that have a bias; leave --layer 4 out"),
        ({"method": "EigenCAM", "eigen_smooth": True}, "--eigen-smooth does not apply to EigenCAM"),
        ({"method": "FinerCAM", "backprop_array": "width"}, "FinerCAM compares classes; leave --backprop-array width"),
        ({"method": "FinerCAM", "use_old_target_method": True}, "leave --use-old-target-method out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_a_method_has_no_use_for_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Settings(**given)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_and_repeats_itself(method):
    explainer = Explainer(confident_detector(), method=method, max_det=5, **SETTINGS)
    first, second = explainer(PICTURE), explainer(PICTURE)
    assert any(cam.any() for entry in first.detections for cam in entry.cams)
    assert (first.heatmap == second.heatmap).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_as_it_was(method):
    model = confident_detector().train()
    before = state(model)
    Explainer(model, method=method, max_det=5, **SETTINGS)(PICTURE)
    assert state(model) == before


WITHOUT_RERUNS = [
    name for name, method in METHODS.items() if method.reads_layers and not issubclass(method.evidence, ChannelWeights)
]


@pytest.mark.parametrize("method", WITHOUT_RERUNS)
def test_one_forward_pass_is_enough(method):
    model, passes = confident_detector(), []
    explainer = Explainer(model, method=method, max_det=5, **SETTINGS)
    model.model[0].register_forward_hook(lambda *args: passes.append(1))
    explainer(PICTURE)
    assert len(passes) == 1


def test_exactly_these_methods_have_a_sign():
    assert {name for name, method in METHODS.items() if not method.no_sign} == WITH_A_SIGN


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITH_A_SIGN])
def test_a_method_without_a_sign_says_why_and_which_ones_have_one(method):
    with pytest.raises(UsageError, match=rf"--signed does not apply to {method}: .*; methods .*: GradCAM, XGradCAM, "):
        Settings(method=method, signed=True)


@pytest.mark.parametrize("method", sorted(WITH_A_SIGN))
def test_a_method_with_a_sign_shows_it(method):
    settings = SETTINGS | {"method": method, "signed": True, "max_det": 5}
    layers = (2, 3) if METHODS[method].chooses_layers else ("auto",) * 2
    maps = [Explainer(confident_detector(), layer=layer, **settings)(PICTURE).signed for layer in layers]
    assert [np.abs(signed).max() for signed in maps] == pytest.approx([1, 1])
    assert min(signed.min() for signed in maps) < 0


@pytest.mark.parametrize("method", BLACK_BOX)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": 17}, "reads no layer, only predictions; leave --layer 17 out"),
        ({"fuse": "product"}, "leave --fuse product out"),
        ({"eigen_smooth": True}, "leave --eigen-smooth out"),
        ({"backprop_array": "width"}, "explains box, class and confidence together; leave --backprop-array width out"),
        ({"use_old_target_method": True}, "leave --use-old-target-method out"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_a_black_box_method_cannot_look_at_is_refused(method, given, message):
    with pytest.raises(UsageError, match=f"{method} .*{message}"):
        Settings(method=method, **given)


def test_the_name_of_the_paper_is_known():
    assert Settings(method="d-rise").method == "DRISE"


@pytest.mark.parametrize("method", ["ODAM", "SSGradCAM++"])
def test_methods_for_single_detections_refuse_the_sum_of_all_predictions(method):
    with pytest.raises(UsageError, match="explains single detections; leave --use-old-target-method out"):
        Settings(method=method, use_old_target_method=True)


def test_an_unknown_fusion_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown fusion 'sum'; known: auto, mean, max, product"):
        Settings(fuse="sum")
    with pytest.raises(UsageError, match="FullGrad adds its layers up; leave --fuse max out"):
        Settings(method="FullGrad", fuse="max")


def test_fusedlayercam_explains_class_and_confidence_unless_something_else_is_asked_for():
    assert Settings(method="FusedLayerCAM").backprop_array == ("class_confidence",)
    assert Settings(method="FusedLayerCAM", backprop_array="width").backprop_array == ("width",)
    assert Settings(method="LayerCAM").backprop_array == ("class",)


def test_an_answer_says_what_was_explained():
    assert explained("FusedLayerCAM").items == ("class_confidence",)
    assert explained("FusedLayerCAM", backprop_array="width").items == ("width",)
    assert explained("LayerCAM").items == ("class",)


def test_a_model_with_one_class_has_nothing_to_compare():
    detector = confident_detector(nc=1)
    detector.names = {0: "ant"}
    with pytest.raises(UsageError, match="FinerCAM compares classes, and the model has only one"):
        Explainer(detector, method="FinerCAM", **SETTINGS)


def test_every_entry_says_where_it_reads_or_has_evidence_that_says_so():
    for method in METHODS.values():
        assert method.place in (None, *PLACES.values())
        assert method.chooses_layers == (method.place is not None)
        assert method.reads_layers or not method.chooses_layers


def test_aliases_and_fusions_name_what_there_is():
    assert set(METHOD_ALIASES.values()) <= set(METHODS)
    assert not set(NOT_APPLICABLE) & set(METHODS)
    assert list(FUSIONS) == ["mean", "max", "product"]


def explained(method, **settings):
    return Explainer(confident_detector(), method=method, layer=4, max_det=8, **SETTINGS, **settings)(PICTURE)
