"""From the options of a run to what it needs: checked first, then opened, the models last."""

from dataclasses import dataclass
from pathlib import Path

from explainer.detectors.weights import check_there, check_weights
from explainer.errors import UsageError
from explainer.files.results import free_folder
from explainer.files.sources import Source
from explainer.options import Options
from explainer.questions import Questions


@dataclass(frozen=True)
class Job:
    """What a run works with: where pictures come from, what is asked about them, what answers, and where results go.

    explainer  an Explainer or a Comparer
    """

    source: Source
    questions: Questions
    explainer: object
    folder: Path


def open_run(options: Options) -> Job:
    """Return what a run needs; UsageError for what cannot work, before any model is loaded where that is possible."""
    for weights in options.compare or (options.weights,):
        check_weights(weights, [way.method for way in options.variants])
    check_there(options.compare or ())
    questions = Questions(options.boxes, options.labels)
    if options.view_img:
        check_display()
    source = Source(options.source, options.vid_stride)
    questions.check_source(source)
    folder = free_folder(options.project, options.name, options.exist_ok)
    explainer = open_explainer(options)
    for network in explainer.networks:
        questions.check_classes(network.names, source)
    return Job(source, questions, explainer, folder)


def check_display() -> None:
    """Raise UsageError where no window can be opened."""
    from utils.general import check_imshow

    if not check_imshow(warn=False):
        raise UsageError("--view-img needs a display and an OpenCV with windows; leave it out, the pictures are saved")


def open_explainer(options: Options):
    """Return an Explainer, or where several methods, layers or models are asked for a Comparer, with its models loaded."""
    from explainer.comparing import Comparer
    from explainer.detectors.weights import model_names, open_model
    from explainer.explain import Explainer

    how = {"device": options.device, "half": options.half, "data": options.data, "trust": options.trust}
    if options.compare:
        models = [open_model(entry, **how) for entry in options.compare]
        names = model_names(options.compare)
        return Comparer(models, names=names, each_layer=options.each_layer, **options.settings)
    model, ways = open_model(options.weights, **how), options.variants
    if len(ways) > 1:
        return Comparer(model, each_layer=options.each_layer, **options.settings)
    return Explainer(model, **vars(ways[0]))
