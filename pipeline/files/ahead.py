"""Work a bounded number of items ahead, in threads: frames are decoded while the pose model is busy, clips are read
while a batch is trained on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

LEAVE_SECONDS = 5  # for which the end of what a thread is in the midst of is waited for; it ends by itself after that

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order; at most `depth` of them wait. An error of `items` is raised here.

    Leaving the loop early stops the thread.
    """
    return ahead_of_each([items], 1, depth)


def ahead_of_each(sources: Iterable[Iterable[T]], workers: int, depth: int) -> Iterator[T]:
    """The items of all sources, one source after the other; `workers` of them are worked through at a time.

    At most `depth` items of each source wait, and `workers` times as many of all. An error is raised in its place.
    Leaving the loop early stops the threads; one that is long at an item ends after it, and is not waited for.
    """
    lines = _Lines(sources, workers, depth)
    try:
        yield from lines.items()
    finally:
        lines.stop()


class _Line(Generic[T]):
    """What of one source waits."""

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.ended = False
        self.error: BaseException | None = None  # comes after what waits


class _Lines(Generic[T]):
    """The sources that were begun, each with its line, and the threads that work through them."""

    def __init__(self, sources: Iterable[Iterable[T]], workers: int, depth: int):
        self._coming, self._depth, self._room = iter(sources), depth, workers * depth
        self._lines: deque[_Line[T]] = deque()
        self._over = self._left = False  # there are no more sources; nobody asks for their items
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name="ahead", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def items(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready() or (self._over and not self._lines))
                if not self._lines:
                    return
                line = self._lines[0]
                if not line.waiting:
                    if line.error is not None:
                        raise line.error
                    self._lines.popleft()
                    self._changed.notify_all()
                    continue
                item = line.waiting.popleft()
                self._changed.notify_all()
            yield item

    def stop(self) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(LEAVE_SECONDS)

    def _ready(self) -> bool:
        """The first line has something to say."""
        return bool(self._lines) and (bool(self._lines[0].waiting) or self._lines[0].ended)

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            source, line = begun
            error = None
            try:
                for item in source:
                    if not self._put(line, item):
                        break
                if isinstance(source, Generator):
                    source.close()  # here, since no other thread may: its files, and threads that it waits for
            except BaseException as raised:
                error = raised
            self._end(line, error)

    def _begin(self) -> tuple[Iterable[T], _Line[T]] | None:
        """The next source and its line, once there is room for an item of it; None where there is none."""
        line: _Line[T] = _Line()
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._over or self._taken() < self._room)
            if self._left or self._over:
                return None
            try:
                source = next(self._coming, None)
            except BaseException as error:
                source, line.error, line.ended = None, error, True
                self._lines.append(line)
            if source is not None:
                self._lines.append(line)
                return source, line
            self._over = True
            self._changed.notify_all()
            return None

    def _put(self, line: _Line[T], item: T) -> bool:
        """Have an item wait, once there is room; False where nobody asks for it. Each line has room for one, and so the
        first one, which all others wait for.
        """

        def room() -> bool:
            if not line.waiting:  # its place was kept
                return True
            return len(line.waiting) < self._depth and self._taken() < self._room

        with self._changed:
            self._changed.wait_for(lambda: self._left or room())
            if not self._left:
                line.waiting.append(item)
                self._changed.notify_all()
            return not self._left

    def _end(self, line: _Line[T], error: BaseException | None) -> None:
        with self._changed:
            line.error, line.ended = error, True
            self._changed.notify_all()

    def _taken(self) -> int:
        """Places for items that wait, or may: each line has one."""
        return sum(max(1, len(line.waiting)) for line in self._lines)
