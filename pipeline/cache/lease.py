"""Leases: who makes a shard now. Any number of workers on any machines may join, leave and be killed.

`shard-00017.lease` is made exclusively by the worker that takes the shard, changes every few seconds while it works,
and is deleted when it is done. One that has not changed for a minute is of a dead worker, and is taken over: by the
clock of the one who watches it, since those of machines differ. No lock is used and no modification time is read, so
leases work on NFS. Receipts stay the commit point: a lease that is lost or doubled costs time, and no byte of a shard.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache.provenance import versions
from pipeline.cache.sealed import SEALED_STAY, is_running
from pipeline.errors import PosebridgeError
from pipeline.files.durable import temporary, writing

RENEWED, EXPIRES = 5.0, 60.0  # seconds
POLL = 0.5  # from one look at the leases of others to the next
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of a file system that has none
LARGEST = 4096  # bytes that are read of a lease


class LeaseLost(Exception):
    """Somebody has taken the lease over: this process was stopped for longer than a lease lasts."""


class Lease:
    """The right to make one shard: a context manager in which one may `take` it, and which gives it back.

    `told` is a pair of numbers that others can read of it, clips done and to do.
    """

    told = (0, 0)

    def __init__(self, path: Path):
        self.path, self._handle, self._beats = path, -1, 0
        values = {
            "machine": this_machine(),
            "pid": os.getpid(),
            "token": secrets.token_hex(8),
            "version": versions().get("posebridge", ""),
        }
        self._content = json.dumps(values).encode()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        return self

    def take(self) -> bool:
        """Whether it is ours now, since nobody had it, or one who is dead. Raises PosebridgeError where the disk does
        not take it.
        """
        if not self._make():
            _clear_of_dead(self.path)
            self._make()
        if self._handle >= 0:
            self._thread.start()
        return self._handle >= 0

    def __exit__(self, *exception: object) -> None:
        try:
            self._give_back()
        except BaseException:  # a signal that came in this very moment
            self._give_back()
            raise

    def check(self) -> None:
        """Raises LeaseLost where it is no longer ours."""
        if not self._is_ours():
            raise LeaseLost

    def _is_ours(self) -> bool:
        return (_read(self.path) or b"").startswith(self._content)

    def _make(self) -> bool:
        """Link a file that is written already to the place: whoever is killed leaves a whole lease there, or none."""
        if _read(self.path) is not None:
            return False
        draft = temporary(self.path)
        with writing(self.path, SEALED_STAY):
            try:
                self._open(draft)
                os.link(draft, self.path)
            except FileExistsError:
                if not self._is_ours():  # it may be: NFS repeats what it got no answer to
                    self._close()
            except OSError as error:
                self._close()
                if error.errno not in NO_LINKS:
                    raise
                with suppress(FileExistsError):
                    self._open(self.path)
            finally:
                draft.unlink(missing_ok=True)
        return self._handle >= 0

    def _open(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(self._handle, self._content)
        os.fsync(self._handle)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _give_back(self) -> None:
        if self._handle >= 0 and self._is_ours():
            self.path.unlink(missing_ok=True)
        self._left.set()
        if self._thread.is_alive():
            self._thread.join()
        self._close()

    def _renew(self) -> None:
        """Through the open file, so that a worker which wakes up late never touches the lease of another."""
        while not self._left.wait(RENEWED):
            self._beats += 1
            tail = "\n{} {} {}".format(self._beats, *self.told).ljust(64)
            with suppress(OSError):  # of a full disk, say; in the worst case another makes the shard too
                os.pwrite(self._handle, tail.encode(), len(self._content))
                os.fsync(self._handle)


@dataclass(frozen=True)
class Holder:
    """What a lease tells of the one who has it. `done` and `todo` count the clips of the shard."""

    machine: str = ""
    pid: int = 0
    version: str = ""
    done: int = 0
    todo: int = 0

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that runs no more. Of other machines nobody knows: False."""
        return self.machine == this_machine() and not is_running(self.pid)


def holder(path: Path) -> Holder:
    """Who has a lease; nobody we know where there is none or it is not written yet."""
    head, _, tail = (_read(path) or b"").partition(b"\n")
    try:
        values: Any = json.loads(head)
        _, done, todo = map(int, tail.split() or (0, 0, 0))
        return Holder(str(values["machine"]), int(values["pid"]), str(values["version"]), done, todo)
    except (ValueError, TypeError, KeyError, RecursionError):
        return Holder()


def is_taken(path: Path) -> bool:
    """Whether there is a lease whose holder is not known to be dead; it may still expire."""
    return _read(path) is not None and not holder(path).is_dead


def clear(path: Path, seen: bytes | None) -> None:
    """Take away a lease that is still as it was `seen`.

    Renamed first: of two that clear it, one finds it gone. What was renamed by mistake, since another has cleared and
    taken it in this very moment, is put back.
    """
    aside = temporary(path)
    if _read(path) != seen:
        return
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != seen:
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def clear_dead(folder: Path) -> None:
    """Take away the leases in a folder whose holders were processes of this machine and run no more, where we may."""
    for path in folder.glob("*.lease"):
        with suppress(OSError, PosebridgeError):
            _clear_of_dead(path)


def _clear_of_dead(path: Path) -> None:
    """Take away a lease whose holder is dead. What is taken away is what was there before the holder was looked at:
    another may take it over in between.
    """
    seen = _read(path)
    if holder(path).is_dead:
        clear(path, seen)


class Watch:
    """What one process has seen of the leases of others, by its own clock in seconds."""

    def __init__(self, expires: float = EXPIRES, clock: Callable[[], float] = time.monotonic):
        self._expires, self._clock = expires, clock
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def is_free(self, path: Path) -> bool:
        """Whether nobody has the lease now. One that has not changed for `expires` seconds, or whose holder is dead, is
        cleared first.
        """
        content, now = _read(path), self._clock()
        if content is None:
            self._seen.pop(path, None)
            return True
        before, since = self._seen.get(path, (None, now))
        if content != before:
            since = now
        self._seen[path] = (content, since)
        if now - since < self._expires and not holder(path).is_dead:
            return False
        clear(path, content)
        return _read(path) is None


def this_machine() -> str:
    """A name of this machine, or of this container, within which process numbers are the same."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _read(path: Path) -> bytes | None:
    """The file as it is now, since NFS asks its server when a file is opened; None where it is gone."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise PosebridgeError(f"{path} cannot be read ({error.strerror}); put the disk right.") from None
