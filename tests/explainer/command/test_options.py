"""The command, run() and the notebook object take the same options with the same defaults."""

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from explainer.command.options import Options, build_options, build_parser
from explainer.detectors.detector import PLACES
from explainer.detectors.predictions import ITEMS
from explainer.errors import UsageError
from explainer.evaluation.options import Evaluation
from explainer.explainer import main, parse_opt, run
from explainer.methods.catalogue import METHODS
from explainer.settings import Settings

ROOT = Path(__file__).parents[3]
DETECT_NAMES = [
    "weights",
    "source",
    "data",
    "imgsz",
    "conf_thres",
    "iou_thres",
    "max_det",
    "device",
    "view_img",
    "nosave",
    "classes",
    "project",
    "name",
    "exist_ok",
    "line_thickness",
    "hide_labels",
    "hide_conf",
    "half",
    "dnn",
    "vid_stride",
]
OWN_NAMES = [
    "method",
    "layer",
    "class_names",
    "backward_per_class",
    "backprop_array",
    "keep_only_topk",
    "crop",
    "use_old_target_method",
    "verbose",
]


def test_run_and_the_command_have_the_same_options_and_defaults():
    command = vars(parse_opt([]))
    function = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    assert command == function
    assert build_options(command) == build_options({})


def test_the_options_carry_the_names_of_detect_and_our_own():
    assert {*DETECT_NAMES, *OWN_NAMES} <= set(vars(parse_opt([])))


def test_flags_are_off_until_they_are_given():
    flags = [name for name, value in vars(parse_opt([])).items() if value is False]
    given = vars(parse_opt([f"--{name.replace('_', '-')}" for name in flags]))
    assert all(given[name] is True for name in flags)


def test_the_default_is_grad_cam_at_the_layer_that_the_rule_picks():
    assert (Options().method, Options().layer) == ("GradCAM", ("auto",))


def test_the_command_line_is_understood():
    opt = parse_opt(
        [
            "--layer",
            "17",
            "-2",
            "model.9",
            "--class-names",
            "dog",
            "cat",
            "--backprop-array",
            "x_c",
            "w",
            "--imgsz",
            "320",
            "640",
            "--method",
            "gradcam++",
        ]
    )
    options = build_options(vars(opt))
    assert options.layer == (17, -2, "model.9")
    assert options.class_names == ("dog", "cat")
    assert options.backprop_array == ("x_center", "width")
    assert options.imgsz == (320, 640)
    assert options.method == "GradCAMPlusPlus"


def test_lines_go_by_the_size_of_the_picture_until_a_number_is_given():
    assert Options().style.line_thickness == "auto"
    assert build_options(vars(parse_opt(["--line-thickness", "5"]))).style.line_thickness == 5
    assert Options(line_thickness=5).style.line_thickness == 5
    assert Options(line_thickness="auto") == Options()


def test_one_thing_and_a_list_of_one_are_the_same():
    assert Settings(layer=-2, class_names="dog") == Settings(layer=["-2"], class_names=["dog"])


def test_the_help_lists_every_method_and_item_and_place():
    text = build_parser("").format_help()
    assert all(name in text for name in (*METHODS, *ITEMS, *PLACES))


@pytest.mark.parametrize("kind", [Options, Evaluation])
def test_the_help_lists_every_option_once_under_the_heading_of_its_group(kind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = build_parser("What it does.", kind).format_help()
    headings = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["options", *kind.GROUPS, "places that --layer knows"]
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert sorted(listed) == sorted(f"--{entry.name.replace('_', '-')}" for entry in fields(kind))


@pytest.mark.parametrize("command", ["explainer", "evaluate"])
def test_the_help_fits_a_narrow_screen_and_imports_nothing_heavy(command):
    script = ["-X", "importtime", str(ROOT / f"explainer/{command}.py"), "--help"]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run([sys.executable, *script], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"usage: {command}.py [options]"
    assert f"python explainer/{command}.py --weights best.pt" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "torchvision", "cv2", "pandas", "matplotlib", "pytorch_grad_cam"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "CamCAM"}, "unknown method 'CamCAM'; known: GradCAM"),
        ({"backprop_array": ["class", "size"]}, "unknown item 'size'; known: class"),
        ({"layer": ["auto", 17]}, "--layer auto stands alone"),
        ({"layer": 2.5}, "--layer 2.5 is neither an index"),
        ({"conf_thres": 25}, "--conf-thres 25 is outside 0..1"),
        ({"iou_thres": -1}, "--iou-thres -1 is outside 0..1"),
        ({"max_det": 0}, "--max-det 0 is not a whole number of at least 1"),
        ({"keep_only_topk": 0}, "--keep-only-topk 0 is no percentage"),
        ({"imgsz": [1, 2, 3]}, "--imgsz takes one side"),
        ({"imgsz": 8}, "--imgsz 8 is not a whole number of at least 32"),
        ({"vid_stride": 0}, "--vid-stride 0"),
        ({"max_megapixels": 0}, "--max-megapixels 0 is no number above 0"),
        ({"line_thickness": "thin"}, "--line-thickness thin is neither auto nor a whole number of pixels"),
        ({"line_thickness": -1}, "--line-thickness -1 is neither auto"),
        ({"line_thickness": 1.5}, "--line-thickness 1.5 is neither auto"),
        ({"colour": "red"}, "unknown option 'colour'; known: method"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_answered_with_what_is_allowed(given, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(".", r"\.")):
        build_options(given)


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(capsys):
    assert main(parse_opt(["--method", "CamCAM"])) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("explainer: error: unknown method 'CamCAM'")
