"""JSON files that carry a hash of themselves, and the drafts that killed processes leave."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no blanks, UTF-8: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """A copy with `self_sha256`: the hash of the canonical JSON of everything else."""
    body = {key: value for key, value in values.items() if key != "self_sha256"}
    return body | {"self_sha256": hashlib.sha256(canonical_json(body)).hexdigest()}


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read a sealed JSON file. Raises PosebridgeError, ending in `remedy`, where its hash does not fit its content."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
    if not isinstance(values, dict) or seal(values) != values:
        raise PosebridgeError(f"{path} is damaged: its hash does not fit its content; {remedy}.")
    return values


def remove_abandoned(folder: Path) -> None:
    """Delete the drafts that killed processes of this host left in a folder."""
    for draft in folder.glob(f"*.tmp-{socket.gethostname()}-*"):
        pid = draft.name.rpartition("-")[2]
        if pid.isdigit() and not is_running(int(pid)):
            draft.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process of this host is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
