"""A command ends at once, and loses nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNPRINTED, LATE = "printed, not yet written", "registered for the end"


def test_leaving_writes_what_was_printed_and_does_what_was_registered_but_takes_nothing_apart():
    script = f"""
import atexit, sys
from explainer.command.running import leave

class Loud:
    def __del__(self):
        print("taken apart", flush=True)

loud = Loud()
atexit.register(print, {LATE!r})
sys.stdout.write({UNPRINTED!r} + "\\n")
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [UNPRINTED, LATE]
    assert not done.stderr
