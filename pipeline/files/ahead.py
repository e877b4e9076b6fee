"""Work a bounded number of items ahead, in a thread: frames are decoded while the pose model is busy, clips are read
while a batch is trained on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order; at most `depth` of them wait. An error of `items` is raised here.

    Leaving the loop early stops the thread.
    """
    ready: queue.Queue[tuple[str, T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def put(kind: str, item: T | None = None, error: BaseException | None = None) -> bool:
        while not left.is_set():
            try:
                ready.put((kind, item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end")
        except BaseException as error:
            put("error", error=error)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item, error = ready.get()
            if kind == "end":
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        left.set()
        thread.join()
