"""Every model file builds, and builds what it always built."""

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.yolo import DetectionModel, Segment, SegmentationModel

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "models").rglob("*.yaml"))


@functools.lru_cache(maxsize=1)
def build_without_weights(path: str):
    """Return the model of a YAML on the meta device: shapes and names, no memory."""
    kind = SegmentationModel if path.startswith("models/segment/") else DetectionModel
    with torch.device("meta"):
        return kind(ROOT / path).eval()


def output_shapes(model, side: int = 256) -> dict[str, list[int]]:
    """Return the shape of the map that each layer gives out for one square image; the head gives out no map."""
    shapes = {}

    def note(layer, _inputs, output):
        if isinstance(output, Tensor):
            shapes[str(layer.i)] = list(output.shape)

    for layer in model.model:
        layer.register_forward_hook(note)
    model(torch.zeros(1, 3, side, side, device="meta"))
    return shapes


@pytest.fixture(scope="session")
def published(assets) -> dict:
    """Figures of every published model file, by its path."""
    return json.loads((assets / "golden" / "architectures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAMLS)
def test_the_layers_are_those_of_the_published_architecture(path, published):
    if path not in published:
        pytest.skip("no published architecture of this name")
    expected = published[path]
    model = build_without_weights(path)
    assert [layer.type for layer in model.model] == expected["types"]
    assert sum(p.numel() for p in model.parameters()) == expected["params"]
    assert len(model.state_dict()) == expected["state_dict_keys"]
    assert model.stride.tolist() == expected["strides"]
    assert model.save == expected["save"]
    assert output_shapes(model) == expected["out_shapes_256"]


def test_every_published_architecture_has_a_file(published):
    assert len(published) > 0
    assert set(published) <= set(YAMLS)


@pytest.mark.parametrize("path", YAMLS)
def test_a_file_builds_a_model_that_predicts_at_all_of_its_strides(path):
    model = build_without_weights(path)
    head = model.model[-1]
    outputs = model(torch.zeros(2, 3, 256, 128, device="meta"))
    cells = [int(256 / s) * int(128 / s) for s in model.stride.tolist()]
    assert outputs[0].shape == (2, 3 * sum(cells), 85 + (32 if isinstance(head, Segment) else 0))
    assert [level.shape[2] * level.shape[3] for level in outputs[-1]] == cells


def test_a_layer_knows_its_index_its_source_its_class_and_its_size():
    model = DetectionModel("yolov5n.yaml")
    conv, concat = model.model[0], model.model[12]
    assert (conv.i, conv.f, conv.type) == (0, -1, "models.common.Conv")
    # a 6x6 kernel from 3 to 16 channels, and BatchNorm's two numbers per channel
    assert conv.np == 3 * 16 * 36 + 2 * 16
    assert (concat.i, concat.f, concat.type, concat.np) == (12, [-1, 6], "models.common.Concat", 0)
