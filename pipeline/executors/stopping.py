"""SIGTERM, by which systems and clusters end a process some seconds before they kill it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LEAVE_SECONDS = 8.0  # for a process to put its things away; a cluster gives 10 or 30 before it kills


@contextmanager
def tidy_end() -> Iterator[None]:
    """Meanwhile, SIGTERM ends this process by way of every `finally`, with the exit code 143 that shells expect: else
    nobody would delete drafts and leases. A second one disturbs nothing. Does nothing in other threads than the main
    one, where Python has no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
