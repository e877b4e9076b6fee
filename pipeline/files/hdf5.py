"""HDF5 files made in memory, for whoever writes them to the disk as plain bytes.

HDF5 cannot be trusted with a disk that fills up: it raises errors of its own while it closes, or crashes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py


def hdf5_bytes(fill: Callable[[h5py.File], None], **options: Any) -> bytes:
    """The bytes of a new HDF5 file that `fill` has filled. `options` are h5py's for a file."""
    with h5py.File("memory", "w", driver="core", backing_store=False, **options) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()
