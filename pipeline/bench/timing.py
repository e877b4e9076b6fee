"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object]) -> float:
    """Of wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
