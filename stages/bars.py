"""Progress on stderr, with the time left: a bar on a terminal; in a log file a line every ten seconds and one at the
end. Nothing is shown before the first thing is done, so that an error stands alone.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from stages.shell import before_errors

T = TypeVar("T")
LOG_SECONDS = 10.0  # from line to line of a log file
LINE = "{desc}{n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left{postfix}"


class Bar:
    """Shows how much of a work is done. `leave` keeps a terminal's bar when it is over."""

    def __init__(self, unit: str, what: str = "", leave: bool = True, scale: bool = False):
        self._unit, self._what, self._leave, self._scale = unit, what, leave, scale
        self._begun = self._told = time.monotonic()
        self._bar: tqdm | None = None
        self._last: tuple[int, int | None, str] | None = None  # what a log file has not been told yet
        before_errors.add(self.close)

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """So much of `total` (None: nobody knows) is done."""
        if not sys.stderr.isatty():
            self._last = (done, total, note)
            if time.monotonic() - self._told >= LOG_SECONDS:
                self._tell()
            return
        if self._bar is None:
            self._bar = tqdm(
                total=total, unit=self._unit, desc=self._what or None, leave=self._leave, unit_scale=self._scale
            )
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Nothing more is to come. A second time changes nothing."""
        before_errors.discard(self.close)
        if self._bar is not None:
            self._bar.close()
        if self._last is not None and self._leave:
            self._tell()

    def _tell(self) -> None:
        assert self._last is not None
        (done, total, note), self._last, self._told = self._last, None, time.monotonic()
        line = tqdm.format_meter(
            done, total, time.monotonic() - self._begun, prefix=self._what and f"{self._what}: ", unit=f"{self._unit}s",
            postfix=note, bar_format=LINE, unit_scale=self._scale,
        )  # fmt: skip
        print(line, file=sys.stderr, flush=True)


@contextmanager
def counter(
    unit: str, what: str = "", leave: bool = True, scale: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Progress of work that counts by itself; yields what is told (done, total). `scale` writes 1.2M for 1,200,000."""
    bar = Bar(unit, what, leave, scale)
    try:
        yield bar.show
    finally:
        bar.close()


def progress(iterable: Iterable[T], total: int | None, unit: str, what: str) -> Iterator[T]:
    """The same items, counted as they are asked for."""
    with counter(unit, what) as show:
        for done, item in enumerate(iterable, 1):
            yield item
            show(done, total)


@contextmanager
def epochs(what: str, seeds: int) -> Iterator[Callable[[str, Any], None]]:
    """Progress of `encode` and `train`; yields the callback that they take.

    The total is what is still to come at the most, of all seeds: the selection phase may stop early, and the final one
    has as many epochs as were chosen in it. Epochs of an earlier process that was killed do not count.
    """
    bar = Bar("epoch", what)
    seen: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)  # seed -> phase -> epochs done, epochs at the most

    def on_epoch(where: str, progress: Any) -> None:
        seed, _, phase = where.partition(", ")
        seen[seed].setdefault(phase, [0, progress.planned - progress.epoch + 1])[0] += 1
        done = sum(count for phases in seen.values() for count, _ in phases.values())
        total = 2 * progress.planned * (seeds - len(seen))
        for phases in seen.values():
            *over, (_, most) = phases.values()
            total += sum(count for count, _ in over) + most * (1 if "final" in phases else 2)
        loss = f", loss {progress.losses[-1]:.3f}" if progress.losses else ""  # a method that is solved has none
        bar.show(done, total, f"{where}, epoch {progress.epoch}{loss}")

    try:
        yield on_epoch
    finally:
        bar.close()
