"""The logger, and colour for its lines."""

import logging
import sys

import pytest

from utils.base.logger import LOGGER, colorstr


def test_the_logger_writes_to_the_current_stderr_once(capsys):
    logging.getLogger().info("not ours")
    LOGGER.info("hello")
    assert capsys.readouterr().err == "hello\n"


def test_text_is_coloured_on_a_terminal_only(monkeypatch):
    assert colorstr("red", "bold", "x") == "x"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert colorstr("red", "bold", "x") == "\033[31;1mx\033[0m"
    assert colorstr("x") == "\033[34;1mx\033[0m"
    with pytest.raises(ValueError, match="unknown text style 'pink'"):
        colorstr("pink", "x")
