"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

Times = np.ndarray  # [2]: wall seconds, and CPU seconds over all threads of this process
NO_TIME = np.zeros(2)


def seconds_of(work: Callable[[], object]) -> float:
    """Of wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def times_of(work: Callable[[], object]) -> Times:
    """Wall and CPU time of something."""
    begun = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - begun
