"""Seconds that making a shard takes, in all and part by part. Reads clocks, nothing else."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """`wall` and `cpu` (of all threads of this process) since `restart`; and of each part the seconds in it, added over
    the threads that do it side by side: parts may be more than the whole.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Everything is 0 again."""
        with self._lock:
            self._parts: defaultdict[str, float] = defaultdict(float)
        self._wall, self._cpu = time.monotonic(), time.process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done inside counts for this part."""
        begun = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - begun
            with self._lock:
                self._parts[name] += spent

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; getting each of them counts for this part."""
        source, end = iter(items), object()
        while True:
            with self.part(name):
                item = next(source, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    def read(self) -> dict[str, float]:
        """The seconds so far."""
        whole = {"wall": time.monotonic() - self._wall, "cpu": time.process_time() - self._cpu}
        with self._lock:
            return {name: round(seconds, 3) for name, seconds in (whole | self._parts).items()}
