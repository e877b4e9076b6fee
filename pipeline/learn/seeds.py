"""Seeds side by side, each in a process of its own: small models leave most cores of a machine idle."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from pipeline.errors import PosebridgeError
from pipeline.executors.local import follow_parent, usable_cores
from pipeline.files.memory import keep_freed_memory
from pipeline.learn.loop import OnEpoch, Progress

T = TypeVar("T")
Work = Callable[[int, OnEpoch], T]  # of one seed; it and what it returns can be pickled


def each_seed(work: Work[T], seeds: Sequence[int], jobs: int, on_epoch: OnEpoch) -> list[T]:
    """What work(seed, on_epoch) returns for every seed, in their order, up to `jobs` at a time.

    With `jobs` of 1 they run here, one after another, with all of PyTorch's threads; else the cores are shared out, and
    since more threads add in another order, weights differ in their last bits from those of another number of jobs.
    Every process holds the clips in memory, where they fit. Raises what `work` raises, of the first seed that fails in
    their order, what `on_epoch` raises, and PosebridgeError when a process is killed or cannot be started.
    """
    jobs = min(jobs, len(seeds))
    if jobs < 2:
        keep_freed_memory()
        return [work(seed, on_epoch) for seed in seeds]
    context = _context(getattr(work, "func", work).__module__)
    threads = max(1, len(usable_cores()) // jobs)
    with _starting(jobs):
        told = context.SimpleQueue()
        pool = ProcessPoolExecutor(jobs, context, _begin, (told, threads))
    failed: list[BaseException] = []
    listener = threading.Thread(target=_listen, args=(told, on_epoch, failed), daemon=True)
    listener.start()
    try:
        with _starting(jobs):
            futures = [pool.submit(_one, work, seed) for seed in seeds]
        results = [future.result() for future in futures]
    except BrokenProcessPool:  # the queue may be left locked, so nobody waits for the listener
        raise PosebridgeError(
            f"A process that trains a seed was killed, maybe for want of memory: each of {jobs} takes its own. Run the "
            "same command with fewer --jobs; it goes on where it was."
        ) from None
    else:
        told.put(None)
        listener.join()
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        raise failed[0]
    return results


@contextlib.contextmanager
def _starting(jobs: int) -> Iterator[None]:
    """Processes that wait for one another take semaphores, which lie in /dev/shm, and pipes, which are files."""
    try:
        yield
    except OSError as error:
        raise PosebridgeError(
            f"{jobs} processes cannot be started ({error.strerror or error}); make room in /dev/shm, let a process "
            "have more files (`ulimit -n 4096`), or give --jobs 1."
        ) from None


def _context(module: str) -> Any:
    """Processes that inherit no lock of a thread that they have not, as forks of this one would; where the system can,
    they are forks of a process that has imported `module` and does nothing else.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module, "torch._dynamo"])  # the latter is what every optimiser imports
    return context


_told: Any = None  # in a process of the pool: the queue to the one that waits


def _begin(told: Any, threads: int) -> None:
    global _told
    _told = told
    follow_parent()
    keep_freed_memory()
    torch.set_num_threads(threads)


def _one(work: Work[T], seed: int) -> T:
    return work(seed, _tell)


def _tell(what: str, progress: Progress) -> None:
    _told.put((what, progress))


def _listen(told: Any, on_epoch: OnEpoch, failed: list[BaseException]) -> None:
    """Goes on reading where `on_epoch` fails, or the seeds would wait for it for ever."""
    while (one := told.get()) is not None:
        try:
            if not failed:
                on_epoch(*one)
        except BaseException as error:
            failed.append(error)
