"""Writing weights as safetensors, with the permissions that the user's umask gives.

safetensors' own `save_file` makes files that only their owner can read, whatever the umask: no use to a lab.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `tensors` to `path` in the safetensors format; the folder must exist."""
    path.write_bytes(save(dict(tensors), metadata))
