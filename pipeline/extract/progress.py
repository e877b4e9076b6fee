"""One count of clips over all workers, whatever processes and machines they are on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from pipeline.cache.lease import RENEWED, holder
from pipeline.cache.store import Store
from pipeline.errors import PosebridgeError


class Tally:
    """Clips done and clips to do of shards, as their makers tell; `progress` is told both, never twice the same.

    `todo` is how many clips of each shard are to be estimated, as the plan has it; other shards do not count. A shard's
    maker knows better: it may have been sealed meanwhile.
    """

    def __init__(self, todo: Mapping[int, int], progress: Callable[[int, int], None]):
        self._ahead, self._progress = dict(todo), progress  # shards that nobody has told of
        self._clips_ahead = sum(todo.values())
        self._begun: dict[int, tuple[int, int]] = {}
        self._open = set(todo)  # shards that are not over
        self._finished, self._shown = 0, (0, 0)
        self._lock = threading.Lock()

    def told(self, shard: int, done: int, todo: int) -> None:
        """So many clips of a shard that is being made are done."""
        with self._lock:
            if shard in self._open:
                self._clips_ahead -= self._ahead.pop(shard, 0)
                self._begun[shard] = (done, todo)
                self._show()

    def ended(self, shard: int, estimated: int) -> None:
        """A shard is over, with so many clips estimated."""
        with self._lock:
            self._open.discard(shard)
            self._clips_ahead -= self._ahead.pop(shard, 0)
            self._begun.pop(shard, None)
            self._finished += estimated
            self._show()

    def _show(self) -> None:
        begun = self._begun.values()
        done = self._finished + sum(done for done, _ in begun)
        total = self._finished + sum(todo for _, todo in begun) + self._clips_ahead
        if done and (done, total) != self._shown:
            self._shown = (done, total)
            self._progress(done, total)


@contextmanager
def listening(tally: Tally, store: Store, seconds: float = RENEWED) -> Iterator[None]:
    """Meanwhile, tell the tally what the leases of a store tell of clips done: those of other processes."""
    left = threading.Event()

    def listen() -> None:
        while not left.wait(seconds):
            for path in store.folder.glob("shard-*.lease"):
                with suppress(PosebridgeError):  # it is asked again
                    if (found := holder(path)).todo:
                        tally.told(int(path.stem[6:]), found.done, found.todo)

    thread = threading.Thread(target=listen, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
