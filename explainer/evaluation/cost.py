"""What work with a network costs: passes, seconds and memory."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from explainer.detectors.white_box import WhiteBox

STATUS, CLEAR_REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# What the kernel takes for "forget the highest memory use so far".
FORGET_PEAK = "5"
MEBIBYTE = 2**20


@dataclass
class Cost:
    """What a stretch of work took.

    seconds  on the clock
    passes   forward passes, by the multiply-adds of the convolutions that were run: a part of the network that is run
             again counts as a part of a pass; backward passes show in the seconds alone
    memory   mebibytes at the peak, above what was in use before: of the GPU, or of the process on Linux; None elsewhere
    """

    seconds: float = 0.0
    passes: float = 0.0
    memory: float | None = None


class Meter:
    """Counts what is run of a network while it is entered.

    copies   changed copies of the detector, whose passes count as its own for `inside`, and for nothing else
    inside   seconds within the forward passes of the whole network
    """

    def __init__(self, detector: WhiteBox, copies: Iterable[WhiteBox] = ()):
        self.detector, self.device = detector, detector.device
        self.copies = tuple(copies)
        self.inside = 0.0
        self._work, self._work_of_a_pass, self._entered = 0, 1, 0.0

    def __enter__(self) -> "Meter":
        self._stack = ExitStack()
        for detector in (self.detector, *self.copies):
            for model in detector.passes:
                self._keep(model.register_forward_pre_hook(self._enter_pass))
                self._keep(model.register_forward_hook(self._leave_pass))
        for module in self.detector.modules:
            if isinstance(module, nn.Conv2d):
                self._keep(module.register_forward_hook(self._add_work))
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def _keep(self, handle) -> None:
        self._stack.callback(handle.remove)

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Take what is run meanwhile, on one image, as one pass."""
        before = self._work
        yield
        self._work_of_a_pass = self._work - before

    @contextmanager
    def measuring(self) -> Iterator[Cost]:
        """Give a Cost that holds what was done meanwhile when the context is left."""
        cost, work = Cost(), self._work
        forget_peak(self.device)
        memory, started = self._memory(peak=False), perf_counter()
        yield cost
        self._finish()
        cost.seconds = perf_counter() - started
        cost.passes = (self._work - work) / self._work_of_a_pass
        if memory is not None:
            cost.memory = max(self._memory(peak=True) - memory, 0) / MEBIBYTE

    def _memory(self, peak: bool) -> int | None:
        """Return the bytes in use, now or at the peak; None where nobody counts them."""
        if self.device.type == "cuda":
            read = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
            return read(self.device)
        return resident_bytes("VmHWM" if peak else "VmRSS")

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _enter_pass(self, module, args) -> None:
        self._finish()
        self._entered = perf_counter()

    def _leave_pass(self, module, args, output) -> None:
        self._finish()
        self.inside += perf_counter() - self._entered

    def _add_work(self, module, args, output) -> None:
        self._work += output.numel() * module.weight[0].numel()


def forget_peak(device: torch.device) -> None:
    """Start to look for the highest memory use anew, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(CLEAR_REFERENCES, os.W_OK):
        CLEAR_REFERENCES.write_text(FORGET_PEAK, encoding="ascii")


def resident_bytes(entry: str) -> int | None:
    """Return the bytes of a line of Linux's account of this process, VmRSS or VmHWM; None where its peak cannot be reset."""
    if not os.access(CLEAR_REFERENCES, os.W_OK):
        return None
    lines = (line.split() for line in STATUS.read_text(encoding="utf-8").splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == f"{entry}:"), None)
