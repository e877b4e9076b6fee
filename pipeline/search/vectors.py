"""The vectors of one extraction's clips on the disk, in the order of its shards: they grow by whole shards.

Writes <folder>/{vectors-*.f16, clips-*.json, ivfpq-*.faiss} and search.json, a sealed receipt of them. What the receipt
does not name does not exist: whoever is killed goes on from the last shard that it names. One process writes at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.cache.sealed import canonical_json, read_sealed, seal, typed
from pipeline.cache.store import CLOSED, Sha256
from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_durably, writing
from pipeline.files.hashing import sha256_file
from pipeline.files.names import is_file

SCHEMA = 1
Count = Annotated[int, Field(ge=0)]
File = Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]+\.[a-z0-9]+$")]


@dataclass(frozen=True)
class Shard:
    """Where a shard's clips lie: `count` rows from `row` on, and `size` bytes of the list of clips from `place` on.
    `crc` is the crc32 of both; None in a receipt that is older than this.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    key: Sha256
    row: Count
    count: Count
    place: Count
    size: Count
    crc: Count | None = None


@dataclass(frozen=True)
class Receipt:
    """What lies there. `model` is a hash of whatever embeds, `source` that of the extraction's index file, empty while
    shards of it are still to come; `indexed` of the rows are in the FAISS file, whose lists were trained on `trained`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    model: Sha256
    width: Annotated[int, Field(ge=1, le=1 << 20)]
    generation: Count = 0
    source: Sha256 = ""
    shards: list[Shard] = field(default_factory=list)
    index: str = ""
    index_sha256: Sha256 = ""
    trained: Count = 0
    indexed: Count = 0
    schema: int = SCHEMA

    @property
    def clips(self) -> int:
        """How many rows there are."""
        return self.shards[-1].row + self.shards[-1].count if self.shards else 0

    @property
    def listed(self) -> int:
        """Bytes of the list of clips."""
        return self.shards[-1].place + self.shards[-1].size if self.shards else 0


RECEIPT = TypeAdapter(Receipt)
Entry = tuple[str, str, float | None, float | None]  # clip_id, path, start, end in seconds


class Vectors:
    """Of one folder. Raises PosebridgeError for a receipt that is damaged, or files that are not as it says."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.receipt = self._read() if is_file(folder / "search.json") else None
        self._sound: set[str] = set()  # keys of shards that were compared with their checksums

    @property
    def known(self) -> Receipt:
        """The receipt, where there is one."""
        if self.receipt is None:
            raise PosebridgeError(f"{self.folder} holds no index; run `posebridge search` first.")
        return self.receipt

    def mapped(self) -> np.ndarray:
        """[N, D] float16, read-only, on the disk."""
        shape = self.known.clips, self.known.width
        return np.memmap(self._vectors, np.float16, "r", shape=shape) if shape[0] else np.empty(shape, np.float16)

    def index_file(self) -> Path | None:
        """FAISS's file, compared with its hash; None where all vectors are compared. Raises PosebridgeError."""
        if not self.known.index:
            return None
        path = self.folder / self.known.index
        if not is_file(path) or sha256_file(path) != self.known.index_sha256:
            raise PosebridgeError(f"{path} is missing or damaged; delete {self.folder} and search again.")
        return path

    def check(self) -> None:
        """Compare all shards with their checksums. Raises PosebridgeError."""
        for shard in self.known.shards:
            self._check(shard)

    def entry(self, row: int) -> Entry:
        """The clip of a row, whose shard is compared with its checksum."""
        starts = [shard.row for shard in self.known.shards]
        shard = self.known.shards[int(np.searchsorted(starts, row, side="right")) - 1]
        self._check(shard)
        with self._clips.open("rb") as file:
            file.seek(shard.place)
            try:
                clip_id, path, start, end = json.loads(file.read(shard.size))[row - shard.row]
            except (ValueError, IndexError, TypeError, RecursionError):
                raise PosebridgeError(f"{self._clips} is damaged; delete {self.folder} and search again.") from None
        return clip_id, path, start, end

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only this process writes. Raises PosebridgeError while another one does."""
        make_folder(self.folder)
        with writing(self.folder / "lock"), (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PosebridgeError(f"Another process is bringing {self.folder} up to date; wait for it.") from None
            self.receipt = self._read() if is_file(self.folder / "search.json") else None
            yield

    def begin(self, model: str, width: int, keys: frozenset[str]) -> None:
        """Keep the shards `keys` if they are of this model, and no other: where one goes, the rest is copied."""
        was = self.receipt
        if was is not None and (was.model, was.width) == (model, width):
            kept = [shard for shard in was.shards if shard.key in keys and self._is_sound(shard)]
            if len(kept) == len(was.shards):
                self._cut()
                return
        else:
            kept = []
        old = [self._vectors, self._clips, *([self.folder / was.index] if was and was.index else [])]
        now = Receipt(model, width, was.generation + 1 if was else 0)
        self.receipt = now
        with writing(self.folder):
            for path in (self._vectors, self._clips):
                path.write_bytes(b"")
        for shard in kept:
            with old[0].open("rb") as vectors, old[1].open("rb") as clips:
                vectors.seek(shard.row * width * 2)
                clips.seek(shard.place)
                self.append(shard.key, shard.count, vectors.read(shard.count * width * 2), clips.read(shard.size))
        self.seal()
        for path in old if was else ():
            path.unlink(missing_ok=True)

    def add(self, key: str, vectors: np.ndarray, entries: list[Entry]) -> None:
        """The vectors [n, D] of a shard's clips."""
        self.append(key, len(vectors), vectors.astype(np.float16).tobytes(), canonical_json(entries))

    def append(self, key: str, count: int, vectors: bytes, clips: bytes) -> None:
        """The same as bytes; they are there once `seal` is called."""
        was = self.known
        with writing(self.folder):
            for path, content in ((self._vectors, vectors), (self._clips, clips)):
                with path.open("ab") as file:
                    file.write(content)
        was.shards.append(Shard(key, was.clips, count, was.listed, len(clips), zlib.crc32(clips, zlib.crc32(vectors))))

    def seal(self, **changes: Any) -> None:
        """Write the receipt, changed so."""
        self.receipt = replace(self.known, **changes)
        with writing(self.folder):
            for path in (self._vectors, self._clips):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        write_durably(self.folder / "search.json", canonical_json(seal(asdict(self.receipt))))

    @property
    def _vectors(self) -> Path:
        return self.folder / f"vectors-{self.receipt.generation if self.receipt else 0}.f16"

    @property
    def _clips(self) -> Path:
        return self.folder / f"clips-{self.receipt.generation if self.receipt else 0}.json"

    def _check(self, shard: Shard) -> None:
        if shard.key not in self._sound and not self._is_sound(shard):
            raise PosebridgeError(f"{self.folder} is damaged; delete it and search again.")
        self._sound.add(shard.key)

    def _is_sound(self, shard: Shard) -> bool:
        if shard.crc is None:
            return True
        size, crc = self.known.width * 2, 0
        for path, start, length in (
            (self._vectors, shard.row * size, shard.count * size),
            (self._clips, shard.place, shard.size),
        ):
            with path.open("rb") as file:
                file.seek(start)
                crc = zlib.crc32(file.read(length), crc)
        return crc == shard.crc

    def _cut(self) -> None:
        """What a killed process had added is taken off."""
        with writing(self.folder):
            os.truncate(self._vectors, self.known.clips * self.known.width * 2)
            os.truncate(self._clips, self.known.listed)

    def _read(self) -> Receipt:
        path, remedy = self.folder / "search.json", f"delete {self.folder} and search again"
        values: Mapping[str, Any] = read_sealed(path, remedy)
        receipt = typed(RECEIPT, values, path, remedy)
        row = place = 0
        for shard in receipt.shards:
            if (shard.row, shard.place) != (row, place):
                raise PosebridgeError(f"{path} contradicts itself; {remedy}.")
            row, place = row + shard.count, place + shard.size
        sizes = row * receipt.width * 2, place
        names = f"vectors-{receipt.generation}.f16", f"clips-{receipt.generation}.json"
        for file, size in zip(map(self.folder.joinpath, names), sizes, strict=True):
            if not is_file(file) or file.stat().st_size < size:
                raise PosebridgeError(f"{file} is missing or shorter than it was; {remedy}.")
        if receipt.schema != SCHEMA or Path(receipt.index).name != receipt.index:
            raise PosebridgeError(f"{path} is of another version; {remedy}.")
        return receipt
