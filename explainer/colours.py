"""Colour maps by name: tables of 256 colours, from low to high."""

from functools import cache

import numpy as np

from explainer.errors import unknown

# Perceptually even ones first. All of them are known without a look at the libraries that hold them.
SELECTION = ("plasma", "inferno", "magma", "viridis", "cividis", "turbo", "jet", "hot", "bone")
EVERY_NAME = 'every name that python -c "import matplotlib; print(*matplotlib.colormaps)" prints, and OpenCV\'s'
# The dark end of a map would lie like a shadow over the photograph.
DARKEST_LEFT_OUT = 0.15


def canonical_colormap(name: str) -> str:
    """Return a colour map's name as its library spells it; UsageError for an unknown one."""
    asked = str(name).strip().lower().removeprefix("colormap_")
    if asked in SELECTION:
        return asked
    spellings = {known.lower(): known for known in (*matplotlib_names(), *opencv_names())}
    if asked not in spellings:
        raise unknown("colour map", name, SELECTION, f"and {EVERY_NAME}; not case-sensitive")
    return spellings[asked]


def opencv_names() -> dict[str, int]:
    """Return OpenCV's colour maps: their numbers by name, in lower case."""
    import cv2

    prefix = "COLORMAP_"
    return {name.removeprefix(prefix).lower(): getattr(cv2, name) for name in dir(cv2) if name.startswith(prefix)}


def matplotlib_names() -> list[str]:
    """Return the names of matplotlib's colour maps."""
    import matplotlib

    return list(matplotlib.colormaps)


@cache
def colour_table(name: str) -> np.ndarray:
    """Return the colours of a map, RGB uint8 (256, 3), given its canonical name; the first ones are left out."""
    import cv2

    positions = np.linspace(DARKEST_LEFT_OUT, 1, 256)
    numbers = opencv_names()
    if name in numbers:
        steps = np.uint8(positions * 255 + 0.5)[:, None]
        return np.ascontiguousarray(cv2.applyColorMap(steps, numbers[name])[:, 0, ::-1])
    import matplotlib

    return matplotlib.colormaps[name](positions, bytes=True)[:, :3].copy()
