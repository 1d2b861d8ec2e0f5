"""The end of a command."""

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process with an exit code once all that was registered for its end has run and all output is written.

    Python would then take apart the million objects that torch and the other libraries made, which takes a second or two;
    the operating system takes them all at once.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        # Nobody may be reading any more.
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
