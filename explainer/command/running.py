"""How a command runs: the next image is read and the last one written while the model looks at this one; progress; the end.

Nothing heavy is imported here, so that --help and mistakes are answered at once.
"""

import atexit
import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NoReturn

from explainer.errors import UsageError, printable

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


def done_side_by_side(items: Iterable, job: Callable, workers: int) -> Iterator[tuple]:
    """Yield the items, each with what a job makes of it, in their order; so many threads do the jobs.

    What getting an item or doing its job raises is raised here in its turn. With threads of its own, each computes with a
    share of torch's threads: two small passes side by side are through sooner than one after the other on twice the cores.
    """
    if workers < 2:
        yield from ((item, job(item)) for item in items)
        return
    import torch

    before = torch.get_num_threads()
    share = max(before // workers, 1)
    with ThreadPoolExecutor(workers, "explain", torch.set_num_threads, (share,)) as pool:
        waiting: deque[tuple[object, Future]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(job, item)))
                if len(waiting) > workers:
                    yield taken(waiting)
            while waiting:
                yield taken(waiting)
        finally:
            for _, future in waiting:
                future.cancel()
            # What a thread is told of its own counts for threads that are yet to come, too.
            torch.set_num_threads(before)


def taken(waiting: deque) -> tuple:
    """Take the first of the items that wait, and return it with the result of its job."""
    item, future = waiting.popleft()
    return item, future.result()


class WriteBehind:
    """A queue of jobs that another thread does in their order. Leaving the context waits for them all.

    What a job raises is raised by the next call, or when the context is left; no job behind it is done, so that what is
    done ends where the error came.
    """

    def __init__(self):
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future] = deque()
        self._error: BaseException | None = None

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, *error) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._writer.shutdown()

    def do(self, job: Callable, *arguments) -> Future:
        """Have a job done, after at most a few others that still wait, and return what will hold its result."""
        future = self._writer.submit(self._done, job, arguments)
        self._waiting.append(future)
        while len(self._waiting) > AHEAD:
            self._waiting.popleft().result()
        return future

    def _done(self, job: Callable, arguments: tuple) -> object:
        """Return the result of a job; the error of an earlier one in its place, if there was one."""
        if self._error is not None:
            raise self._error
        try:
            return job(*arguments)
        except BaseException as error:
            self._error = error
            raise


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


@dataclass
class Tally:
    """What a run has done so far: images done and skipped, and the seconds that those done took."""

    done: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def skip(self, path: Path, reason: object) -> None:
        """Report and count one image that could not be read or looked at."""
        from utils.general import LOGGER

        LOGGER.warning(f"WARNING ⚠️ skipped {printable(f'{path}: {reason}')}")
        self.skipped += 1


@contextmanager
def progress(images: Iterable, *, total: int | None = None, shown: bool = True) -> Iterator[Iterable]:
    """Give the images under a bar that log lines do not tear, where there is a terminal and if it is to be `shown`."""
    from tqdm import tqdm

    disable = None if shown else True
    with LOG_ABOVE_BARS, tqdm(images, total=total, unit="image", disable=disable) as bar:
        yield bar


class LogAboveBars:
    """Has the log written around bars, from the first thread that enters until the last one has left."""

    def __init__(self):
        self._changing, self._inside = Lock(), 0

    def __enter__(self) -> None:
        from tqdm.contrib.logging import logging_redirect_tqdm

        from utils.general import LOGGER

        with self._changing:
            if not self._inside:
                self._redirected = logging_redirect_tqdm([LOGGER])
                self._redirected.__enter__()
            self._inside += 1

    def __exit__(self, *error) -> None:
        with self._changing:
            self._inside -= 1
            if not self._inside:
                self._redirected.__exit__(None, None, None)


LOG_ABOVE_BARS = LogAboveBars()


@contextmanager
def source_progress(source) -> Iterator[Iterable]:
    """Give the frames of a `Source` under a bar, which is shown if there is more than one.

    Files are read ahead; the frames of a stream are not, so that they are shown when they are seen.
    """
    total = source.count_frames()
    with (
        nullcontext(source) if source.is_stream else closing(read_ahead(source)) as frames,
        progress(frames, total=total, shown=total is not None and total > 1) as bar,
    ):
        yield bar


def log_end(tally: Tally, folder: Path) -> None:
    """Log how many images were skipped, if any, and where the results are."""
    from utils.general import LOGGER

    if tally.skipped:
        LOGGER.warning(f"WARNING ⚠️ {tally.skipped} of {tally.skipped + tally.done} images skipped")
    LOGGER.info(f"Results saved to {folder}")


def exit_code(command: str, run: Callable[[], Tally]) -> int:
    """Run a command and return its exit code: 0, 1 if something was lost, 2 for a mistake, 130 after an interrupt.

    Lost is an image that was skipped, or what could not be written. That, and a mistake, is one line on stderr, after the
    name of the command.
    """
    try:
        return int(run().skipped > 0)
    except UsageError as error:
        print(f"{command}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{command}: error: {in_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def in_one_line(error: OSError) -> str:
    """Return what an error of the operating system says, after the file that it is about."""
    about = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error
    return printable(" ".join(str(about).split()))


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
