"""The parts of an evaluation: which images, where a heatmap lies, what is imputed, shuffled and counted, and the summary."""

from copy import deepcopy

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scenes import confident_detector, picture
from torch import nn

from explainer.errors import UsageError
from explainer.evaluation.cost import Meter
from explainer.evaluation.datasets import labelled_images
from explainer.evaluation.faithfulness import filled_in
from explainer.evaluation.figures import FIGURES
from explainer.evaluation.location import location_figures, locations_of
from explainer.evaluation.sanity import second_class, shuffled_copies
from explainer.evaluation.summary import ALL_DETECTIONS, markdown, splits, summarise
from explainer.explain import Explainer
from explainer.explanation import Detection
from explainer.files.labels import Label
from explainer.network import Network


@pytest.fixture
def images(tmp_path):
    """Return the folder of a data set with ten images, the first of which has labels."""
    folder = tmp_path / "set/images/val"
    folder.mkdir(parents=True)
    for number in range(10):
        cv2.imwrite(str(folder / f"{number}.png"), picture(8, 8))
    labels = tmp_path / "set/labels/val"
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("1 0.5 0.5 0.2 0.4\n2 0 0 1 0 1 1\n", encoding="utf-8")
    return folder


def numbers(found):
    return [int(image.path.stem) for image in found]


def test_the_labels_of_an_image_are_in_the_folder_beside(images):
    first, *others = labelled_images(images, 1.0, 0)
    assert [label.class_index for label in first.labels] == [1, 2]
    assert first.labels[1].outline == (0, 0, 1, 0, 1, 1)
    assert not any(image.labels for image in others)


def test_a_share_of_the_images_is_drawn_by_seed(images):
    chosen = numbers(labelled_images(images, 0.3, 0))
    assert len(chosen) == 3
    assert chosen == sorted(chosen) == numbers(labelled_images(images, 0.3, 0))
    assert chosen != numbers(labelled_images(images, 0.3, 1))


def test_a_folder_a_list_a_yaml_and_one_image_name_images(images, tmp_path):
    listed, relative = tmp_path / "list.txt", tmp_path / "set/relative.txt"
    listed.write_text(f"{images}/3.png\n{images}/1.png\n", encoding="utf-8")
    relative.write_text("./images/val/7.png\n", encoding="utf-8")
    for content in ("path: set\nval: images/val", f"path: {tmp_path}/set\ntrain: [images/val]"):
        (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
        assert len(labelled_images(tmp_path / "data.yaml", 1.0, 0)) == 10
    assert numbers(labelled_images(tmp_path / "set", 1.0, 0)) == list(range(10))
    assert numbers(labelled_images(listed, 1.0, 0)) == [1, 3]
    assert numbers(labelled_images(relative, 1.0, 0)) == [7]
    assert numbers(labelled_images(images / "5.png", 1.0, 0)) == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path: set\nnames: [a]", "has a line val: or train:"),
        ("path: set\nval: images/test", "which does not exist"),
        ("just a word", "holds no 'key: value' lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_yaml_without_images_is_told(images, tmp_path, content, message):
    (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        labelled_images(tmp_path / "data.yaml", 1.0, 0)


def test_a_list_with_a_missing_image_and_a_folder_without_any_are_told(tmp_path):
    (tmp_path / "list.txt").write_text("nowhere.png\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"lists nowhere\.png, which does not exist"):
        labelled_images(tmp_path / "list.txt", 1.0, 0)
    with pytest.raises(UsageError, match="holds no image"):
        labelled_images(tmp_path, 1.0, 0)


def detection(x1, y1, x2, y2, index=0):
    return Detection(np.float32([x1, y1, x2, y2]), 0.9, index, "ant", 8, 0, 5)


def test_a_detection_goes_with_the_label_of_its_class_that_it_overlaps_by_half():
    labels = (Label(0, (0, 0, 0.5, 0.5), ""), Label(1, (0, 0, 0.5, 0.5), ""), Label(0, (0.5, 0.5, 1, 1), ""))
    found = [detection(0, 0, 10, 10), detection(0, 0, 10, 4), detection(10, 10, 20, 20), detection(0, 0, 10, 10, 2)]
    first, half, third, other = locations_of(found, labels, (20, 20))
    assert first.label == (slice(0, 10), slice(0, 10))
    assert third.label == (slice(10, 20), slice(10, 20))
    assert len(first.others) == 2
    assert half.label is None
    assert other.label is None


def test_energy_is_counted_inside_the_outline_of_a_label_where_it_has_one():
    triangle = Label(0, (0, 0, 1, 1), "", (0, 0, 1, 0, 0, 1))
    (place,) = locations_of([detection(0, 0, 100, 100)], (triangle,), (100, 100))
    flat = np.ones((100, 100), np.float32)
    figures = location_figures(flat, place)
    assert figures["energy_in_label"] == pytest.approx(0.5, abs=0.02)
    assert figures["energy_in_box"] == pytest.approx(1)
    assert figures["on_others"] is None


def test_what_lies_on_another_object_counts_against_a_heatmap():
    labels = (Label(0, (0, 0, 0.5, 1), ""), Label(1, (0.5, 0, 1, 1), ""))
    (place,) = locations_of([detection(0, 0, 10, 20)], labels, (20, 20))
    heatmap = np.ones((20, 20), np.float32)
    heatmap[:, :10] = 3
    assert location_figures(heatmap, place)["on_others"] == pytest.approx(0.25)


def test_an_empty_heatmap_misses_everything():
    (place,) = locations_of([detection(0, 0, 10, 10)], (Label(0, (0, 0, 0.5, 0.5), ""),), (20, 20))
    figures = location_figures(np.zeros((20, 20), np.float32), place)
    missed = ("energy_in_box", "peak_in_box", "enrichment", "energy_in_label", "peak_in_label")
    assert [figures[name] for name in missed] == [0] * 5
    assert figures["blank"] == 1
    assert figures["compactness"] is figures["sparseness"] is figures["on_others"] is None


def test_imputed_pixels_follow_their_neighbours_and_the_others_stay():
    ramp = torch.arange(40.0)[None, None, None].expand(1, 3, 20, 40) / 40
    missing = torch.zeros(20, 40, dtype=torch.bool)
    missing[:, 10:20] = True
    filled = filled_in(ramp, missing)
    assert (filled[..., ~missing] == ramp[..., ~missing]).all()
    assert (filled - ramp).abs().max() < 0.15
    assert not (filled[..., missing] == ramp[..., missing]).all()


def test_copies_are_shuffled_from_the_head_down_and_the_model_stays():
    model = confident_detector().fuse()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copies = shuffled_copies(Network(model), seed=0)
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())

    def changed(copy):
        weights = {
            name: value for name, value in copy.state_dict().items() if name.endswith("conv.weight") or ".m." in name
        }
        return {int(name.split(".")[1]) for name, value in weights.items() if (value != before[name]).any()}

    assert changed(copies["head"]) == {8}
    assert changed(copies["neck"]) == {7, 8}
    assert changed(copies["all"]) == {0, 1, 2, 3, 4, 7, 8}
    head = model.model[-1].m[0].weight
    assert (copies["all"].model[-1].m[0].weight.sort().values.sum() - head.sum()).abs() < 1e-3


def test_the_second_class_is_the_most_probable_other_one():
    assert second_class(torch.tensor([0.1, 0.9, 0.3]), 1) == 2
    assert second_class(torch.tensor([0.1, 0.9, 0.3]), 0) == 1
    assert second_class(torch.tensor([0.9]), 0) is None


def test_the_meter_counts_passes_by_what_was_run_and_leaves_no_hooks():
    network = Network(confident_detector())
    image = torch.zeros(1, 3, 64, 64)
    meter = Meter(network)
    with meter:
        with meter.calibrating():
            network.predict(image)
        with meter.measuring() as three:
            network.predict(image)
            network.predict(image.repeat(2, 1, 1, 1))
        with meter.measuring() as part:
            network.model.model[0](image)
    assert three.passes == pytest.approx(3)
    assert 0 < part.passes < 1
    assert meter.inside > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.model.modules())


def test_passes_of_copies_are_time_inside_the_model_but_no_passes_of_its_own():
    network = Network(confident_detector())
    copy = Network(deepcopy(network.model))
    image = torch.zeros(1, 3, 64, 96)
    with Meter(network, [copy]) as meter:
        with meter.calibrating():
            network.predict(image)
        before = meter.inside
        with meter.measuring() as cost:
            copy.predict(image)
    assert meter.inside > before
    assert cost.passes == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copy.model.modules())


def test_a_method_that_runs_parts_of_the_network_again_is_charged_for_them():
    explainer = Explainer(confident_detector(), method="AblationCAM", layer=4, conf_thres=0.05, imgsz=96)
    with Meter(explainer.network) as meter:
        with meter.calibrating():
            explainer.network.predict(torch.zeros(1, 3, 64, 96))
        with meter.measuring() as cost:
            explainer(picture(64, 96))
    # One pass, and for each of the 16 channels what lies above the layer.
    assert 2 < cost.passes < 16


def table_of(*contenders):
    """Return rows of (method, layer, overall of two detections in each of two images)."""
    common = dict.fromkeys(FIGURES, np.nan) | {"x1": 0, "y1": 0, "class": 0, "name": "ant", "deletion": 0.1}
    return pd.DataFrame(
        common | {"image": image, "row": row, "x2": side, "y2": side, "confidence": confidence} | who
        for method, layer, values in contenders
        for who in [{"method": method, "layer": layer}]
        for value, (image, row, side, confidence) in zip(values, DETECTIONS, strict=True)
        for who in [who | {"overall": value, "milliseconds": 2.0}]
    )


# Image, row, side of the box in pixels, confidence.
DETECTIONS = [("a", 1, 20, 0.3), ("a", 2, 50, 0.5), ("b", 1, 100, 0.7)]
BASELINES = [("RandomCAM", "auto", [0.1, 0.1, 0.1]), ("GaussianBox", "", [0.5, 0.5, 0.5])]


def test_the_summary_holds_means_and_says_who_loses_to_a_baseline():
    rows = table_of(*BASELINES, ("GradCAM", "auto", [0.6, 0.3, 0.3]), ("LayerCAM", "13", [0.6, 0.6, 0.9]))
    summary = summarise(rows, seed=0)
    whole = summary[summary.split == ALL_DETECTIONS]
    assert whole.method.tolist() == ["LayerCAM", "GaussianBox", "GradCAM", "RandomCAM"]
    assert whole.overall.tolist() == pytest.approx([0.7, 0.5, 0.4, 0.1])
    assert whole.loses_to.tolist() == ["", "", "GaussianBox", ""]
    assert "road" not in summary.columns


def test_detections_are_split_by_the_areas_of_coco_and_by_thirds_of_confidence():
    parts = {name: sorted(some.row.tolist()) for name, some in splits(table_of(*BASELINES[:1]))}
    assert list(parts)[1:4] == ["small", "medium", "large"]
    assert [len(some) for some in parts.values()] == [3, 1, 1, 1, 1, 1, 1]
    assert list(parts)[4:] == ["confidence 0.30-0.43", "confidence 0.43-0.57", "confidence 0.57-0.70"]


def test_the_table_to_read_marks_baselines_and_losers():
    text = markdown(summarise(table_of(*BASELINES, ("GradCAM", "auto", [0.2, 0.2, 0.2])), seed=0), "About it.")
    assert "| GradCAM † | auto | 0.200 [0.200, 0.200] |" in text
    assert "| *GaussianBox* |  | 0.500 [0.500, 0.500] |" in text
    assert "| GradCAM † | auto | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 | 0.200 |" in text
    assert text.index("About it.") < text.index("GaussianBox")


def test_no_hooks_are_left_after_an_error():
    network = Network(confident_detector())
    with pytest.raises(ZeroDivisionError), Meter(network):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in network.model.modules() if isinstance(module, nn.Conv2d))
