"""crc32 of the parts of a shard, so that accidental damage is noticed where it is read.

A shard's sha256 is of the whole file: too much for who wants three of its datasets. So its receipt and the index keep a
checksum of every dataset, and one of all bytes between them, HDF5's own, which is compared before HDF5 reads them.
Nobody's malice is kept out by a crc32; that is what the sha256 and `cache verify` are for.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.cache.schema import Place
from pipeline.errors import PosebridgeError
from pipeline.files.durable import unreadable

Number = Annotated[int, Field(ge=0, lt=1 << 62)]
PIECE = 1 << 20  # bytes read at a time
RECENT = 2_000_000_000  # nanoseconds: a file so young may be written to once more within one tick of its clock


@dataclass(frozen=True)
class Part:
    """A dataset's place in the file and its crc32."""

    offset: Number
    bytes: Number
    crc32: Number


@dataclass(frozen=True)
class Checksums:
    """Those of one shard. `rest` is of all bytes that belong to no dataset, in their order."""

    rest: Number
    datasets: dict[str, Part]


def checksums_of(content: bytes, places: Mapping[str, Place]) -> Checksums:
    """The checksums of a shard's bytes."""
    view, rest, datasets, end = memoryview(content), 0, {}, 0
    for name, place in sorted(places.items(), key=lambda item: item[1].offset):
        rest = zlib.crc32(view[end : place.offset], rest)
        end = place.offset + place.bytes
        datasets[name] = Part(place.offset, place.bytes, zlib.crc32(view[place.offset : end]))
    return Checksums(zlib.crc32(view[end:], rest), datasets)


def settled(path: Path, status: os.stat_result) -> tuple | None:
    """What tells that a file is as it was: path, inode, size and two times. None for one that is too young to tell."""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - newest <= RECENT:
        return None
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


# What this process has found sound: a file -> names of its datasets, "" for the rest.
_sound: dict[tuple, set[str]] = {}


class Checker:
    """Compares a shard with its checksums, each part once per process while the file stays as it is.

    Raises PosebridgeError, ending in `remedy`, at a part that is damaged or cannot be read.
    """

    def __init__(self, path: Path, checksums: Checksums, remedy: str):
        self._path, self._checksums, self._remedy = path, checksums, remedy
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(self._path, error, self._remedy) from None
        self._size = status.st_size
        self._done = _sound.setdefault(key, set()) if (key := settled(path, status)) else set()

    def check_rest(self) -> None:
        """The bytes between the datasets."""
        if "" in self._done:
            return
        gaps, end = [], 0
        for part in sorted(self._checksums.datasets.values(), key=lambda part: part.offset):
            if part.offset < end:
                raise self._damaged("its datasets overlap")
            gaps.append((end, part.offset - end))
            end = part.offset + part.bytes
        if end > self._size:
            raise self._damaged("its datasets reach beyond its end")
        if self._crc32([*gaps, (end, self._size - end)]) != self._checksums.rest:
            raise self._damaged("the checksum of its HDF5 structure does not fit")
        self._done.add("")

    def check(self, name: str) -> None:
        """The dataset of this name."""
        if name not in self._done:
            part = self._checksums.datasets[name]
            if self._crc32([(part.offset, part.bytes)]) != part.crc32:
                raise self._damaged(f"the checksum of {name!r} does not fit")
            self._done.add(name)

    def _crc32(self, spans: Iterable[tuple[int, int]]) -> int:
        """Read plainly: an unreadable sector is an OSError then, while under a memory map it kills the process."""
        found, buffer = 0, memoryview(bytearray(PIECE))
        try:
            with self._path.open("rb", buffering=0) as file:
                for offset, size in spans:
                    file.seek(offset)
                    while size and (got := file.readinto(buffer[: min(size, PIECE)])):
                        found, size = zlib.crc32(buffer[:got], found), size - got
        except OSError as error:
            raise unreadable(self._path, error, self._remedy) from None
        return found

    def _damaged(self, reason: str) -> PosebridgeError:
        return PosebridgeError(f"{self._path} is damaged: {reason}; {self._remedy}.")
