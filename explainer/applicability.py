"""Which options a method has no use for, each with the reason in one line."""

from explainer.errors import UsageError
from explainer.methods import METHODS


def check_combination(settings) -> None:
    """Raise UsageError where the method of some Settings cannot do what other settings ask for."""
    name, method = settings.method, METHODS[settings.method]
    if method.reads == "biases" and settings.layer != ("auto",):
        raise UsageError(f"{name} reads all layers that have a bias; leave --layer out")
    if method.project and settings.eigen_smooth:
        raise UsageError(
            f"--eigen-smooth does not apply to {name}, which has a way of its own to make a map of channels; leave it out"
        )
    if method.reads == "predictions":
        check_black_box(settings)
    if method.merge == "sum" and settings.fuse != "auto":
        raise UsageError(f"{name} adds its layers up; leave --fuse {settings.fuse} out")
    if method.target == "finer":
        check_comparison(settings)
    if method.target in {"items", "boxes"} and settings.use_old_target_method:
        raise UsageError(f"{name} explains single detections; leave --use-old-target-method out")
    if settings.signed:
        check_sign(settings)
    if settings.signed and settings.renormalize:
        raise UsageError("--renormalize scales what speaks for inside each box; leave it or --signed out")


def check_black_box(settings) -> None:
    """Raise UsageError where layers, or parts of a prediction, are asked for that a black-box method does not look at."""
    name = settings.method
    if settings.layer != ("auto",):
        raise UsageError(
            f"{name} reads no layer, only predictions; leave --layer {' '.join(map(str, settings.layer))} out"
        )
    if settings.fuse != "auto":
        raise UsageError(f"{name} reads no layers that could be fused; leave --fuse {settings.fuse} out")
    if settings.eigen_smooth:
        raise UsageError(f"{name} has no channels to smooth over; leave --eigen-smooth out")
    if settings.backprop_array != ("class",):
        items = " ".join(settings.backprop_array)
        raise UsageError(f"{name} explains box, class and confidence together; leave --backprop-array {items} out")
    if settings.use_old_target_method:
        raise UsageError(f"{name} explains single detections; leave --use-old-target-method out")


def check_comparison(settings) -> None:
    """Raise UsageError where something else than the class of a detection is to be compared."""
    if settings.backprop_array != ("class",):
        items = " ".join(settings.backprop_array)
        raise UsageError(f"{settings.method} compares classes; leave --backprop-array {items} out")
    if settings.use_old_target_method:
        raise UsageError(f"{settings.method} compares classes of one detection; leave --use-old-target-method out")


def check_sign(settings) -> None:
    """Raise UsageError where a map does not tell what speaks against from what speaks for."""
    name, method = settings.method, METHODS[settings.method]
    if method.no_sign:
        known = ", ".join(known for known, entry in METHODS.items() if not entry.no_sign)
        raise UsageError(
            f"--signed does not apply to {name}: {method.no_sign}; methods whose maps have a sign: {known}"
        )
    if settings.eigen_smooth:
        raise UsageError(
            "--eigen-smooth shows a principal component, whose sign is arbitrary; leave it or --signed out"
        )
    if settings.fuse in {"max", "product"}:
        raise UsageError(f"--fuse {settings.fuse} takes what speaks for, without what speaks against; leave it out")
    if settings.aug_smooth:
        raise UsageError("--aug-smooth averages what speaks for, without what speaks against; leave it or --signed out")


def check_given(settings, boxes, labels) -> None:
    """Raise UsageError where boxes or labels, None where there are none, contradict each other or the settings."""
    given = [name for name, entries in (("boxes", boxes), ("labels", labels)) if entries is not None]
    if len(given) == 2:
        raise UsageError(
            "--boxes explains the given boxes alone, --labels judges the detections; leave one of them out"
        )
    if given and settings.use_old_target_method:
        raise UsageError(
            f"--use-old-target-method explains the sum of all predictions, not single boxes; leave it or --{given[0]} out"
        )
    if boxes is not None and (settings.class_names or settings.classes):
        chosen = "class-names" if settings.class_names else "classes"
        raise UsageError(f"--boxes says the class of each box itself; leave --{chosen} out")


def check_classes(settings, names: dict[int, str]) -> None:
    """Raise UsageError where the method needs another class to compare with and the model has none."""
    if METHODS[settings.method].target == "finer" and len(names) < 2:
        raise UsageError(f"{settings.method} compares classes, and the model has only one; try --method GradCAM")
