"""Opening plain files only: a named pipe would wait for ever, and a device is no video. Any bytes are a name."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_plain(path: Path) -> io.FileIO:
    """The file, open for reading. Raises OSError, also for what is no plain file; its `strerror` tells the reason."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # never waits
    except ValueError as error:  # no name that the system takes: a NUL in it, say
        raise OSError(None, str(error)) from None
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(None, f"it is {KINDS.get(kind, 'no plain file')}, not a file")
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
