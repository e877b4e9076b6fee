"""JSON files that carry a hash of themselves, and the drafts that killed processes leave."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import PosebridgeError
from pipeline.files.durable import unreadable

T = TypeVar("T")

SEALED_STAY = "sealed shards stay"  # what an error of writing ends in
LARGEST = 1 << 30  # bytes of a sealed file; the index of a million clips has a tenth of that
DRAFT = re.compile(r"\.tmp-(?P<host>.+?)-(?P<pid>\d{1,9})(-[0-9a-f]{8})?$")  # as `durable.temporary` names it
ABANDONED = 3600.0  # seconds that a draft lies untouched before it may be taken for one of a killed process


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no blanks, UTF-8: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """A copy with `self_sha256`: the hash of the canonical JSON of everything else."""
    body = {key: value for key, value in values.items() if key != "self_sha256"}
    return body | {"self_sha256": hashlib.sha256(canonical_json(body)).hexdigest()}


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """The content of a sealed JSON file, `self_sha256` left out.

    Raises PosebridgeError, ending in `remedy`, where it is no such file or its hash does not fit its content.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise PosebridgeError(f"{path} is missing, no plain file or larger than {LARGEST >> 20} MiB; {remedy}.")
        values = json.loads(path.read_bytes())
        sound = isinstance(values, dict) and seal(values) == values
    except OSError as error:
        raise unreadable(path, error, remedy) from None
    except (ValueError, RecursionError) as error:
        raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
    if isinstance(values, dict) and "self_sha256" not in values:
        raise PosebridgeError(f"{path} has no hash of itself: it is damaged or of an older version; {remedy}.")
    if not sound:
        raise PosebridgeError(f"{path} is damaged: its hash does not fit its content; {remedy}.")
    del values["self_sha256"]
    return values


def typed(adapter: TypeAdapter[T], values: Any, path: Path, remedy: str) -> T:
    """Values out of JSON as the type that they should have: of a sealed file too, since anybody can seal one.

    Raises PosebridgeError naming the first value that does not fit, and ending in `remedy`.
    """
    try:
        return adapter.validate_json(canonical_json(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200] or "it"
        raise PosebridgeError(f"{path} is not as it should be: {where}: {first['msg']}; {remedy}.") from None


def remove_abandoned(folder: Path) -> None:
    """Delete the drafts that killed processes of this host left in a folder more than an hour ago. Raises OSError.

    Another container may have this host's name and processes that are not to be seen here; but no draft lies for so
    long without being written to: a shard is put together in memory, and a download comes faster.
    """
    for draft in folder.glob("*.tmp-*"):
        match = DRAFT.search(draft.name)
        if match and match["host"] == socket.gethostname() and is_abandoned(draft, ABANDONED):
            draft.unlink(missing_ok=True)


def is_abandoned(draft: Path, age: float) -> bool:
    """Whether nobody has written to a draft for `age` seconds, and its process, if of this host, runs no more."""
    match = DRAFT.search(draft.name)
    if match and match["host"] == socket.gethostname() and is_running(int(match["pid"])):
        return False
    try:
        return time.time() - draft.stat().st_mtime > age
    except OSError:
        return False  # renamed or deleted by now


def is_running(pid: int) -> bool:
    """Whether a process of this host is alive; one that is dead, and that nobody has waited for, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:  # gone in this moment, or no Linux
        return True
    return state != [b"Z"]
