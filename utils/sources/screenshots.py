"""Pictures of the screen, one after another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.augmentations import FrameTransform

FORMS = "'screen', 'screen 0', 'screen 100 100 512 256' or 'screen 0 100 100 512 256' (screen left top width height)"


class LoadScreenshots:
    """Iterates over pictures of a screen without end; needs the package `mss`.

    Each step gives the screen's number as text, `im` (3, h, w) uint8 RGB, letterboxed, `im0` (H, W, 3) uint8 BGR, None,
    and a text for the log.
    """

    def __init__(
        self,
        source: str,
        img_size: int | tuple[int, int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Choose the screen and the region that `source` names: 'screen [number] [left top width height]', in pixels.

        Raises:
            ValueError: for another text, or a screen that is not there.
            ModuleNotFoundError: without the package `mss`.
        """
        self.screen, region = parse_screen_source(source)
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self.mode = "stream"
        self.frame = 0
        self._to_input = FrameTransform(img_size, stride, auto, transforms)
        self.sct = _open_screens()
        self.monitor = self._monitor(region)
        self.left, self.top, self.width, self.height = (self.monitor[k] for k in ("left", "top", "width", "height"))

    def _monitor(self, region: tuple[int, int, int, int] | None) -> dict[str, int]:
        """Return the region's place on the desktop as mss takes it."""
        screens = self.sct.monitors
        if self.screen >= len(screens):
            raise ValueError(f"screen {self.screen} is not there; known are 0 (all together) to {len(screens) - 1}")
        whole = screens[self.screen]
        left, top, width, height = region or (0, 0, whole["width"], whole["height"])
        place = {"left": whole["left"] + left, "top": whole["top"] + top, "width": width, "height": height}
        return {**place, "mon": self.screen}

    def __iter__(self) -> LoadScreenshots:
        return self

    def __next__(self) -> tuple[str, np.ndarray, np.ndarray, None, str]:
        im0 = np.ascontiguousarray(np.asarray(self.sct.grab(self.monitor))[..., :3])
        place = f"{self.left},{self.top},{self.width},{self.height}"
        self.frame += 1
        return str(self.screen), self._to_input(im0), im0, None, f"screen {self.screen} (LTWH): {place}: "

    def close(self) -> None:
        """Let go of the screen."""
        self.sct.close()


def parse_screen_source(source: str) -> tuple[int, tuple[int, int, int, int] | None]:
    """Return the screen's number (0 when not given) and left, top, width, height, or None for the whole screen."""
    word, *numbers = source.split()
    valid = word.lower() == "screen" and len(numbers) in (0, 1, 4, 5) and all(n.isdecimal() for n in numbers)
    if not valid:
        raise ValueError(f"source {source!r} names no part of a screen; write {FORMS}")
    values = [int(n) for n in numbers]
    screen = values.pop(0) if len(values) in (1, 5) else 0
    return screen, tuple(values) or None


def _open_screens():
    try:
        import mss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures of the screen need the package mss: pip install mss", name="mss") from error
    return mss.mss()
