"""Work a bounded number of items ahead, in threads: frames are decoded while the pose model is busy, clips are read
while a batch is trained on.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order; at most `depth` of them wait. An error of `items` is raised here.

    Leaving the loop early stops the thread.
    """
    return ahead_of_each([items], 1, depth)


def ahead_of_each(sources: Iterable[Iterable[T]], workers: int, depth: int) -> Iterator[T]:
    """The items of all sources, one source after the other; `workers` of them are worked through at a time.

    At most `depth` items of each of these wait. An error is raised in its place. Leaving the loop early stops the
    threads.
    """
    coming = iter(sources)
    running: deque[_Ahead[T]] = deque()
    try:
        while True:
            while len(running) < workers and (source := next(coming, None)) is not None:
                running.append(_Ahead(source, depth))
            if not running:
                return
            yield from running[0].items()
            running.popleft().stop()
    finally:
        for each in running:
            each.left.set()
        for each in running:
            each.stop()


class _Ahead(Generic[T]):
    """One source and the thread that works through it."""

    def __init__(self, source: Iterable[T], depth: int):
        self.left = threading.Event()
        self._ready: queue.Queue[tuple[str, T | None, BaseException | None]] = queue.Queue(maxsize=depth)
        self._thread = threading.Thread(target=self._work, args=(source,), name="ahead", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[T]:
        while True:
            kind, item, error = self._ready.get()
            if kind == "end":
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    def stop(self) -> None:
        self.left.set()
        self._thread.join()

    def _work(self, source: Iterable[T]) -> None:
        try:
            for item in source:
                if not self._put("item", item):
                    return
            self._put("end")
        except BaseException as error:
            self._put("error", error=error)
        finally:
            if isinstance(source, Generator):
                source.close()  # here, since no other thread may: its files, and threads that it waits for

    def _put(self, kind: str, item: T | None = None, error: BaseException | None = None) -> bool:
        while not self.left.is_set():
            try:
                self._ready.put((kind, item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
