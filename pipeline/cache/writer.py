"""Writing one shard: clip by clip into a draft, read back, sealed by a rename to a name that tells its content.

The order of the clips in the file is given beforehand, so the bytes of a shard do not depend on which of its clips
were estimated now and which were copied from a predecessor.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.cache.schema import SCHEMA, Column, locate
from pipeline.durable import rename_durably, temporary
from pipeline.errors import PosebridgeError
from pipeline.video.identity import sha256_file


class ShardWriter:
    """A draft of one shard. Use as a context manager: an unsealed draft is deleted.

    Args:
        stem: the path of the shard without `-<sha12>.h5`.
        clip_ids: the clips that may come, in the order of the file; those that do not come leave no gap.
        columns: from `schema.columns`, with the widths of the text columns.
        attributes: text attributes of the file's root.
    """

    def __init__(self, stem: Path, columns: tuple[Column, ...], clip_ids: Sequence[str], attributes: Mapping[str, str]):
        self._stem, self._columns, self._attributes = stem, columns, dict(attributes)
        self._place = {clip_id: place for place, clip_id in enumerate(clip_ids)}
        self._draft = temporary(stem.with_name(stem.name + ".h5"))
        self._trimmed = temporary(stem.with_name(stem.name + ".trimmed.h5"))
        self._file = self._create(self._draft, len(clip_ids))
        self._checksums: dict[int, int] = {}  # place -> crc32 of the row

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._draft.unlink(missing_ok=True)
        self._trimmed.unlink(missing_ok=True)

    @property
    def clip_ids(self) -> list[str]:
        """The clips written so far, in the order of the file."""
        return [clip_id for clip_id, place in self._place.items() if place in self._checksums]

    def write(self, clip_id: str, row: Mapping[str, Any]) -> None:
        """Write one clip: a value for every column, of its shape; text as str."""
        place = self._place[clip_id]
        checksum = 0
        for column in self._columns:
            value, dataset = row[column.name], self._file[column.name]
            array = np.array(value.encode() if isinstance(value, str) else value).astype(dataset.dtype)
            if array.shape != column.shape:
                raise ValueError(f"{column.name} has the shape {array.shape}, not {column.shape}")
            dataset[place] = array
            checksum = zlib.crc32(array.tobytes(), checksum)
        self._checksums[place] = checksum

    def seal(self) -> tuple[Path, str]:
        """Read the draft back, flush it to the disk and rename it; returns (path, sha256 of the file)."""
        self._file.close()
        draft = self._draft
        if len(self._checksums) < len(self._place):
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
            is_text = column.dtype.kind == "S"
            dtype = h5py.string_dtype("utf-8", column.dtype.itemsize) if is_text else column.dtype
            dataset = file.create_dataset(column.name, (rows, *column.shape), dtype, fill_time="never")
            dataset.attrs["axes"] = " ".join(("clip", *column.axes))
            dataset.attrs["unit"] = column.unit
        return file

    def _trim(self) -> Path:
        """A contiguous dataset cannot shrink: where clips failed, copy the used rows to a file of the right size."""
        used = sorted(self._checksums)
        with h5py.File(self._draft, "r") as source, self._create(self._trimmed, len(used)) as target:
            for column in self._columns:
                for row, place in enumerate(used):
                    target[column.name][row] = source[column.name][place]
        return self._trimmed

    def _read_back(self, path: Path) -> None:
        places = locate(path, self._columns, "the disk may be faulty")
        buffer = np.memmap(path, np.uint8, "r")
        for row, (_, checksum) in enumerate(sorted(self._checksums.items())):
            found = 0
            for column in self._columns:
                start = places[column.name].offset + row * column.row_bytes
                found = zlib.crc32(buffer[start : start + column.row_bytes].tobytes(), found)
            if found != checksum:
                raise PosebridgeError(f"{path} reads back differently from what was written; check the disk.")
