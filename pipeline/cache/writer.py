"""Writing one shard: clip by clip into a draft, read back, sealed by a rename to a name that tells its content."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from pipeline.cache.schema import SCHEMA, Column, locate
from pipeline.cache.sealed import rename_durably, temporary
from pipeline.errors import PosebridgeError
from pipeline.video.identity import sha256_file

COPIED_AT_ONCE = 64  # clips, when a shard with failures is written anew without the unused rows


class ShardWriter:
    """A draft of one shard with room for `capacity` clips. Use as a context manager: an unsealed draft is deleted.

    Args:
        stem: the path of the shard without `-<sha12>.h5`.
        columns: from `schema.columns`, with the widths of the text columns.
        attributes: text attributes of the file's root.
    """

    def __init__(self, stem: Path, columns: tuple[Column, ...], capacity: int, attributes: Mapping[str, str]):
        self._stem, self._columns, self._attributes = stem, columns, dict(attributes)
        self._capacity = capacity
        self._draft = temporary(stem.with_name(stem.name + ".h5"))
        self._trimmed = temporary(stem.with_name(stem.name + ".trimmed.h5"))
        self._file = self._create(self._draft, capacity)
        self._checksums: list[int] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)
        self._trimmed.unlink(missing_ok=True)

    @property
    def rows(self) -> int:
        """The number of clips written so far."""
        return len(self._checksums)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one clip: a value for every column, of its shape; text as str."""
        checksum = 0
        for column in self._columns:
            value = row[column.name]
            array = np.array(value.encode() if isinstance(value, str) else value).astype(column.dtype)
            if array.shape != column.shape:
                raise ValueError(f"{column.name} has the shape {array.shape}, not {column.shape}")
            self._file[column.name][self.rows] = array
            checksum = zlib.crc32(array.tobytes(), checksum)
        self._checksums.append(checksum)

    def seal(self) -> tuple[Path, str]:
        """Read the draft back, flush it to the disk and rename it; returns (path, sha256 of the file)."""
        self._file.close()
        draft = self._draft
        if self.rows < self._capacity:
            draft = self._trim()
        self._read_back(draft)
        sha256 = sha256_file(draft)
        path = self._stem.with_name(f"{self._stem.name}-{sha256[:12]}.h5")
        rename_durably(draft, path)
        return path, sha256

    def _create(self, path: Path, rows: int) -> h5py.File:
        file = h5py.File(path, "w", libver="v110")
        file.attrs["schema"] = SCHEMA
        for name, text in sorted(self._attributes.items()):
            file.attrs[name] = text
        for column in self._columns:
            text = column.dtype.kind == "S"
            dtype = h5py.string_dtype("utf-8", column.dtype.itemsize) if text else column.dtype
            dataset = file.create_dataset(column.name, (rows, *column.shape), dtype, fill_time="never")
            dataset.attrs["axes"] = " ".join(("clip", *column.axes))
            dataset.attrs["unit"] = column.unit
        return file

    def _trim(self) -> Path:
        """A contiguous dataset cannot shrink: where clips failed, copy the used rows to a file of the right size."""
        with h5py.File(self._draft, "r") as source, self._create(self._trimmed, self.rows) as target:
            for column in self._columns:
                for first in range(0, self.rows, COPIED_AT_ONCE):
                    rows = slice(first, min(first + COPIED_AT_ONCE, self.rows))
                    target[column.name][rows] = source[column.name][rows]
        return self._trimmed

    def _read_back(self, path: Path) -> None:
        places = locate(path, self._columns, "the disk may be faulty")
        buffer = np.memmap(path, np.uint8, "r")
        for row, checksum in enumerate(self._checksums):
            found = 0
            for column in self._columns:
                start = places[column.name].offset + row * column.row_bytes
                found = zlib.crc32(buffer[start : start + column.row_bytes].tobytes(), found)
            if found != checksum:
                raise PosebridgeError(f"{path} reads back differently from what was written; check the disk.")
