"""Label files: where they are, boxes and outlines."""

import pytest

from utils.data.labels import img2label_paths, read_labels


def test_labels_stand_beside_images():
    assert img2label_paths(["/a/images/b/images/c.d.jpg"]) == ["/a/images/b/labels/c.d.txt"]


def test_outlines_become_boxes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("2 0.1 0.2 0.5 0.2 0.5 0.6\n1 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    labels = read_labels(path)
    assert labels.rows[0].tolist() == pytest.approx([2, 0.3, 0.4, 0.4, 0.4])
    assert [len(outline) for outline in labels.segments] == [3, 4]
