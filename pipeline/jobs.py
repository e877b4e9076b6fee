"""Seeds side by side, each in a process of its own: small models leave most cores of a machine idle."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from pipeline.errors import PosebridgeError
from pipeline.training import OnEpoch, Progress

Work = Callable[[int, OnEpoch], None]  # of one seed; it can be pickled


def each_seed(work: Work, seeds: Sequence[int], jobs: int, on_epoch: OnEpoch) -> None:
    """work(seed, on_epoch) for every seed, up to `jobs` at a time.

    With `jobs` of 1 they run here, one after another, with all of PyTorch's threads; else the cores are shared out.
    Every process holds the clips in memory. Raises what `work` raises, of the first seed that fails in their order, and
    PosebridgeError when a process is killed.
    """
    if min(jobs, len(seeds)) < 2:
        for seed in seeds:
            work(seed, on_epoch)
        return
    context = multiprocessing.get_context("spawn")  # a forked process inherits locks of threads that it has not
    told = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(told, on_epoch), daemon=True)
    listener.start()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(min(jobs, len(seeds)), context, _begin, (told, threads))
    try:
        for future in [pool.submit(_one, work, seed) for seed in seeds]:
            future.result()
    except BrokenProcessPool:
        raise PosebridgeError(
            f"A process that trains a seed was killed, maybe for want of memory: each of {jobs} holds all clips. Run "
            "the same command with fewer --jobs; it goes on where it was."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        told.put(None)
        listener.join()


_told: Any = None  # in a process of the pool: the queue to the one that waits


def _begin(told: Any, threads: int) -> None:
    global _told
    _told = told
    torch.set_num_threads(threads)


def _one(work: Work, seed: int) -> None:
    work(seed, _tell)


def _tell(what: str, progress: Progress) -> None:
    _told.put((what, progress))


def _listen(told: Any, on_epoch: OnEpoch) -> None:
    while (one := told.get()) is not None:
        on_epoch(*one)
