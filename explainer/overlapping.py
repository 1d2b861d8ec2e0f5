"""Doing several things at once: the next image is read and the last one written while the model looks at this one."""

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

# Each image that waits, to be explained or to be written, takes memory.
AHEAD = 2
END = object()


def read_ahead(items: Iterable) -> Iterator:
    """Yield the items while another thread gets the next ones; what getting one raises is raised here in its turn."""
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        waiting = deque(reader.submit(next, source, END) for _ in range(AHEAD))
        try:
            while (item := waiting.popleft().result()) is not END:
                waiting.append(reader.submit(next, source, END))
                yield item
        finally:
            for future in waiting:
                future.cancel()


class WriteBehind:
    """A queue of jobs that another thread does in their order. Leaving the context waits for them all.

    What a job raises is raised by the next call, or when the context is left.
    """

    def __init__(self):
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *error) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._writer.shutdown()

    def do(self, job: Callable, *arguments) -> None:
        """Have a job done, after at most a few others that still wait."""
        self._waiting.append(self._writer.submit(job, *arguments))
        while len(self._waiting) > AHEAD:
            self._waiting.popleft().result()


@contextmanager
def without_collecting() -> Iterator[None]:
    """Look for no garbage for the time of the context: importing makes a million objects that all stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
