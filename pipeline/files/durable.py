"""Writing files so that a crash leaves the old one or the new one, never a half; and what a disk's error is called."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.hashing import sha256_file

STAYS = "what is finished stays"
LONGEST_NAME = 255  # bytes of a file's name, as systems have it


@contextmanager
def writing(path: Path, stays: str = STAYS) -> Iterator[None]:
    """Turn the OSError of whatever writes `path` into a sentence. For writing only, or a reader's error is misnamed."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise PosebridgeError(
            f"Writing {path} failed ({reason}); put the disk right and run the same command again: {stays}."
        ) from None


def unreadable(path: Path, error: OSError, remedy: str) -> PosebridgeError:
    """The sentence for a file that the disk does not give us. Nobody should delete what they merely may not read."""
    if isinstance(error, PermissionError):
        remedy = "ask whoever owns it to let you read it"
    elif error.errno == errno.EMFILE:
        remedy = "let a process have more of them (`ulimit -n 4096`)"
    return PosebridgeError(f"{path} cannot be read ({error.strerror or type(error).__name__}); {remedy}.")


def temporary(path: Path) -> Path:
    """A new name to write under before the rename to `path`: `<name>.tmp-<host>-<pid>-<random>`.

    Random, since containers may share the host's name and the process number. Raises PosebridgeError for a folder, a
    device or a pipe, which the rename would replace.
    """
    if not path.name or path.absolute().parent == Path("/dev") or path.exists() and not path.is_file():
        raise PosebridgeError(f"{path} is a folder, a device or a pipe, no file; name a file, or take it away.")
    mark = f".tmp-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - len(mark)]) + mark)


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises PosebridgeError where the disk does not let us."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_durably(path: Path, content: bytes, stays: str = STAYS) -> None:
    """Write a file that is there whole or not at all, also after a power cut.

    Raises PosebridgeError, ending in what `stays`, where the disk is full, forbidden or faulty.
    """
    with writing(path, stays):
        _write(path, content)


def write_once(path: Path, content: bytes, stays: str = STAYS) -> None:
    """As `write_durably`, but a file that is there stays: of several that write it at once, the first one's counts."""
    with writing(path, stays):
        draft = temporary(path)
        try:
            draft.write_bytes(content)
            _fsync(draft)
            try:
                os.link(draft, path)
            except FileExistsError:
                return
            except OSError:  # a file system without links
                draft.replace(path)
            _fsync(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_for_people(path: Path, content: bytes) -> None:
    """As `write_durably`, with its folder; raises PosebridgeError where the disk is full or the place forbidden."""
    with _writing_for_people(path):
        _write(path, content)


@contextmanager
def draft_for_people(path: Path) -> Iterator[Path]:
    """As `draft_of`, with its folder; raises PosebridgeError where the disk is full or the place forbidden."""
    with _writing_for_people(path), draft_of(path) as draft:
        yield draft


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file to write to, which becomes `path` when all went well, and is deleted when not. Raises OSError."""
    draft = temporary(path)
    try:
        yield draft
        _fsync(draft)
        draft.replace(path)
        _fsync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _writing_for_people(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise PosebridgeError(
            f"{path} cannot be written ({error.strerror or error}); make room, or correct the place or its permissions."
        ) from None


def _write(path: Path, content: bytes) -> None:
    with draft_of(path) as draft:
        draft.write_bytes(content)
        if sha256_file(draft) != hashlib.sha256(content).hexdigest():
            raise PosebridgeError(f"{path} reads back differently from what was written; check the disk.")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
