"""Reading ahead and writing behind: the order stays, errors come out, and nothing is lost; nor is it when a command ends."""

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from explainer.command.running import AHEAD, WriteBehind, done_side_by_side, read_ahead, without_collecting

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


@pytest.fixture
def four_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_is_done_side_by_side_comes_in_the_order_of_the_items(workers, four_torch_threads):
    assert list(done_side_by_side(range(20), lambda item: item * item, workers)) == [(i, i * i) for i in range(20)]


def test_two_jobs_are_done_at_the_same_time(four_torch_threads):
    both = threading.Barrier(2)
    pairs = done_side_by_side(range(2), lambda item: both.wait(timeout=10), 2)
    assert {place for _, place in pairs} == {0, 1}


def test_jobs_side_by_side_share_the_threads_of_torch_which_are_all_back_at_the_end(four_torch_threads):
    shares = [share for _, share in done_side_by_side(range(4), lambda item: torch.get_num_threads(), 2)]
    assert shares == [2] * 4
    assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == in_a_new_thread(torch.get_num_threads)


def test_a_job_alone_has_all_threads_of_torch(four_torch_threads):
    assert list(done_side_by_side([0], lambda item: torch.get_num_threads(), 1)) == [(0, 4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_side_by_side_raises_comes_after_the_results_before_it(workers, four_torch_threads):
    pairs, got = done_side_by_side([3, 2, 1, 0, 4], lambda item: 6 // item, workers), []
    with pytest.raises(ZeroDivisionError):
        got.extend(result for _, result in pairs)
    assert got == [2, 3, 6]
    assert torch.get_num_threads() == 4


def in_a_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


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
