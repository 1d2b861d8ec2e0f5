"""The mistakes that the explainer tells apart from its own bugs, and the streams on which it says so."""

import os
import sys


class UsageError(ValueError):
    """A mistake in what the user asked for: one line that says what was given, what is allowed and what to type next.

    What is not printable in it is spelled out: it can quote a file's own words.
    """

    def __init__(self, message: object = ""):
        super().__init__(printable(str(message)))


class UnreadableImageError(OSError):
    """One image that cannot be read; the rest of the run goes on without it."""


def unknown(kind: str, given: object, known: object, hint: str = "") -> UsageError:
    """Return the error for a name that does not exist; it lists the names that do."""
    listed = ", ".join(str(name) for name in known)
    return UsageError(f"unknown {kind} '{given}'; known: {listed}" + (f" ({hint})" if hint else ""))


def printable(text: str) -> str:
    """Return text with escape codes, line breaks and whatever else moves a terminal's cursor spelled out, as \\x1b.

    Names in a checkpoint or a file's name are a stranger's words, and end up in one line of ours.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def open_streams() -> None:
    """Have standard output and error lead nowhere where they are closed, for a command that is about to begin.

    Otherwise Python has None for them, and the next file that is opened takes their number: what a library then writes to
    them would go into that file.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
