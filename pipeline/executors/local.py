"""The executor of one machine: this process, or several that share out its cores and GPUs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipeline.executors.base import Outcome, outcome_of
from pipeline.executors.stopping import LEAVE_SECONDS, tidy_end
from pipeline.files.durable import make_folder

TRIES = 2  # of a unit whose process is killed


class LocalExecutor:
    """With one worker everything runs in this process. More are processes of their own, each with its share of the
    cores that this one may use and, in turn, one of its GPUs; what they print goes to a log each. Where `options`, a
    device of the work, is a GPU by its number (`cuda:1`), all take that one.
    """

    def __init__(self, workers: int, logs: Path, options: str | None = None):
        self.workers, self.here, self._logs = workers, workers == 1, logs
        self._in_turn = ":" not in (options or "")

    def run(self, work: Callable[[int], Any], units: Sequence[int]) -> Generator[Outcome, None, None]:
        """See `Executor.run`."""
        if self.here:
            for unit in units:
                yield Outcome(unit, work(unit))
            return
        make_folder(self._logs)
        waiting, lost = deque(units), Counter[int]()
        slots = list(range(self.workers))
        busy: dict[Connection, _Worker] = {}
        idle: list[_Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < self.workers:
                    worker = idle.pop() if idle else self._start(slots.pop(0), work)
                    busy[worker.connection] = worker
                    worker.begin(waiting.popleft())
                for connection in wait(list(busy)):
                    worker = busy.pop(connection)  # type: ignore[call-overload]
                    outcome = worker.outcome()
                    if outcome is not None:
                        idle.append(worker)
                    else:
                        worker.close()
                        slots.append(worker.slot)
                        lost[worker.unit] += 1
                        if lost[worker.unit] < TRIES:
                            waiting.append(worker.unit)
                            continue
                        log = str(worker.log) if worker.log.is_file() else ""
                        outcome = Outcome(worker.unit, error=worker.fate(), log=log)
                    yield outcome
        finally:
            _stop([*busy.values(), *idle])

    def _start(self, slot: int, work: Callable[[int], Any]) -> _Worker:
        return _Worker(slot, self.workers, self._logs, work, self._in_turn)


class _Worker:
    """A process, seen from outside, and the unit that it was given last."""

    def __init__(self, slot: int, workers: int, logs: Path, work: Callable[[int], Any], in_turn: bool):
        self.slot, self.unit = slot, -1
        self.log = logs / f"{socket.gethostname()}-{os.getpid()}-{slot}.log"
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks of threads that it has not
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, slot, workers, self.log, in_turn), daemon=True)
        self.process.start()
        theirs.close()
        self._send(work)

    def begin(self, unit: int) -> None:
        self.unit = unit
        self._send(unit)

    def _send(self, what: object) -> None:
        with suppress(OSError):  # it is dead, which `outcome` tells
            self.connection.send(what)

    def outcome(self) -> Outcome | None:
        """What it says of its unit; None where it is dead."""
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None
        return outcome

    def fate(self) -> str:
        """A sentence on how it died."""
        code = self.process.exitcode or 0
        if code < 0:
            return f"its process was killed by signal {-code}, maybe for want of memory: take fewer workers"
        return f"its process left with exit code {code}"

    def close(self) -> None:
        """Put away what a dead one leaves, of its log only what says nothing."""
        self.connection.close()
        if self.log.is_file() and not self.log.stat().st_size:
            self.log.unlink(missing_ok=True)


def _stop(workers: Sequence[_Worker]) -> None:
    """End processes: at once those that wait, others as soon as they have put their things away."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + LEAVE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.close()


def _serve(connection: Connection, slot: int, workers: int, log: Path, in_turn: bool) -> None:
    """A worker's process: first the work in, then unit in, outcome out, until it is stopped or nobody is there any more
    who gives it any.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(handle, stream.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to all of a terminal; the parent passes it on
    follow_parent()
    with tidy_end(), suppress(EOFError, BrokenPipeError):
        _take_share(slot, workers, in_turn)
        work = connection.recv()  # no argument of the process, since it loads torch
        while True:
            connection.send(outcome_of(work, connection.recv(), str(log)))


def follow_parent() -> None:
    """In a process of multiprocessing: end with the one that waits for it, however that ends. Else a process goes on,
    and holds a GPU, whose parent was killed.
    """
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _take_share(slot: int, workers: int, in_turn: bool) -> None:
    """Use this worker's cores only, and its GPU if they are taken in turn. Torch, ONNX Runtime, OpenCV and FFmpeg start
    as many threads as they see cores, so this comes before any of them is loaded.
    """
    cores = usable_cores()
    share = cores[slot * len(cores) // workers : (slot + 1) * len(cores) // workers] or [cores[slot % len(cores)]]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(share)))
    if in_turn and (gpus := usable_gpus()):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]


def usable_cores() -> list[int]:
    """The cores that this process may run on: fewer than the machine has under taskset, Slurm or in a container."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
