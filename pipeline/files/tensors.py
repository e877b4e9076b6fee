"""Writing weights as safetensors, with the permissions that the user's umask gives; reading them with their hash.

safetensors' own `save_file` makes files that only their owner can read, whatever the umask: no use to a lab.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> str:
    """Write `tensors` to `path` in the safetensors format, whole or not at all; returns the file's sha256.

    Raises PosebridgeError where the disk is full or the place forbidden.
    """
    content = save(dict(tensors), metadata)
    write_for_people(path, content)
    return hashlib.sha256(content).hexdigest()


def load_tensors(path: Path, sha256: object, remedy: str) -> dict[str, Tensor]:
    """The tensors of a file. Raises PosebridgeError, ending in `remedy`, for one that has not this sha256."""
    try:
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() == sha256:
            return load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
    raise PosebridgeError(f"{path} is damaged: its hash is not the one that was noted beside it; {remedy}.")
