"""Writing files so that a crash leaves the old one or the new one, never a half."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pipeline.errors import PosebridgeError


def temporary(path: Path) -> Path:
    """Where this process writes before it renames to `path`: `<name>.tmp-<host>-<pid>`."""
    return path.with_name(f"{path.name}.tmp-{socket.gethostname()}-{os.getpid()}")


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a power cut."""
    draft = temporary(path)
    try:
        draft.write_bytes(content)
        rename_durably(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_for_people(path: Path, content: bytes) -> None:
    """As `write_durably`, with its folder; raises PosebridgeError where the disk is full or the place forbidden."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    except OSError as error:
        raise PosebridgeError(
            f"{path} cannot be written ({error.strerror or error}); make room, or correct the place or its permissions."
        ) from None


def rename_durably(draft: Path, path: Path) -> None:
    """Flush the draft to the disk, rename it, flush the folder."""
    _fsync(draft)
    draft.replace(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
