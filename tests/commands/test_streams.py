"""Commands whose output nobody reads: closed streams, and readers that went away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from evidence_demo import DEMO, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
PICTURE = DEMO / "images/00000.jpg"
COMMANDS = {
    "explainer/explainer.py": ["--weights", str(WEIGHTS), "--source", str(PICTURE)],
    "detect.py": ["--weights", str(WEIGHTS), "--source", str(PICTURE), "--imgsz", "64"],
}
CHILD = """
import os, sys
for number in map(int, sys.argv[1].split()):
    os.close(number)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

posix = pytest.mark.skipif(os.name != "posix", reason="closes streams as POSIX shells do")


@posix
@pytest.mark.parametrize(
    ("command", "closed"), [("explainer/explainer.py", "2"), ("explainer/explainer.py", "1 2"), ("detect.py", "1 2")]
)
def test_a_closed_stream_changes_nothing_of_the_work(command, closed, tmp_path):
    arguments = [*COMMANDS[command], "--project", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", CHILD, closed, str(ROOT / command), *arguments], capture_output=True)
    assert b"Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0
    assert (tmp_path / "exp/00000.jpg").is_file()


@posix
def test_a_mistake_with_closed_streams_is_still_told_by_the_exit_code(tmp_path):
    command = "explainer/explainer.py"
    arguments = ["--weights", "nowhere.pt", "--source", str(PICTURE), "--project", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", CHILD, "1 2", str(ROOT / command), *arguments], capture_output=True)
    assert done.returncode == 2


@posix
@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_goes_away_changes_nothing_of_the_work(command, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*COMMANDS[command], "--project", str(tmp_path)]
    done = subprocess.run([sys.executable, str(ROOT / command), *arguments], stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "exp/00000.jpg").is_file()
