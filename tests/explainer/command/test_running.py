"""Reading ahead and writing behind: the order stays, errors come out, and nothing is lost; nor is it when a command ends."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from explainer.command.running import AHEAD, WriteBehind, read_ahead, without_collecting

ROOT = Path(__file__).parents[3]
UNPRINTED, LATE = "printed, not yet written", "registered for the end"


def test_items_come_in_their_order():
    assert list(read_ahead(range(20))) == list(range(20))


def test_the_next_items_are_got_by_another_thread_while_one_is_worked_on():
    got, ready = [], threading.Event()

    def items():
        for number in range(10):
            got.append(threading.current_thread())
            if number == AHEAD:
                ready.set()
            yield number

    waiting = read_ahead(items())
    assert next(waiting) == 0
    assert ready.wait(timeout=10)
    waiting.close()
    assert len(got) <= AHEAD + 2
    assert threading.current_thread() not in got


def test_an_error_of_reading_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("gone")

    waiting = read_ahead(items())
    assert next(waiting) == 1
    with pytest.raises(OSError, match="gone"):
        next(waiting)


def test_jobs_are_done_in_their_order_and_all_of_them():
    done = []
    with WriteBehind() as writing:
        for number in range(20):
            writing.do(done.append, number)
    assert done == list(range(20))


def test_an_error_of_a_job_is_raised_and_no_job_behind_it_is_done():
    done = []

    def fail():
        raise OSError("disk full")

    writing = WriteBehind()
    writing.do(fail)
    writing.do(done.append, 1)
    with pytest.raises(OSError, match="disk full"):
        writing.__exit__()
    assert done == []


def test_no_more_than_a_few_jobs_wait():
    holding, started = threading.Event(), []

    def slow():
        started.append(1)
        holding.wait(timeout=10)

    with WriteBehind() as writing:
        for _ in range(AHEAD):
            writing.do(slow)
        blocked = threading.Thread(target=writing.do, args=(slow,))
        blocked.start()
        blocked.join(timeout=0.2)
        assert blocked.is_alive()
        holding.set()
        blocked.join(timeout=10)
        assert not blocked.is_alive()


def test_garbage_is_collected_again_afterwards_also_after_an_error():
    seen = []

    def fail_inside():
        with without_collecting():
            seen.append(gc.isenabled())
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail_inside()
    assert seen == [False]
    assert gc.isenabled()


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
