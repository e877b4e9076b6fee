"""Writing one shard: clip by clip into memory, then at once to a file whose name tells its content.

The file is made in memory too (files/hdf5.py says why), and a full disk is an OSError like any other. So a run needs
twice the bytes of a shard in memory: 0.2 GB for 256 clips of two persons with the cues of `levels`.

The order of the clips in the file is given beforehand, so the bytes of a shard do not depend on which of its clips
were estimated now and which were copied from a predecessor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.cache.checksums import Checksums, checksums_of
from pipeline.cache.schema import SCHEMA, Column, Place
from pipeline.cache.sealed import SEALED_STAY
from pipeline.files.durable import write_durably
from pipeline.files.hdf5 import hdf5_bytes


class ShardWriter:
    """One shard in memory until it is sealed. Use as a context manager.

    Args:
        stem: the path of the shard without `-<sha12>.h5`.
        clip_ids: the clips that may come, in the order of the file; those that do not come leave no gap.
        columns: from `schema.columns`, with the widths of the text columns.
        attributes: text attributes of the file's root.

    `checksums` and `size` in bytes are those of the file once it is sealed.
    """

    checksums: Checksums
    size: int

    def __init__(self, stem: Path, columns: tuple[Column, ...], clip_ids: Sequence[str], attributes: Mapping[str, str]):
        self._stem, self._columns, self._attributes = stem, columns, dict(attributes)
        self._place = {clip_id: place for place, clip_id in enumerate(clip_ids)}
        self._arrays = {column.name: np.zeros((len(clip_ids), *column.shape), column.dtype) for column in columns}
        self._written: set[int] = set()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrays.clear()

    @property
    def clip_ids(self) -> list[str]:
        """The clips written so far, in the order of the file."""
        return [clip_id for clip_id, place in self._place.items() if place in self._written]

    def write(self, clip_id: str, row: Mapping[str, Any]) -> None:
        """Take one clip: a value for every column, of its shape; text as str."""
        place = self._place[clip_id]
        for column in self._columns:
            value = row[column.name]
            array = np.asarray(value.encode() if isinstance(value, str) else value).astype(column.dtype)
            if array.shape != column.shape:
                raise ValueError(f"{column.name} has the shape {array.shape}, not {column.shape}")
            self._arrays[column.name][place] = array
        self._written.add(place)

    def seal(self) -> tuple[Path, str]:
        """Write the file under its name; returns (path, sha256 of the file).

        Raises PosebridgeError where the disk does not take it, or reads it back differently.
        """
        content, places = self._image(sorted(self._written))
        sha256 = hashlib.sha256(content).hexdigest()
        self.checksums, self.size = checksums_of(content, places), len(content)
        path = self._stem.with_name(f"{self._stem.name}-{sha256[:12]}.h5")
        write_durably(path, content, SEALED_STAY)
        return path, sha256

    def _image(self, rows: list[int]) -> tuple[bytes, dict[str, Place]]:
        """The file's bytes, with these rows only, and where its datasets lie. Lets go of the arrays."""
        places: dict[str, Place] = {}

        def fill(file: h5py.File) -> None:
            file.attrs["schema"] = SCHEMA
            for name, text in sorted(self._attributes.items()):
                file.attrs[name] = text
            for column in self._columns:
                array = self._arrays.pop(column.name)
                if len(rows) < len(array):
                    array = array[rows]
                is_text = column.dtype.kind == "S"
                dtype = h5py.string_dtype("utf-8", column.dtype.itemsize) if is_text else column.dtype
                dataset = file.create_dataset(column.name, array.shape, dtype, fill_time="never")
                dataset.attrs["axes"] = " ".join(("clip", *column.axes))
                dataset.attrs["unit"] = column.unit
                dataset[...] = array.astype(dataset.dtype) if is_text else array
                places[column.name] = Place(dataset.id.get_offset(), dataset.dtype, dataset.shape)

        return hdf5_bytes(fill, libver="v110"), places
