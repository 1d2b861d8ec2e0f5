"""Explaining the same image in several ways: by several methods, at several layers, by several models."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from explainer.comparison import Comparison
from explainer.detectors.weights import open_model
from explainer.errors import UsageError, unknown
from explainer.explain import Explainer, check_image
from explainer.explanation import Explanation
from explainer.exported import Exported, network_of
from explainer.files.labels import Written
from explainer.naming import model_names
from explainer.network import Network, borrowed
from explainer.options import Settings, as_tuple, variants

Model = nn.Module | str | Path


class Comparer:
    """Explains an image in several ways.

        comparer = Comparer("best.pt", method=["GradCAM", "LayerCAM"])
        comparer = Comparer(["best.pt", "last.pt"], layer=[17, 20, 23], each_layer=True)
        comparison = comparer(image_rgb)

    models: what `Explainer` takes, one or a list of several. names: what they are called; by default as their files are.
    The keywords are those of `Settings`, of which method may be several. Of --class-names each model explains those that
    it has. UsageError says what is wrong, and with which model.
    """

    def __init__(
        self, models: Model | Sequence[Model], *, names: Sequence[str] = (), each_layer: bool = False, **settings
    ):
        models = list(models) if isinstance(models, (list, tuple)) else [models]
        self.names = list(names or model_names(models)) if len(models) > 1 else [""]
        self.ways = {title_of(way): way for way in variants(settings, each_layer)}
        self.layers = len({way.layer for way in self.ways.values()})
        self.networks = [network_of(open_model(model), self.ways.values()) for model in models]
        check_class_names(as_tuple(settings.get("class_names")), self.networks)
        self.explainers = [
            {title: explainer_of(network, name, way) for title, way in self.ways.items()}
            for name, network in zip(self.names, self.networks, strict=True)
        ]

    def __call__(
        self,
        image_rgb: np.ndarray,
        *,
        boxes: Iterable[Written] | None = None,
        labels: Iterable[Written] | None = None,
    ) -> Comparison:
        """Return the comparison for one image, uint8 RGB (H, W, 3); boxes and labels are those of `Explainer`."""
        check_image(image_rgb)
        given = [None if entries is None else list(entries) for entries in (boxes, labels)]
        answers = []
        for name, explainers in zip(self.names, self.explainers, strict=True):
            answer = explained(image_rgb, list(explainers.values()), *given)
            answers.append(dict(zip(explainers, (replace(entry, model=name) for entry in answer), strict=True)))
        return Comparison(image_rgb, tuple(answers), self.layers)


def explained(
    image_rgb: np.ndarray, explainers: list[Explainer], boxes: list[Written] | None, labels: list[Written] | None
) -> Iterator[Explanation]:
    """Yield what explainers of one network say; those that look at the same layers share one forward pass."""
    network, seen = explainers[0].network, {}
    asked = [explainer.asked(image_rgb.shape[:2], boxes, labels) for explainer in explainers]
    with borrowed(network):
        for explainer, question in zip(explainers, asked, strict=True):
            if explainer.sight not in seen:
                seen[explainer.sight] = explainer.see(image_rgb)
            yield explainer.explain(image_rgb, seen[explainer.sight], question)


def title_of(way: Settings) -> str:
    """Return what tells one way to explain from others: its method and its layer."""
    return f"{way.method}, layer {' '.join(map(str, way.layer))}"


def explainer_of(network: Network | Exported, name: str, way: Settings) -> Explainer:
    """Return the explainer of a network that goes this way; its UsageError names the model, if it has a name."""
    known = list(network.names.values())
    class_names = tuple(entry for entry in way.class_names if entry in known)
    if way.class_names and not class_names:
        raise UsageError(
            f"{name} knows none of --class-names {' '.join(way.class_names)}; its classes: {', '.join(known)}"
        )
    try:
        return Explainer(network, **vars(way) | {"class_names": class_names})
    except UsageError as error:
        raise UsageError(f"{name}: {error}" if name else str(error)) from error


def check_class_names(class_names: tuple[str, ...], networks: list[Network | Exported]) -> None:
    """Raise UsageError for a class that none of the networks has."""
    known = {name: None for network in networks for name in network.names.values()}
    for name in class_names:
        if name not in known:
            raise unknown("class name", name, known)
