"""What the tests of the explainer need in every tree."""

import logging
import sys

import pytest


class CurrentStderr:
    """Writes to what sys.stderr is at that time: the log of stock YOLOv5 holds on to what it was at first."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@pytest.fixture(scope="session", autouse=True)
def log_on_stderr():
    """Let what the tree logs be captured like what is printed."""
    from utils.general import LOGGER

    for handler in LOGGER.handlers:
        # Not pytest's own, which are of other classes.
        if type(handler) is logging.StreamHandler:
            handler.setStream(CurrentStderr())
