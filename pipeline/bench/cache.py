"""Batches from the cache, in order and at random, against a bare memory map of the same files.

Reads an extraction; writes nothing. Command: posebridge bench cache --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.bench.timing import seconds_of
from pipeline.cache.reader import MOST_MAPPED, CacheReader
from pipeline.errors import PosebridgeError


@dataclass(frozen=True)
class CacheBench:
    """MB/s of batches read through the reader and from a bare memory map of the same files; ratios reader / bare."""

    clips: int
    bytes_per_clip: int
    sequential_mb_s: float
    random_mb_s: float
    bare_sequential_mb_s: float
    bare_random_mb_s: float
    sequential_ratio: float
    random_ratio: float


def bench_cache(index: Path, store_root: Path | None = None, batch: int = 64, rounds: int = 5) -> CacheBench:
    """Read every clip of the first MOST_MAPPED shards, which the bare map holds open, in batches, in order and at
    random; medians of `rounds`, with warm files.
    """
    with CacheReader(index, store_root) as reader:
        if not reader.clip_ids:
            raise PosebridgeError(f"{index} has no clip to read; see why they failed with `posebridge cache stats`.")
        names: list[str] = [name for name in reader.names if name in ("keypoints", "scores", "cues", "cue_scores")]
        shard_of = reader.index["clips"]
        mapped = set(sorted(set(shard_of.values()))[:MOST_MAPPED])
        ordered = np.array([clip_id for clip_id in reader.clip_ids if shard_of[clip_id] in mapped])
        places = {clip_id: _bare_rows(reader, clip_id, names) for clip_id in ordered.tolist()}
        size = sum(view.nbytes for view in places[ordered[0]])

        def rate(read: Callable[[list[str]], object], order: np.ndarray) -> float:
            parts = [order[i : i + batch].tolist() for i in range(0, len(order), batch)]
            seconds = [seconds_of(lambda: [read(part) for part in parts]) for _ in range(rounds + 1)]
            return size * len(order) / 1e6 / float(np.median(seconds[1:]))

        def bare(clip_ids: list[str]) -> list[np.ndarray]:
            return [np.stack([places[clip_id][i] for clip_id in clip_ids]) for i in range(len(names))]

        shuffled = np.random.default_rng(0).permutation(ordered)
        through = partial(reader.read, names=names)
        sequential, random = rate(through, ordered), rate(through, shuffled)
        bare_sequential, bare_random = rate(bare, ordered), rate(bare, shuffled)
    return CacheBench(
        clips=len(ordered),
        bytes_per_clip=size,
        sequential_mb_s=sequential,
        random_mb_s=random,
        bare_sequential_mb_s=bare_sequential,
        bare_random_mb_s=bare_random,
        sequential_ratio=sequential / bare_sequential,
        random_ratio=random / bare_random,
    )


def _bare_rows(reader: CacheReader, clip_id: str, names: list[str]) -> list[np.ndarray]:
    """The rows of a clip as bare views of the mapped file."""
    shard = reader.shard(clip_id)
    return [shard[name][shard.rows[clip_id]] for name in names]
