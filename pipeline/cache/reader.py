"""Reading the cache: batches of clips out of sealed shards, by plain reads at known places.

Reads `cache/<dataset>/<recipe>/index.json` and the shards that it names. What a process reads for the first time is
compared with the index's checksums, so that a damaged shard gives an error and no wrong result. No shard is kept open:
there may be more of them than a process may have files. And under a plain read a shard that vanishes or shrinks is an
error, while under a memory map it kills the process.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cache.checksums import Checker, Checksums
from pipeline.cache.index import read_index
from pipeline.cache.schema import Column, columns, locate
from pipeline.errors import PosebridgeError
from pipeline.files.durable import unreadable
from pipeline.recipe import Recipe
from pipeline.video.record import ClipRecord

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_MAPPED = 128  # files at a time: a system gives a process about a thousand
READ_ONLY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
AT_HAND = getattr(os, "RWF_NOWAIT", 0)  # a read of what is in memory already; on macOS of anything
Span = tuple[int, memoryview]  # where something begins in a file, and where it is to be


class MappedShard(Mapping[str, np.ndarray]):
    """One shard as read-only arrays [N, ...] by name, that lie on the disk.

    With `checksums`, HDF5's structure and the clip ids are compared now, any other dataset when it is asked for first.
    Raises PosebridgeError, ending in `remedy`, for a damaged or odd file.
    """

    def __init__(self, path: Path, expected: tuple[Column, ...], remedy: str, checksums: Checksums | None = None):
        self._checker = Checker(path, checksums, remedy) if checksums else None
        if self._checker:
            self._checker.check_rest()
        self._path, self._file, self._remedy = path, str(path), remedy
        self._places = locate(path, expected, remedy)
        if checksums and {name: (part.offset, part.bytes) for name, part in checksums.datasets.items()} != {
            name: (place.offset, place.bytes) for name, place in self._places.items()
        }:
            raise PosebridgeError(f"{path} has its datasets at other places than its checksums say; {remedy}.")
        try:
            self._status = _identity(path.stat())
            self._check("clip_id")
            place = self._places["clip_id"]
            read = np.fromfile(path, place.dtype, place.shape[0], offset=place.offset)
            ids = [clip_id.decode() for clip_id in read]
        except (OSError, ValueError) as error:
            raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
        self.rows = {clip_id: row for row, clip_id in enumerate(ids)}
        if len(self.rows) != len(ids):
            raise PosebridgeError(f"{path} holds a clip twice; {remedy}.")

    def __getitem__(self, name: str) -> np.ndarray:
        self._check(name)
        place = self._places[name]
        try:
            return np.ndarray(place.shape, place.dtype, _mapped(self._path, self._status), place.offset)
        except OSError as error:
            raise unreadable(self._path, error, self._remedy) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def start(self, name: str) -> int:
        """Where a dataset begins in the file, compared with its checksum; its rows follow one another."""
        self._check(name)
        return self._places[name].offset

    def copy(self, spans: Sequence[Span], wait: bool = True) -> list[Span]:
        """Read parts of the file to where they belong, in Python's other threads' time, by one opening of it.

        Without `wait` only what the system has in memory is read; the disk is told to begin with the rest, which is
        returned. Raises PosebridgeError where the file has vanished or changed since it was opened.
        """
        left, flags = [], 0 if wait else AT_HAND
        try:
            file = os.open(self._file, READ_ONLY)
            try:
                whole = _identity(os.fstat(file)) == self._status
                _advise(file, 0, 0, "RANDOM")  # or the system reads on, up to megabytes, for who has asked for a row
                for offset, goal in spans:
                    try:
                        got = os.preadv(file, (goal,), offset, flags)
                    except OSError:
                        if wait:
                            raise
                        got = -1  # nothing is at hand, or the file system does not tell
                    if got != len(goal):
                        whole = whole and not wait
                        left.append((offset, goal))
                for offset, goal in left:
                    _advise(file, offset, len(goal), "WILLNEED")
            finally:
                os.close(file)
        except OSError as error:
            raise unreadable(self._path, error, self._remedy) from None
        if not whole:
            raise PosebridgeError(f"{self._path} has changed since it was opened; run the same command again.")
        return left

    def _check(self, name: str) -> None:
        if self._checker:
            self._checker.check(name)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What a file keeps while nobody touches it."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _advise(file: int, offset: int, size: int, advice: str) -> None:
    """Tell the system how a part of a file will be read; nobody waits, and what goes wrong the reading itself tells."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with suppress(OSError):
            os.posix_fadvise(file, offset, size, getattr(os, f"POSIX_FADV_{advice}"))


@functools.lru_cache(MOST_MAPPED)
def _mapped(path: Path, status: tuple[int, int, int]) -> np.memmap:
    """A whole file as bytes. What falls out of the cache is unmapped once nobody has an array of it any more."""
    if _identity(path.stat()) != status:
        raise PosebridgeError(f"{path} has changed since it was opened; run the same command again.")
    return np.memmap(path, np.uint8, "r")


class CacheReader:
    """The clips of one data set under one recipe.

    Args:
        index_path: `cache/<dataset>/<recipe>/index.json`.
        store_root: the folder that holds `<dataset>/<slug>-<fingerprint12>/`, which is what `extract --cache-root` was
            given; by default `cache/store` beside the index.
        verify: off leaves the checksums alone, for who knows that the disk is sound.

    Attributes:
        recipe, fingerprint: of the extraction.
        clip_ids: the clips that were extracted.
        failures: dicts of clip_id, stage and reason.
        columns: the datasets of a shard.
        cue_width: D, 0 without cues.
        names: the datasets that `read` can give.

    Raises:
        PosebridgeError: the index or the store is missing or damaged; the message names the command that re-makes it.
    """

    def __init__(self, index_path: Path, store_root: Path | None = None, verify: bool = True):
        dataset, (recipe_name, _, variant) = index_path.parent.parent.name, index_path.parent.name.partition("@")
        which = f"{recipe_name} --variant {variant}" if variant else recipe_name
        self._command = f"`posebridge extract --dataset {dataset} --recipe {which}`"
        if not index_path.is_file():
            raise PosebridgeError(f"{index_path} is missing; make it with {self._command}.")
        index = read_index(index_path, f"make it again with {self._command}")
        self.recipe: Recipe = index["recipe"]
        if self.recipe.backend == "import":
            self._command = f"`posebridge cache import FILE --dataset {dataset} --recipe {recipe_name}`"
        if self.recipe.backend == "features":
            self._command = f"`posebridge cache import-features FILE --dataset {dataset} --recipe {recipe_name}`"
        self.fingerprint: str = index["fingerprint"]
        self.clip_ids: list[str] = list(index["clips"])
        self.failures: list[dict[str, str]] = index["failures"]
        self.index = index
        self.folder = (store_root or index_path.parents[2] / "store") / index["dataset"] / index["store"]
        layout = index["layout"]
        self.columns = columns(self.recipe, layout.joints, layout.cue_width)
        self.cue_width: int = layout.cue_width
        self.names = tuple(column.name for column in self.columns if column.dtype.kind != "S")
        self._shard_of: dict[str, int] = index["clips"]
        self._clips_of: dict[int, set[str]] = defaultdict(set)
        for clip_id, number in self._shard_of.items():
            self._clips_of[number].add(clip_id)
        self._files = {entry["shard"]: entry for entry in index["shards"]}
        self._open: dict[int, MappedShard] = {}
        self._verify = verify
        for entry in index["shards"]:
            self._check_file(entry)

    def __enter__(self) -> CacheReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(
        self, clip_ids: Sequence[str], names: Sequence[str], persons: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Read some clips, stacked in the order given: {name: [B, *shape]}, of the dtypes on disk.

        `persons` [B, M] bool are those who are to be read, of datasets that have a row for each; the others are zeros.
        Raises PosebridgeError for a clip that the cache does not hold or a dataset that the recipe does not have.
        """
        by_name = {column.name: column for column in self.columns if column.name in self.names}
        for name in names:
            if name not in by_name:
                raise PosebridgeError(
                    f"The cache {self.folder.name} has no dataset {name!r}; it has {', '.join(self.names)}."
                )
        places: dict[int, list[int]] = defaultdict(list)
        for place, clip_id in enumerate(clip_ids):
            self.shard(clip_id)  # before anything is made: an odd index may name shapes beyond all memory
            places[self._shard_of[clip_id]].append(place)
        wanted = [[True]] * len(clip_ids) if persons is None else persons.tolist()
        each = 1 if persons is None else persons.shape[1]  # rows of a clip
        batch = {name: np.empty((len(clip_ids), *by_name[name].shape), by_name[name].dtype) for name in names}
        if persons is not None:
            for array in batch.values():
                array[~persons] = 0
        goals = {name: array.reshape(-1).view(np.uint8).data for name, array in batch.items()}
        left = []
        for number, own in places.items():
            shard, spans = self._open[number], []
            parts = [
                (shard.rows[clip_ids[place]] * each + person, place * each + person)
                for place in own
                for person, there in enumerate(wanted[place])
                if there
            ]
            for name, goal in goals.items():
                start, size = shard.start(name), len(goal) // (len(wanted) * each)
                spans += [(start + row * size, goal[place * size : (place + 1) * size]) for row, place in parts]
            left.append((shard, shard.copy(spans, wait=False)))
        for shard, spans in left:  # after all were asked for, so that the disk is waited for once
            if spans:
                shard.copy(spans)
        return batch

    def record(self, clip_id: str) -> ClipRecord | None:
        """What was odd about a clip's video; None where its row was made without one. Raises PosebridgeError."""
        shard = self.shard(clip_id)
        try:
            return ClipRecord.from_json(shard["video_record"][shard.rows[clip_id]].decode())
        except (ValueError, RecursionError):
            raise PosebridgeError(
                f"The record of {clip_id!r} in {self.folder} is damaged; delete its shard and run {self._command}."
            ) from None

    def frame(self, manifest: Path | None = None) -> DataFrame:
        """One row a clip, extracted or failed; the columns are those of pipeline/cache/frame.py.

        `manifest` is a folder manifests/<dataset>, for what its clips.csv and classes.csv say of the clips. Raises
        PosebridgeError for a damaged file.
        """
        from pipeline.cache.frame import frame  # pandas takes half a second to load

        return frame(self, manifest)

    def shard(self, clip_id: str) -> MappedShard:
        """The opened shard that holds a clip."""
        if clip_id not in self._shard_of:
            failed = next((f for f in self.failures if f["clip_id"] == clip_id), None)
            why = f"its extraction failed: {failed['reason']}" if failed else f"bring it in with {self._command}"
            raise PosebridgeError(f"The clip {clip_id!r} is not in the cache {self.folder.name}; {why}.")
        number = self._shard_of[clip_id]
        if number not in self._open:
            path, remedy = self.folder / self._files[number]["file"], f"delete it and run {self._command}"
            checksums = self._files[number]["checksums"] if self._verify else None
            shard = MappedShard(path, self.columns, remedy, checksums)
            if shard.rows.keys() != self._clips_of[number]:
                raise PosebridgeError(f"{path} holds other clips than its index; {remedy}.")
            self._open[number] = shard
        return self._open[number]

    def shards(self) -> Iterator[MappedShard]:
        """All of them, each opened when it is asked for."""
        return (self.shard(next(iter(clip_ids))) for clip_ids in self._clips_of.values())

    def close(self) -> None:
        """Let go of the memory maps."""
        self._open.clear()
        _mapped.cache_clear()

    def _check_file(self, entry: dict[str, object]) -> None:
        path = self.folder / str(entry["file"])
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise unreadable(path, error, f"delete it and run {self._command}") from None
        if size is None:
            raise PosebridgeError(f"{path} is missing; bring it with `dvc pull` or make it again with {self._command}.")
        if size != entry["bytes"]:
            raise PosebridgeError(f"{path} has not the size that its index says; delete it and run {self._command}.")
