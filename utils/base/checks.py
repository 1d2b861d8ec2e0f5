"""Checks of what a user gives: files, sizes, what is installed, whether there is a display.

Nothing here installs anything, and only `check_file` fetches something: a URL that it is given.
"""

from __future__ import annotations

import glob
import inspect
import math
import os
import sys
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.logger import LOGGER, colorstr
from utils.base.media import hide_password, is_url
from utils.base.paths import ROOT

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Any of these brings the module cv2.
OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
SEARCHED_FOLDERS = ("data", "models", "utils")


def check_suffix(
    file: str | Path | Iterable[str | Path], suffix: str | tuple[str, ...] = (".pt",), msg: str = ""
) -> None:
    """Raise ValueError when a file's name, or one of several, has a suffix that is not among `suffix`."""
    allowed = (suffix,) if isinstance(suffix, str) else tuple(suffix)
    if not file or not any(allowed):
        return
    for name in [file] if isinstance(file, str | Path) else file:
        found = Path(name).suffix.lower()
        if found and found not in allowed:
            raise ValueError(f"{msg}{name} ends in {found}; allowed is {' '.join(allowed)}")


def check_file(file: str | Path, suffix: str | tuple[str, ...] = "") -> str:
    """Return the path of a file: itself where it exists, a URL after download, or the one of that name in this tree.

    Downloads go to the working folder, once. The tree's folders data, models and utils are searched.

    Raises:
        FileNotFoundError: when there is none, or more than one in the tree.
        ValueError: when its suffix is not among `suffix`.
    """
    check_suffix(file, suffix)
    file = str(file)
    if not file or Path(file).is_file():
        return file
    if is_url(file):
        from utils.base.downloads import attempt_download

        return attempt_download(file)
    name = glob.escape(Path(file).name) or file
    found = [path for folder in SEARCHED_FOLDERS for path in sorted((ROOT / folder).rglob(name))]
    matching = [path for path in found if path.as_posix().endswith(f"/{Path(file).as_posix()}")]
    if not matching:
        raise FileNotFoundError(
            f"{file} does not exist, and the tree's folders {', '.join(SEARCHED_FOLDERS)} have none"
        )
    if len(matching) > 1:
        raise FileNotFoundError(f"{file} is ambiguous; give one of {', '.join(map(str, matching))}")
    return str(matching[0])


def check_yaml(file: str | Path, suffix: tuple[str, ...] = (".yaml", ".yml")) -> str:
    """Return the path of a YAML file; see `check_file`."""
    return check_file(file, suffix)


def check_img_size(imgsz: int | Iterable[int], s: int = 32, floor: int = 0) -> int | list[int]:
    """Round an image size, or each of several, up to a multiple of the stride `s`, at least `floor`; log a change.

    Raises:
        ValueError: for a size that is no positive number.
    """
    stride, single = int(s), isinstance(imgsz, Integral)
    sizes = [imgsz] if single else list(imgsz)
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"image size {imgsz} is not possible; give pixels, a multiple of {stride} such as {stride * 20}"
        )
    rounded = [max(math.ceil(size / stride) * stride, floor) for size in sizes]
    new = rounded[0] if single else rounded
    if rounded != sizes:
        LOGGER.warning(f"WARNING: image size {imgsz} is no multiple of the model's stride {stride}, taking {new}")
    return new


def check_imshow(warn: bool = False) -> bool:
    """Whether pictures can be shown in a window here; with `warn` a line says why not."""
    problem = _window_problem()
    if problem and warn:
        LOGGER.warning(f"WARNING: pictures cannot be shown in a window: {problem}")
    return not problem


def _window_problem() -> str:
    """Return why no window can be opened, or nothing."""
    import cv2
    import numpy as np

    # Where there is no display, Qt would end the whole process.
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (DISPLAY is not set)"
    try:
        cv2.imshow("test", np.zeros((1, 1, 3), np.uint8))
        cv2.waitKey(1)
        cv2.destroyAllWindows()
    except cv2.error as error:
        return error.err.splitlines()[0]
    return ""


def check_requirements(
    requirements: str | Path | Iterable[str] = ROOT / "requirements.txt", exclude: Iterable[str] = ()
) -> bool:
    """Whether the packages are installed, in versions that do; a line names what is missing and the command for it.

    Args:
        requirements: a requirements file; or one requirement such as `numpy>=1.26`, or several.
        exclude: names of packages that do not matter.
    """
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in _requirement_lines(requirements)]
    missing = [str(r) for r in wanted if r.name not in set(exclude) and not _is_installed(r)]
    if missing:
        quoted = " ".join(f'"{r}"' for r in missing)
        LOGGER.warning(f"missing: {', '.join(missing)}; install with: pip install {quoted}")
    return not missing


def _requirement_lines(requirements: str | Path | Iterable[str]) -> list[str]:
    if isinstance(requirements, Path) or str(requirements).endswith(".txt"):
        lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    else:
        lines = [requirements] if isinstance(requirements, str) else list(requirements)
    bare = [line.split(" #")[0].strip() for line in lines]
    return [line for line in bare if line and not line.startswith(("#", "-"))]


def _is_installed(requirement: Requirement) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    if requirement.marker and not requirement.marker.evaluate():
        return True
    names = OPENCV_PACKAGES if requirement.name in OPENCV_PACKAGES else (requirement.name,)
    for name in names:
        try:
            if requirement.specifier.contains(version(name), prereleases=True):
                return True
        except PackageNotFoundError:
            continue
    return False


def print_args(args: dict | None = None, show_file: bool = True, show_func: bool = False) -> None:
    """Log the arguments `args` in one line, by default those that the calling function was given.

    Args:
        args: names and values.
        show_file: begin with the name of the calling file.
        show_func: and with that of the function.
    """
    frame = inspect.currentframe().f_back
    code = frame.f_code
    if args is None:
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        args = {name: frame.f_locals[name] for name in names}
    caller = [Path(code.co_filename).stem] * show_file + [code.co_name] * show_func
    prefix = colorstr("bright_blue", "bold", f"{': '.join(caller)}: ") if caller else ""
    LOGGER.info(prefix + ", ".join(f"{name}={hide_password(value)}" for name, value in args.items()))
