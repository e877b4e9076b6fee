"""sha256 of files and of values, as hex digits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.files.plain_file import open_plain


def sha256_file(path: Path) -> str:
    """sha256 of a whole file, 64 hex digits. Raises OSError, also for what is no plain file."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Any) -> str:
    """sha256 of values as canonical JSON, 64 hex digits: what a saved state is checked against."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
