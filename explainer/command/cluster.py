"""Work that is spread over the processes of a Ray cluster, so that nothing is lost, and nothing done twice.

A `Task` is some units, such as images, that one worker does one after the other. A worker that dies takes its task with it,
which another worker then begins anew, one unit at a time, so that a unit that kills its workers is known: after the third
it is given up, and the others go on. A worker that dies with its machine is nobody's fault.

Ray is asked for nothing but processes, their place and their messages. https://docs.ray.io
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from explainer.command.options import ROOT
from explainer.command.running import in_one_line
from explainer.detectors.torchvision_models import FUNCTION
from explainer.errors import UsageError
from explainer.settings import LOCAL, as_tuple

# So many workers a unit may kill, and so many may die one after the other while they are opened.
MOST_DEATHS = 3
# What computes with threads of its own, before it is told by a call.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# In seconds, before it is said that nothing has come.
PATIENCE = 60
# What of this program travels to machines that do not have it.
PACKAGES = ("explainer", "models", "utils")


@dataclass
class Task:
    """Some units of work, in their order.

    whole     whether what is made of the units counts only together: a new worker then begins with the first one again
    careful   whether a unit is done to its end before the next is looked at
    lost      why units were given up, by their place
    done      the places of those that are done
    attempt   how many workers have had it
    """

    number: int
    units: list
    whole: bool
    careful: bool = False
    lost: dict[int, str] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    attempt: int = 0

    def left(self) -> list[int]:
        """Return the places of the units that a worker is to do now."""
        without = self.lost.keys() if self.whole else self.lost.keys() | self.done
        return [place for place in range(len(self.units)) if place not in without]


class Worker(Protocol):
    """What runs in a process of its own."""

    def open(self, *arguments) -> tuple[str, list[str]]:
        """Make ready for work, and return `greeting()`; UsageError for what cannot work here."""

    def work(self, task: Task) -> Iterator[tuple[int, object]]:
        """Do the units that are left of a task, and yield the place of each and what came of it, in their order."""


@dataclass
class Running:
    """A worker at its task: the messages that come from it, and the places of the units that they were not about yet."""

    actor: "Actor"
    task: Task
    ahead: deque[int]


@dataclass
class Actor:
    """A process of Ray's, and the machine that it is on, once it is known."""

    handle: object
    node: str = ""


@dataclass(frozen=True)
class Size:
    """How many workers there are, and what each of them takes.

    workers  processes
    threads  of the CPU, each
    gpus     share of a GPU, each
    """

    workers: int
    threads: int
    gpus: float = 0.0


class Crew:
    """Workers of one kind, opened with the same arguments; leaving the context ends them."""

    def __init__(self, kind: type[Worker], arguments: tuple, size: Size):
        self._kind, self._arguments, self.size = kind, arguments, size
        self._opening: dict[object, Actor] = {}
        self._idle: list[Actor] = []
        self._running: list[tuple[object, Running]] = []
        # Deaths of workers by task and place, and by task those of which it is not known at which unit.
        self._deaths: Counter = Counter()
        self._dead_while_opened = 0

    def __enter__(self) -> "Crew":
        for _ in range(self.size.workers):
            self._hire()
        return self

    def __exit__(self, *error) -> None:
        import ray

        actors = [*self._opening.values(), *self._idle, *(running.actor for _, running in self._running)]
        for actor in actors:
            ray.kill(actor.handle)

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, int | None, object]]:
        """Have tasks done, and yield the task, the place of a unit and what came of it, as it comes, once for each unit.

        The place is None where the task has ended. What a worker raises is raised here. Units that were given up come with
        the task: see `Task.lost`.
        """
        import ray

        waiting, again = iter(tasks), deque()
        while True:
            while self._idle and (task := again.popleft() if again else next(waiting, None)) is not None:
                self._start(self._idle.pop(), task)
            if not self._running and self._idle:
                return
            ready = self._next_message()
            if ready in self._opening:
                self._opened(ready)
                continue
            running = next(entry for messages, entry in self._running if messages is ready)
            try:
                place, found = ray.get(next(ready))
            except StopIteration:
                self._leave(ready)
                self._idle.append(running.actor)
                yield running.task, None, None
            except deaths() as error:
                self._leave(ready)
                again.append(self._mourned(running, error))
                self._hire()
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            else:
                running.ahead.remove(place)
                if place not in running.task.done:
                    running.task.done.add(place)
                    yield running.task, place, found

    def _next_message(self) -> object:
        """Return what has something to say: a worker that is open, or one at work."""
        import ray

        from utils.general import LOGGER

        while True:
            waited_for = [*self._opening, *(messages for messages, _ in self._running)]
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=PATIENCE)
            if ready:
                return ready[0]
            if not self._running:
                LOGGER.info(f"Waiting for room in the cluster for {len(self._opening)} workers")

    def _hire(self) -> None:
        """Have a new process begin; it is at work once it is open."""
        import ray

        size = self.size
        threads = dict.fromkeys(THREADS, str(size.threads))
        actor = ray.remote(self._kind).options(
            num_cpus=size.threads, num_gpus=size.gpus, max_restarts=0, runtime_env={"env_vars": threads}
        )
        handle = actor.remote()
        self._opening[handle.open.remote(*self._arguments)] = Actor(handle)

    def _opened(self, ready: object) -> None:
        """Let a worker that is open be idle, or raise what went wrong."""
        import ray

        actor = self._opening.pop(ready)
        try:
            actor.node, theirs = ray.get(ready)
        except deaths() as error:
            self._dead_while_opened += 1
            if self._dead_while_opened >= MOST_DEATHS:
                raise OSError(
                    f"workers die while they open the model: {in_short(error)}; try fewer --workers"
                ) from None
            self._hire()
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        else:
            self._dead_while_opened = 0
            check_versions(theirs)
            self._idle.append(actor)

    def _start(self, actor: Actor, task: Task) -> None:
        """Give a worker a task."""
        task.attempt += 1
        # Of a careful worker each message is waited for before it goes on.
        options = {"num_returns": "streaming"} | ({"_generator_backpressure_num_objects": 1} if task.careful else {})
        messages = actor.handle.work.options(**options).remote(task)
        self._running.append((messages, Running(actor, task, deque(task.left()))))

    def _leave(self, messages: object) -> None:
        """Forget who was at work."""
        self._running = [entry for entry in self._running if entry[0] is not messages]

    def _mourned(self, running: Running, error: Exception) -> Task:
        """Return the task of a worker that died, less a unit that is to be given up."""
        from utils.general import LOGGER

        task = running.task
        if node_is_gone(running.actor.node):
            LOGGER.warning(f"WARNING ⚠️ a machine of the cluster is gone; shard {task.number} begins anew")
            return task
        LOGGER.warning(f"WARNING ⚠️ a worker died, and shard {task.number} begins anew: {in_short(error)}")
        if not task.careful:
            self._deaths[task.number, None] += 1
            task.careful = True
        elif running.ahead:
            place = running.ahead[0]
            # The first one died of the same, most likely.
            self._deaths[task.number, place] += 1 + self._deaths.pop((task.number, None), 0)
            if self._deaths[task.number, place] >= MOST_DEATHS:
                task.lost[place] = f"it killed {MOST_DEATHS} workers: {in_short(error)}"
        return task


def deaths() -> tuple[type[Exception], ...]:
    """Return how Ray says that a process is gone."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
    )


def in_short(error: Exception) -> str:
    """Return in a few words of what a worker died."""
    text = str(error).strip()
    if "creation task" in text:
        return text.splitlines()[-1].strip()
    if "OOM" in text.partition("Some common causes")[0] or "memory pressure" in text:
        return "it was killed because memory ran out"
    return "it ended without a word: killed, out of memory, or a crash"


def node_is_gone(node: str) -> bool:
    """Return whether a machine has left the cluster."""
    import ray

    return not any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes())


def check_versions(theirs: list[str]) -> None:
    """Raise UsageError where a worker has other versions of what computes the maps than this process."""
    ours = versions_of_libraries()
    if ours != theirs:
        raise UsageError(
            f"a worker of the cluster has other versions ({', '.join(theirs)}) than this process ({', '.join(ours)}), and "
            "the same answers need the same ones; install them everywhere"
        )


def versions_of_libraries() -> list[str]:
    """Return the versions of what computes the maps, besides this program, which is carried to where it runs."""
    from explainer.command.reporting import versions

    return [entry for entry in versions() if not entry.startswith("yolov5-explainer")]


def greeting() -> tuple[str, list[str]]:
    """Return what a worker says when it is open: its machine, and its versions."""
    import ray

    return ray.get_runtime_context().get_node_id(), versions_of_libraries()


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Start a cluster on this machine, or join the one at an address, for the time of the context.

    One that this process has joined already is taken as it is. UsageError, in a line, where there is no Ray or no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--ray needs Ray ({error}); pip install -r requirements-ray.txt") from error
    if ray.is_initialized():
        yield
        return
    if address == LOCAL:
        # The workers of this machine find the program where this process does.
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}}
        own = {"num_cpus": cores(), "include_dashboard": False}
    else:
        modules = [str(ROOT / name) for name in PACKAGES]
        environment, own = {"py_modules": modules, "excludes": ["__pycache__", "*.pt", "*.onnx"]}, {}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise UsageError(f"--ray {address}: no cluster could be joined ({in_line(error)})") from error
    try:
        yield
    finally:
        with suppress(Exception):
            ray.shutdown()


def in_line(error: Exception) -> str:
    """Return what an error says, in one line of sensible length."""
    text = in_one_line(error) if isinstance(error, OSError) else " ".join(str(error).split())
    return text[:300]


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def size_of(workers: int | None, gpus_per_worker: float | None) -> Size:
    """Return how many workers the cluster holds, and what each of them takes; UsageError for more than there is.

    Without a number there is one for each GPU, or where there is none for each CPU core. The cores are shared out evenly.
    """
    import ray

    has = ray.cluster_resources()
    cpus, gpus = int(has.get("CPU", 1)), has.get("GPU", 0.0)
    share = gpus_per_worker if gpus_per_worker is not None else float(gpus > 0)
    if share > gpus:
        raise UsageError(f"--gpus-per-worker {share:g}: the cluster has {gpus:g} GPUs")
    most = int(gpus / share) if share else cpus
    count = workers or max(1, most)
    if count > most:
        kind = f"GPUs at {share:g} each" if share else "CPU cores"
        raise UsageError(f"--workers {count}: the cluster has room for {most}, by its {kind}")
    of_machine = min(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    return Size(count, max(1, min(cpus // count, of_machine)), share)


def files_of_models(options) -> set[str]:
    """Return the files that the options of a run open models from, as absolute paths; names that are no files are left."""
    written = FUNCTION.fullmatch(options.arch or "")
    weights = as_tuple(getattr(options, "compare", None) or options.weights)
    named = [*weights, options.data, written and written["file"]]
    return {os.path.abspath(path) for path in named if path is not None and os.path.isfile(path)}


def sent(options, size: Size) -> tuple:
    """Return what workers are opened with: options, a reference to the contents of the files of models, and threads.

    The model goes where a worker has a share: on the CPU, unless it has one of a GPU. Its files travel as they are, by path,
    to each machine once, so that none needs to have them.
    """
    import ray

    contents = {path: Path(path).read_bytes() for path in files_of_models(options)}
    options = replace(options, resume=None, device=options.device or ("" if size.gpus else "cpu"))
    return options, ray.put(contents), size.threads


@contextmanager
def received(options, contents: Mapping[str, bytes], threads: int) -> Iterator:
    """Give options that open models from files that lie here for the time of the context; see `sent`.

    From then on this process takes so many threads, and logs warnings alone.
    """
    import cv2
    import torch

    from utils.general import LOGGER

    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    LOGGER.setLevel("WARNING")
    with TemporaryDirectory(prefix="explainer-") as folder:
        yield with_models(options, unpacked(contents, folder))


def with_models(options, moved: Callable[[object], object]):
    """Return options that open models from files that were moved."""
    written = FUNCTION.fullmatch(options.arch or "")
    changed = {name: moved(getattr(options, name)) for name in ("weights", "compare", "data") if hasattr(options, name)}
    if written:
        changed["arch"] = f"{moved(written['file'])}:{written['function']}"
    return replace(options, **changed)


def unpacked(contents: Mapping[str, bytes], folder: str) -> Callable[[object], object]:
    """Write files that were sent below a folder, with the folders that they were in.

    Return what gives the new path for the old one, and anything else as it is.
    """
    places = {}
    for path, content in contents.items():
        place = Path(folder, *Path(path).parts[1:])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        places[path] = str(place)

    def moved(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return tuple(map(moved, value))
        return places.get(os.path.abspath(value), value) if isinstance(value, (str, Path)) else value

    return moved
