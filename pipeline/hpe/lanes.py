"""On a CPU several portions of a batch go through a pose model at a time, each in its own thread.

Threads within a step of a network wait for one another, and for the core that a decoder or the detector has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

MOST_LANES = 4  # portions at a time: a usual batch has no more that are worth it, and what threads are left share them

T = TypeVar("T")


class Lanes:
    """`count` of them, with `threads` threads each where all are busy: together torch's number of them, as this thread
    has it now. One on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._threads = torch.get_num_threads()
        self.count = min(self._threads, MOST_LANES) if device.type == "cpu" else 1
        self.threads = self._threads // self.count
        self.at_once = 2 if self.count > 1 else 1  # batches: the next has the lanes that the end of one leaves idle
        self._pool = ThreadPoolExecutor(self.count, "pose") if self.count > 1 else None

    @staticmethod
    def portions(count: int, step: int | None) -> list[slice]:
        """Those of `step` of so many crops; one of all without it. They do not depend on how many lanes there are:
        products of other sizes have other last bits, and what is in the cache may not depend on threads.
        """
        step = step or max(1, count)
        return [slice(begin, begin + step) for begin in range(0, max(1, count), step)]

    def run(self, work: Callable[[slice], T], portions: Sequence[slice]) -> list[T]:
        """What `work` answers for each portion, in their order."""
        if self._pool is None or len(portions) == 1:
            return [work(portion) for portion in portions]
        threads = self._threads // min(self.count, len(portions))
        try:
            return list(self._pool.map(partial(_work, work, threads), portions))
        finally:
            torch.set_num_threads(self._threads)  # threads that begin later have the number that was set last


@contextmanager
def threads_for(count: int) -> Iterator[None]:
    """Within, one thread where a product has one row only, of so many: by several it has other last bits."""
    threads = torch.get_num_threads()
    if count == 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work(work: Callable[[slice], T], threads: int, portion: slice) -> T:
    torch.set_num_threads(threads)  # of this thread
    return work(portion)
