"""Threads that share an explainer or a model get what each of them gets alone, to the bit, whatever surrounds the call."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from threading import Barrier, Event

import cv2
import numpy as np
import pytest
import torch
from fresh_interpreter import IN_STOCK
from plain_detector import PlainDetector, PlainNet
from scenes import confident_detector, picture, save_checkpoint, state
from torch import nn

from explainer.command import explaining
from explainer.command.running import progress
from explainer.comparing import Comparer
from explainer.detectors.yolov5 import YOLOv5
from explainer.explain import Explainer
from explainer.explainer import run
from explainer.methods.black_box import ONE_OPENCV_THREAD
from models.common import AutoShape

SETTINGS = {"conf_thres": 0.05, "imgsz": 96, "max_det": 4}
# Of several shapes, so that what a head caches changes all the time.
PICTURES = [picture(64, 96), picture(96, 64)[:, ::-1].copy(), picture(90, 90), picture(48, 96)]
METHODS = ("GradCAM", "LayerCAM", "EigenCAM", "AblationCAM", "ShapleyCAM", "FullGrad", "ODAM", "RefineCAM")
THREADS = 4


@pytest.fixture(autouse=True)
def threads_that_take_turns_often():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def content(explanation):
    """Return all that an explanation says, bit by bit."""
    entries = explanation.detections
    maps = [explanation.heatmap, *(cam for entry in entries for cam in entry.cams)]
    return [array.tobytes() for array in maps], [(entry.score, entry.detection.row) for entry in entries]


def in_threads(work, items, times=3):
    """Return what `work` gives for each of the items, in the order of times x items, by threads that start together."""
    together = Barrier(THREADS)

    def of_thread(number):
        together.wait(30)
        return {index: work(item) for index, item in enumerate(items * times) if index % THREADS == number}

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(of_thread, range(THREADS)))
    found = {index: answer for part in parts for index, answer in part.items()}
    return [found[index] for index in sorted(found)]


@pytest.mark.parametrize("method", METHODS)
def test_threads_that_share_an_explainer_get_what_they_get_in_series(method):
    explainer = Explainer(confident_detector(), method=method, **SETTINGS)
    expected = [content(explainer(image)) for image in PICTURES]
    assert expected[0] != expected[2]
    assert in_threads(lambda image: content(explainer(image)), PICTURES) == expected * 3


@pytest.mark.parametrize("method", ["GradCAM", "DRISE", "FocusedRISE"])
def test_masks_and_given_boxes_are_those_of_a_series_too(method):
    masks = {} if method == "GradCAM" else {"masks": 40}
    explainer = Explainer(confident_detector(), method=method, **SETTINGS | masks)

    def work(image):
        return content(explainer(image, boxes=[(4, 5, 40, 44, 1)]))

    expected = [work(image) for image in PICTURES[:2]]
    assert in_threads(work, PICTURES[:2], times=2) == expected * 2


def test_explainers_of_one_model_do_not_disturb_each_other():
    model = confident_detector()
    explainers = [Explainer(model, method=method, **SETTINGS) for method in ("GradCAM", "LayerCAM", "FullGrad")]
    asked = [(explainer, image) for explainer in explainers for image in PICTURES]
    expected = [content(explainer(image)) for explainer, image in asked]
    assert in_threads(lambda each: content(each[0](each[1])), asked, times=2) == expected * 2


def test_comparisons_and_detectors_of_other_kinds_are_those_of_a_series():
    comparer = Comparer(confident_detector(), method=["GradCAM", "LayerCAM"], **SETTINGS)
    plain = Explainer(PlainDetector(PlainNet().eval()), method="LayerCAM", **SETTINGS)

    def work(image):
        return [content(answer) for answer in (*comparer(image).explanations, plain(image))]

    expected = [work(image) for image in PICTURES]
    assert in_threads(work, PICTURES) == expected * 3


@pytest.mark.skipif(IN_STOCK, reason="heads of stock YOLOv5 take the grids of other threads' images")
@pytest.mark.parametrize("wrapped", [False, True], ids=["model", "AutoShape"])
def test_detection_in_other_threads_and_explanations_do_not_disturb_each_other(wrapped):
    model = confident_detector()
    detect = AutoShape(model, verbose=False) if wrapped else model
    explainer = Explainer(detect, method="LayerCAM", layer=4, **SETTINGS)
    tensors = [torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) for size in ((64, 96), (96, 64))]
    images = PICTURES[:2] if wrapped else tensors

    def detected(image):
        with nullcontext() if wrapped else torch.no_grad():
            return detect(image, size=96).xyxy[0].numpy().tobytes() if wrapped else detect(image)[0].numpy().tobytes()

    asked = [(detected, image) for image in images] + [(lambda i: content(explainer(i)), i) for i in PICTURES]
    expected = [work(image) for work, image in asked]
    assert in_threads(lambda each: each[0](each[1]), asked, times=4) == expected * 4


def test_the_model_is_as_it_was_while_it_is_explained():
    model = confident_detector().train()
    before, during = state(model), []
    explainer = Explainer(model, method="LayerCAM", layer=4, **SETTINGS)
    formula = explainer.attributor.formula
    explainer.attributor.formula = lambda *arrays: during.append(state(model)) or formula(*arrays)
    explainer(PICTURES[0])
    assert during
    assert all(each == before for each in during)


def test_a_model_that_another_thread_trains_keeps_its_gradients():
    model = confident_detector().train()
    inside, go_on = Event(), Event()
    explainer = Explainer(model, method="GradCAM", **SETTINGS)
    formula = explainer.attributor.formula

    def halfway(*arrays):
        inside.set()
        assert go_on.wait(30)
        return formula(*arrays)

    explainer.attributor.formula = halfway
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(explainer, PICTURES[0])
        assert inside.wait(30)
        sum(level.square().mean() for level in model(torch.rand(2, 3, 64, 96))).backward()
        go_on.set()
        answer.result(30)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_coroutines_get_what_they_get_in_series():
    explainer = Explainer(confident_detector(), method="LayerCAM", **SETTINGS)
    expected = [content(explainer(image)) for image in PICTURES]

    async def directly(image):
        await asyncio.sleep(0)
        return content(explainer(image))

    async def together():
        threads = [asyncio.to_thread(lambda i=i: content(explainer(i))) for i in PICTURES]
        return await asyncio.gather(*threads, *map(directly, PICTURES))

    # In a thread of its own: tests in a browser leave a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, together()).result() == expected * 2


@pytest.mark.parametrize("method", [*METHODS, "DRISE", "ScoreCAM"])
@pytest.mark.parametrize(
    "around",
    [
        [lambda: torch.autocast("cpu", torch.bfloat16)],
        [torch.no_grad],
        [torch.inference_mode],
        [lambda: torch.autocast("cpu", torch.bfloat16), torch.inference_mode],
    ],
    ids=["autocast", "no_grad", "inference_mode", "both"],
)
def test_what_surrounds_a_call_does_not_change_the_answer(method, around):
    masks = {"masks": 20} if method == "DRISE" else {}

    def answer():
        return content(Explainer(confident_detector(), method=method, **SETTINGS | masks)(PICTURES[0]))

    expected = answer()
    model = confident_detector()
    with ExitStack() as stack:
        for each in around:
            stack.enter_context(each())
        explainer = Explainer(model, method=method, **SETTINGS | masks)
        assert content(explainer(PICTURES[0])) == expected
    assert content(explainer(PICTURES[0])) == expected


def test_runs_in_threads_show_what_they_show_in_series(tmp_path):
    weights = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    for index, image in enumerate(PICTURES):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)

    def work(index, place="series"):
        folder = {"project": tmp_path / place, "name": str(index), "exist_ok": True}
        return run(weights=weights, source=tmp_path / f"{index}.png", imgsz=96, conf_thres=0.05, **folder).tobytes()

    expected = [work(index) for index in range(THREADS)]
    assert in_threads(lambda index: work(index, "threads"), list(range(THREADS)), times=1) == expected


def test_a_run_that_looks_at_two_images_at_once_leaves_what_one_in_series_leaves(tmp_path, monkeypatch):
    weights = save_checkpoint(tmp_path / "tiny.pt", confident_detector())
    (tmp_path / "images").mkdir()
    for index, image in enumerate([*PICTURES, *PICTURES]):
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), image)
    looking, most = [], []
    look_at = explaining.look_at

    def counted(frame, job):
        looking.append(frame)
        most.append(len(looking))
        look = look_at(frame, job)
        looking.remove(frame)
        return look

    monkeypatch.setattr(explaining, "look_at", counted)

    def left_by(place):
        common = {"project": tmp_path / place, "imgsz": 96, "conf_thres": 0.05, "save_npz": True}
        run(weights=weights, source=tmp_path / "images", method="LayerCAM", **common)
        files = [file for kind in ("csv", "png", "npz") for file in sorted((tmp_path / place).rglob(f"*.{kind}"))]
        return {str(file.relative_to(tmp_path / place)): file.read_bytes() for file in files}

    series = left_by("series")
    assert len(series) == 1 + 2 * len(PICTURES) * 2
    assert max(most) == 1
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert left_by("side by side") == series
    finally:
        torch.set_num_threads(before)
    assert max(most) == 2


# What a twin is made of


def half_as_strong(model):
    with torch.no_grad():
        model.model[0].conv.weight.mul_(0.5)


def other_data(model):
    model.model[0].conv.weight.data = model.model[0].conv.weight.data * 0.5


def other_parameter(model):
    model.model[0].conv.weight = nn.Parameter(model.model[0].conv.weight.detach() * 0.5)


def other_module(model):
    model.model[0].act = nn.Tanh()


def hooked(model):
    model.model[0].register_forward_hook(lambda module, args, output: output * 0.5)


def other_attribute(model):
    model.model[0].bn.eps = 0.5


def double(model):
    model.double()


@pytest.mark.parametrize(
    "change", [half_as_strong, other_data, other_parameter, other_module, hooked, other_attribute, double]
)
def test_a_change_of_the_model_shows_in_the_next_explanation(change):
    model, changed = confident_detector(), confident_detector()
    explainer = Explainer(model, **SETTINGS)
    before = content(explainer(PICTURES[0]))
    for each in (model, changed):
        change(each)
    after = content(explainer(PICTURES[0]))
    assert after == content(Explainer(changed, **SETTINGS)(PICTURES[0]))
    assert after != before


def test_one_twin_serves_all_explanations_of_a_thread():
    detector = YOLOv5(confident_detector())
    with detector.borrowed() as first:
        pass
    with detector.borrowed() as second, detector.borrowed() as third:
        assert second is first
        assert third is not first
    assert first.parameters[0].data_ptr() == detector.parameters[0].data_ptr()


def test_a_twin_that_an_error_stopped_is_not_used_again():
    detector = YOLOv5(confident_detector())
    with pytest.raises(KeyError), detector.borrowed():
        raise KeyError
    assert detector.twins == []


def test_a_forward_method_that_was_put_into_a_module_runs_on_the_twin():
    model = confident_detector().fuse()
    assert "forward" in vars(model.model[0])
    with YOLOv5(model).borrowed() as lent:
        assert lent.model.model[0].forward.__self__ is lent.model.model[0]


# What belongs to the whole process


def test_opencv_has_its_threads_back_when_the_last_has_left():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        first, second = ExitStack(), ExitStack()
        first.enter_context(ONE_OPENCV_THREAD)
        second.enter_context(ONE_OPENCV_THREAD)
        first.close()
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_the_log_is_as_it_was_when_the_last_bar_is_gone():
    from utils.general import LOGGER

    before = list(LOGGER.handlers)
    first, second = ExitStack(), ExitStack()
    first.enter_context(progress([], shown=False))
    second.enter_context(progress([], shown=False))
    first.close()
    second.close()
    assert LOGGER.handlers == before


def test_random_numbers_of_the_caller_are_left_alone():
    explainers = [
        Explainer(confident_detector(), method="DRISE", masks=20, **SETTINGS),
        Explainer(confident_detector(), method="RandomCAM", **SETTINGS),
    ]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for explainer in explainers:
        explainer(PICTURES[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
