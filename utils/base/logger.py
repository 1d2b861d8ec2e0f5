"""The tree's logger, and colour for its lines."""

import logging
import os
import sys
from typing import TextIO

ANSI = {
    "black": "30",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "white": "37",
    "bright_black": "90",
    "bright_red": "91",
    "bright_green": "92",
    "bright_yellow": "93",
    "bright_blue": "94",
    "bright_magenta": "95",
    "bright_cyan": "96",
    "bright_white": "97",
    "bold": "1",
    "underline": "4",
    "end": "0",
}


class StderrHandler(logging.StreamHandler):
    """Writes to whatever `sys.stderr` is when the line is logged, so that redirecting it works at any time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _make_logger(name: str) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    # Notebooks often give the root logger a handler of its own: every line would show twice.
    logger.propagate = False
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    return logger


LOGGER = _make_logger("yolov5")


def colorstr(*args: str) -> str:
    """Wrap the last argument in the terminal styles named before it: `colorstr("blue", "bold", "hello")`.

    One argument alone is blue and bold. Without a terminal on stderr, or with NO_COLOR set, the text is returned as is.

    Raises:
        ValueError: for a style that is not a key of `ANSI`.
    """
    *styles, text = args if len(args) > 1 else ("blue", "bold", *args)
    unknown = [style for style in styles if style not in ANSI]
    if unknown:
        raise ValueError(f"unknown text style {unknown[0]!r}; known are {', '.join(ANSI)}")
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return str(text)
    codes = ";".join(ANSI[style] for style in styles)
    return f"\033[{codes}m{text}\033[{ANSI['end']}m"
