"""The same image explained in several ways: by several methods, at several layers, by several models."""

import csv

import cv2
import numpy as np
import pytest
from scenes import confident_detector, picture, save_checkpoint

from explainer.command.options import Options
from explainer.comparing import Comparer
from explainer.detectors.weights import model_names
from explainer.detectors.yolov5 import YOLOv5
from explainer.errors import UsageError
from explainer.explain import Explainer
from explainer.explainer import main, parse_opt, run
from explainer.methods.catalogue import METHODS
from explainer.pictures.drawing import Style

SETTINGS = {"imgsz": 96, "conf_thres": 0.05, "max_det": 5}


@pytest.fixture(scope="module")
def model():
    return confident_detector()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Return the paths of two checkpoints of one name; the second knows a dog where the first knows a cat."""
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for number in (1, 2):
        detector = confident_detector(seed=number)
        detector.names = {0: "ant", 1: "bee", 2: "cat" if number == 1 else "dog"}
        (folder / f"exp{number}").mkdir()
        paths.append(save_checkpoint(folder / f"exp{number}" / "best.pt", detector))
    return paths


@pytest.fixture
def command(checkpoints, tmp_path):
    """Run the command on one image; return (exit code, folder of results)."""
    cv2.imwrite(str(tmp_path / "one.png"), picture()[..., ::-1])
    common = ["--source", str(tmp_path / "one.png"), "--project", str(tmp_path / "out")]
    common += ["--imgsz", "96", "--conf-thres", "0.05", "--max-det", "3"]

    def call(*arguments, weights=True):
        named = ["--weights", checkpoints[0]] if weights else []
        return main(parse_opt([*common, *named, *arguments])), tmp_path / "out" / "exp"

    return call


def rows_of(folder):
    with (folder / "explanations.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def same(one, other):
    assert (one.heatmap == other.heatmap).all()
    assert len(one.detections) == len(other.detections) > 0
    for entry, expected in zip(one.detections, other.detections, strict=True):
        assert entry.row() == expected.row()


# Answers.


def test_every_method_says_in_company_what_it_says_alone(model):
    methods = [name for name, method in METHODS.items() if method.reads_layers]
    comparison = Comparer(model, method=methods, **SETTINGS)(picture())
    for method, explanation in zip(methods, comparison.explanations, strict=True):
        assert explanation.method == method
        same(explanation, Explainer(model, method=method, **SETTINGS)(picture()))


def test_methods_that_look_at_the_same_layers_share_one_forward_pass(model, monkeypatch):
    passes = []
    record = YOLOv5.record

    def counted(self, image, layers, with_graph):
        passes.append(layers)
        return record(self, image, layers, with_graph)

    monkeypatch.setattr(YOLOv5, "record", counted)
    Comparer(model, method=["GradCAM", "GradCAMPlusPlus", "XGradCAM"], **SETTINGS)(picture())
    assert len(passes) == 1
    Comparer(model, layer=[2, 4, 7], each_layer=True, **SETTINGS)(picture())
    assert len(passes) == 4


def test_each_layer_is_explained_by_itself(model):
    comparison = Comparer(model, method=["GradCAM", "LayerCAM"], layer=[4, -2], each_layer=True, **SETTINGS)(picture())
    assert list(comparison.by_model[0]) == [
        "GradCAM, layer 4", "GradCAM, layer -2", "LayerCAM, layer 4", "LayerCAM, layer -2",
    ]  # fmt: skip
    for title, explanation in comparison.by_model[0].items():
        method, layer = title.split(", layer ")
        same(explanation, Explainer(model, method=method, layer=int(layer), **SETTINGS)(picture()))


def test_each_model_answers_by_itself_and_is_called_by_what_tells_it_apart(checkpoints):
    comparison = Comparer(checkpoints, method=["GradCAM", "EigenCAM"], **SETTINGS)(picture())
    assert list(comparison.found) == ["exp1/best.pt", "exp2/best.pt"]
    for path, answers in zip(checkpoints, comparison.by_model, strict=True):
        for explanation in answers.values():
            same(explanation, Explainer(path, method=explanation.method, **SETTINGS)(picture()))


def test_given_boxes_and_labels_are_asked_of_everyone(model):
    comparer = Comparer(model, method=["GradCAM", "LayerCAM"], **SETTINGS)
    boxes = [(10, 10, 60, 50, "bee")]
    for explanation in comparer(picture(), boxes=iter(boxes)).explanations:
        same(explanation, Explainer(model, method=explanation.method, **SETTINGS)(picture(), boxes=boxes))
    judged = comparer(picture(), labels=iter(boxes)).explanations
    assert all(entry.detection.outcome for explanation in judged for entry in explanation.detections)


def test_the_model_is_given_back_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    Comparer(model, method=["GradCAM", "AblationCAM"], **SETTINGS)(picture())
    assert model.training
    assert all((value == before[name]).all() for name, value in model.state_dict().items())
    model.eval()


# Classes.


def test_a_class_that_one_model_has_is_asked_of_that_model(checkpoints):
    comparison = Comparer(checkpoints, class_names=["cat", "dog"], **SETTINGS | {"max_det": 100})(picture())
    first, second = comparison.found.values()
    assert {detection.name for detection in first} <= {"cat"}
    assert {detection.name for detection in second} <= {"dog"}
    assert first or second


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mouse"], "unknown class name 'mouse'; known: ant, bee, cat, dog"),
        (["dog"], "exp1/best.pt knows none of --class-names dog; its classes: ant, bee, cat"),
    ],
)
def test_a_class_that_nobody_or_somebody_lacks_altogether_is_a_mistake(checkpoints, names, message):
    with pytest.raises(UsageError, match=message):
        Comparer(checkpoints, class_names=names, **SETTINGS)


def test_what_one_model_cannot_do_is_told_with_its_name(checkpoints):
    with pytest.raises(UsageError, match=r"exp1/best.pt: unknown layer '99'"):
        Comparer(checkpoints, layer=99, **SETTINGS)


# Names.


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.pt", "b.pt"], ["a.pt", "b.pt"]),
        (["runs/x/best.pt", "runs/x/last.pt"], ["best.pt", "last.pt"]),
        (["runs/x/best.pt", "runs/y/best.pt", "c.pt"], ["x/best.pt", "y/best.pt", None]),
        ([object(), object()], ["model 1", "model 2"]),
    ],
)
def test_models_are_called_by_the_end_of_their_paths_that_tells_them_apart(paths, names):
    for name, expected in zip(model_names(paths), names, strict=True):
        assert expected in (name, None)


# Pictures.


def test_the_picture_has_a_tile_for_the_photograph_and_each_answer(model):
    two, seven = (Comparer(model, method=list(METHODS)[:count], **SETTINGS)(picture()) for count in (2, 7))
    assert seven.overlay().size > 2 * two.overlay().size
    assert two.overlay().dtype == np.uint8
    assert (two.overlay(Style(crop=True)).shape[1]) < two.overlay().shape[1]


def test_methods_and_layers_make_rows_and_columns(model):
    layers = Comparer(model, layer=[2, 4, 7], each_layer=True, **SETTINGS)(picture()).overlay()
    both = Comparer(model, method=["GradCAM", "LayerCAM"], layer=[2, 4, 7], each_layer=True, **SETTINGS)(picture())
    height, width = both.overlay().shape[:2]
    # Two rows of four tiles; the place below the photograph is empty.
    assert width > height
    assert (both.overlay()[-60:, :200] == 255).all()
    assert layers.shape[0] > 0


def test_models_stand_side_by_side(checkpoints):
    shapes = [
        Comparer(checkpoints, method=m, **SETTINGS)(picture()).overlay().shape for m in ("FEM", ["FEM", "GradCAM"])
    ]
    assert shapes[0][1] == shapes[1][1]
    assert shapes[0][0] < shapes[1][0]


def test_the_size_of_the_picture_does_not_depend_on_what_was_found(model):
    comparer = Comparer(model, method=["GradCAM", "LayerCAM"], layer=4, **SETTINGS)
    nothing = Comparer(model, method=["GradCAM", "LayerCAM"], layer=4, imgsz=96, conf_thres=0.999)(picture(seed=1))
    assert comparer(picture()).overlay().shape == nothing.overlay().shape


def test_what_all_answers_of_a_model_say_is_said_once(checkpoints):
    nothing = {"conf_thres": 0.999, "no_near_miss": True}
    alone = Comparer(checkpoints[0], method=["GradCAM", "LayerCAM"], **nothing)(picture())
    assert alone.notes == ("no detection above confidence 0.999",)
    several = Comparer(checkpoints, **nothing)(picture())
    assert several.notes == tuple(f"exp{n}/best.pt: no detection above confidence 0.999" for n in (1, 2))


def test_a_model_that_finds_nothing_has_a_near_miss_beside_one_that_finds_something(checkpoints):
    tops = [Explainer(path, **SETTINGS)(picture()).detections[0].detection.confidence for path in checkpoints]
    comparison = Comparer(checkpoints, method=["GradCAM", "LayerCAM"], imgsz=96, conf_thres=sum(tops) / 2)(picture())
    outcomes = [{entry.detection.outcome for entry in answer.detections} for answer in comparison.explanations]
    expected = [{""} if top == max(tops) else {"below threshold"} for top in tops]
    assert outcomes == [expected[0], expected[0], expected[1], expected[1]]


def test_a_comparison_shows_and_saves_itself(model, tmp_path):
    comparison = Comparer(model, method=["GradCAM", "LayerCAM"], **SETTINGS)(picture())
    shown = cv2.imdecode(np.frombuffer(comparison._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown == comparison.overlay()).all()
    assert comparison.pandas()["method"].tolist() == ["GradCAM"] * 5 + ["LayerCAM"] * 5
    path = comparison.save(tmp_path, name="one.png", per_detection=True, save_npz=True)
    assert (cv2.imread(str(path))[..., ::-1] == shown).all()
    for title in ("GradCAM, layer auto", "LayerCAM, layer auto"):
        assert {"sheet.jpg", "maps.npz"} <= {path.name for path in (tmp_path / "one" / title).iterdir()}


# The command.


def test_several_methods_give_one_picture_and_rows_of_each(command):
    code, folder = command("--method", "gradcam", "LAYERCAM", "--layer", "4", "-2", "--each-layer")
    assert code == 0
    assert [path.name for path in folder.iterdir() if path.suffix == ".png"] == ["one.png"]
    rows = rows_of(folder)
    assert {(row["method"], row["layer"]) for row in rows} == {
        (method, layer) for method in ("GradCAM", "LayerCAM") for layer in ("model.4", "model.7")
    }
    assert len(rows) == 4 * 3
    assert {row["model"] for row in rows} == {""}


def test_several_models_give_one_picture_and_rows_of_each(command, checkpoints, capsys):
    code, folder = command("--compare", *checkpoints, weights=False)
    assert code == 0
    assert cv2.imread(str(folder / "one.png")).shape[1] > 2 * 300
    assert {row["model"] for row in rows_of(folder)} == {"exp1/best.pt", "exp2/best.pt"}
    assert "exp1/best.pt: 3 " in capsys.readouterr().err


def test_run_returns_the_grid(checkpoints, tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), picture()[..., ::-1])
    options = {"weights": checkpoints[0], "source": str(tmp_path / "one.png"), "project": str(tmp_path / "out")}
    grid = run(method=["GradCAM", "LayerCAM"], **options, **SETTINGS)
    expected = Comparer(checkpoints[0], method=["GradCAM", "LayerCAM"], **SETTINGS)(picture()).overlay()
    assert (grid == expected).all()


def test_a_video_becomes_a_video_of_grids(checkpoints, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for seed in range(3):
        writer.write(picture(seed=seed))
    writer.release()
    options = {"source": str(tmp_path / "clip.mp4"), "project": str(tmp_path / "out"), "conf_thres": 0.5}
    grid = run(weights=checkpoints[0], method=["GradCAM", "LayerCAM"], imgsz=96, **options)
    video = cv2.VideoCapture(str(tmp_path / "out" / "exp" / "clip.mp4"))
    frames = [video.read() for _ in range(4)]
    assert [read for read, _ in frames] == [True, True, True, False]
    assert frames[0][1].shape == grid.shape


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compare": "a.pt"}, "--compare takes two checkpoints or more, such as best.pt last.pt; given: a.pt"),
        (
            {"compare": ["a.pt", "b.pt"], "weights": "c.pt"},
            "--compare names the checkpoints itself; leave --weights out",
        ),
        ({"compare": ["a.pt", "./a.pt"]}, "--compare names a.pt twice; give each model once"),
        ({"each_layer": True}, "--each-layer shows several layers side by side; name them: --layer 17 20 23"),
        ({"each_layer": True, "layer": 17}, "--each-layer shows several layers"),
        ({"each_layer": True, "layer": ["auto", 17]}, "--layer auto stands alone"),
        ({"each_layer": True, "layer": [17, 20], "fuse": "max"}, "leave it or --fuse max out"),
        ({"method": ["GradCAM", "CamCAM"]}, "unknown method 'CamCAM'; known: GradCAM"),
        ({"method": []}, "unknown method ''"),
        ({"method": ["GradCAM", "FullGrad"], "layer": 17}, "FullGrad reads all layers that have a bias"),
    ],
    ids=str,
)
def test_a_mistake_is_told_before_anything_is_opened(given, message):
    with pytest.raises(UsageError) as error:
        Options(**given)
    assert message in str(error.value)


def test_one_method_given_twice_is_one():
    assert Options(method=["GradCAM", "gradcam"]).method == "GradCAM"
    assert Options(method=["gradcam++", "LayerCAM"]).method == ("GradCAMPlusPlus", "LayerCAM")


@pytest.mark.parametrize("missing", ["nowhere.pt", "model.onnx"])
def test_a_model_that_is_not_there_is_told_before_anything_is_done(command, checkpoints, capsys, missing):
    code, folder = command("--compare", checkpoints[0], missing, "--source", "nowhere.jpg", weights=False)
    error = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(error) == 1
    assert missing in error[0]
    assert not folder.exists()
