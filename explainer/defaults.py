"""What is explained, and by which model, where the user does not say."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO_COMMAND = "python explainer/explainer.py"


def weights_and_source(weights, source, root: Path = ROOT) -> tuple:
    """Return weights and source as given, with defaults for those that are None.

    Without either it is the demo below `root`, where that is bundled: a small model and scenes drawn for it. Else the
    weights are yolov5s.pt, and the source is data/images, or the demo's scenes in a tree without such a folder.
    """
    demo, photos = bundled_demo(root), root / "data/images"
    if demo and weights is None and source is None:
        return demo
    if source is None:
        source = demo[1] if demo and not photos.is_dir() else photos
    return root / "yolov5s.pt" if weights is None else weights, source


def bundled_demo(root: Path = ROOT) -> tuple[Path, Path] | None:
    """Return the demo's checkpoint and its folder of scenes; None in a tree that has none."""
    model, scenes = root / "data/demo/demo.pt", root / "data/demo/images"
    return (model, scenes) if model.is_file() and scenes.is_dir() else None


def demo_hint(root: Path = ROOT) -> str:
    """Return the end of a message about weights that are not there: how to go on without them, if that is possible."""
    return f"; the bundled demo needs no download: {DEMO_COMMAND}" if bundled_demo(root) else ""
