"""Which options a method has no use for, each with the reason in one line."""

from explainer.errors import UsageError
from explainer.methods import METHODS


def check_combination(settings) -> None:
    """Raise UsageError where the method of some Settings cannot do what other settings ask for."""
    name, method = settings.method, METHODS[settings.method]
    if method.reads == "biases" and settings.layer != ("auto",):
        raise UsageError(f"{name} reads all layers that have a bias; leave --layer out")
    if method.project and settings.eigen_smooth:
        raise UsageError(f"--eigen-smooth does not apply to {name}, which does not add channels up; leave it out")
    if method.target == "finer":
        check_comparison(settings)


def check_comparison(settings) -> None:
    """Raise UsageError where something else than the class of a detection is to be compared."""
    if settings.backprop_array != ("class",):
        items = " ".join(settings.backprop_array)
        raise UsageError(f"{settings.method} compares classes; leave --backprop-array {items} out")
    if settings.use_old_target_method:
        raise UsageError(f"{settings.method} compares classes of one detection; leave --use-old-target-method out")


def check_classes(settings, names: dict[int, str]) -> None:
    """Raise UsageError where the method needs another class to compare with and the model has none."""
    if METHODS[settings.method].target == "finer" and len(names) < 2:
        raise UsageError(f"{settings.method} compares classes, and the model has only one; try --method GradCAM")
