"""One shard of a store: what it is to hold, what of that is sealed already, and making it.

A shard in which anything has changed is made anew; what has not changed is copied from its predecessor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pipeline.cache.lease import POLL, Lease, LeaseLost, Watch
from pipeline.cache.provenance import git_commit, versions
from pipeline.cache.reader import MappedShard
from pipeline.cache.sealed import canonical_json
from pipeline.cache.store import Layout, Receipt, Store, rows_hash, shard_of
from pipeline.cache.writer import ShardWriter
from pipeline.errors import PosebridgeError
from pipeline.files.hashing import sha256_file
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.video.identity import GONE, VideoRecord


@dataclass(frozen=True)
class Wanted:
    """What a shard is to hold.

    `hashes` are of all that a clip's row depends on beside its video, `failure_hashes` of all that its failure does:
    one that has changed is tried again, and with `retry_failed` every one. `look` gives the record of a video as it is
    now, from its path and the record that the store has; it is None where rows come from no video.
    """

    shard: int
    clips: list[Clip]  # in the order of the file
    hashes: dict[str, str]  # by clip_id
    failure_hashes: dict[str, str]
    look: Callable[[str, VideoRecord | None], VideoRecord] | None = None
    retry_failed: bool = False


@dataclass(frozen=True)
class ShardState:
    """What is there of a wanted shard, and what is to be done."""

    wanted: Wanted
    receipt: Receipt | None  # of the shard as it is now
    videos: dict[str, VideoRecord]  # by path, as they are now
    copy: list[str]  # unchanged clips, by id
    failed: list[Failure]  # that are not tried again
    todo: list[Clip]
    done: bool

    @property
    def gone(self) -> list[Clip]:
        """Clips to do whose video is not there."""
        return [clip for clip in self.todo if self.videos and self.videos[clip.path] == GONE]


def clips_of_shards(clips: Iterable[Clip], shards: int) -> list[list[Clip]]:
    """The clips of every shard, in the order of its file."""
    members: list[list[Clip]] = [[] for _ in range(shards)]
    for clip in sorted(clips, key=lambda clip: (clip.path, clip.clip_id)):
        members[shard_of(clip.path, shards)].append(clip)
    return members


def wanted_shard(
    shard: int,
    members: list[Clip],
    row_hash: Callable[[Clip], str],
    failure_hash: Callable[[Clip], str],
    look: Callable[[str, VideoRecord | None], VideoRecord] | None = None,
    retry_failed: bool = False,
) -> Wanted:
    """What the shard of these clips is to hold; see `Wanted`."""
    hashes, failures = ({clip.clip_id: of(clip) for clip in members} for of in (row_hash, failure_hash))
    return Wanted(shard, members, hashes, failures, look, retry_failed)


def shard_state(store: Store, wanted: Wanted, check: bool = True) -> ShardState:
    """What the store has of a shard, by its receipt. Before clips are copied the file is compared with its hash, unless
    it is only to be told how many these would be.
    """
    receipt = store.receipt(wanted.shard)
    known = receipt.videos if receipt else {}
    paths = sorted({clip.path for clip in wanted.clips})
    videos = {path: wanted.look(path, known.get(path)) for path in paths} if wanted.look else {}
    whole = receipt is not None and store.has_file(receipt)
    there = receipt.clips if receipt and whole else {}
    tried = receipt.failed if receipt and not wanted.retry_failed else {}
    reasons = {failure.clip_id: failure for failure in receipt.failures} if receipt else {}
    copy, failed, todo = [], [], []
    for clip in wanted.clips:
        same_video = not videos or (clip.path in known and known[clip.path].identity == videos[clip.path].identity)
        if same_video and there.get(clip.clip_id) == wanted.hashes[clip.clip_id]:
            copy.append(clip.clip_id)
        elif same_video and tried.get(clip.clip_id) == wanted.failure_hashes[clip.clip_id]:
            failed.append(reasons[clip.clip_id])
        else:
            todo.append(clip)
    done = bool(receipt and whole and not todo and receipt.rows_sha256 == rows_hash(wanted.hashes.values()))
    if check and receipt and copy and not done and not _is_sound(store.folder / receipt.file, receipt.sha256):
        kept = {failure.clip_id for failure in failed}
        copy, todo = [], [clip for clip in wanted.clips if clip.clip_id not in kept]  # no source of copies
    return ShardState(wanted, receipt, videos, copy, failed, todo, done)


def _is_sound(path: Path, sha256: str) -> bool:
    try:
        return sha256_file(path) == sha256
    except OSError:  # a bad sector, say
        return False


def make_shards(
    store: Store,
    layout: Layout,
    clips: Iterable[Clip],
    content_hash: Callable[[Clip], str],
    row: Callable[[Clip, ShardState], dict[str, Any]],
    progress: Callable[[int, int], None],
    look: Callable[[str, VideoRecord | None], VideoRecord] | None = None,
) -> int:
    """Make what is not there yet of all shards, one after another, of clips that cannot fail; how many clips that were.

    `progress` is told (clips done, clips to do) after every clip. Raises PosebridgeError as `make_leased` does.
    """
    members = enumerate(clips_of_shards(clips, layout.shards))
    states = (shard_state(store, wanted_shard(*each, content_hash, lambda clip: "", look)) for each in members)
    todo = [state for state in states if not state.done]
    total, finished = sum(len(state.todo) for state in todo), count(1)
    for state in todo:
        rows = (row(clip, state) for clip in state.todo)
        make_leased(store, layout, state, rows, lambda: progress(next(finished), total))
    return total


def make_leased(
    store: Store, layout: Layout, state: ShardState, rows: Iterable[dict[str, Any] | Failure], tick: Callable[[], None]
) -> None:
    """`make_shard` under the shard's lease, as soon as nobody else has it; nothing is done where it is made by then.

    Raises PosebridgeError where this process was stopped for so long that another has taken the lease over.
    """
    path, watch = store.lease(state.wanted.shard), Watch()
    with Lease(path) as lease:
        while not lease.take():
            while not watch.is_free(path):
                time.sleep(POLL)
        if shard_state(store, state.wanted).done:
            return
        try:
            make_shard(store, layout, state, rows, tick, lease.check)
        except LeaseLost:
            raise PosebridgeError(f"Another process has taken {path} over; run the same command again.") from None


def make_shard(
    store: Store,
    layout: Layout,
    state: ShardState,
    rows: Iterable[dict[str, Any] | Failure],
    tick: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
    computed: dict[str, str] | None = None,
    seconds: Callable[[], dict[str, float]] = dict,
) -> None:
    """Write a shard and its receipt: unchanged clips from its predecessor, others from `rows`, with a `tick` each.

    `computed` says what `rows` are estimated with, `seconds` how long it has taken so far. What `check` raises, before
    the file and before the receipt is written, ends it: the shard is another's by then.
    """
    wanted, failures = state.wanted, list(state.failed)
    texts = {
        "clip_id": wanted.hashes,
        "video_path": [clip.path for clip in wanted.clips],
        "video_identity": [record.identity for record in state.videos.values()],
    }
    widths = {name: max([len(value.encode()) for value in values], default=1) or 1 for name, values in texts.items()}
    attributes = {
        "recipe": store.recipe.canonical_json(),
        "software": canonical_json(versions()).decode(),
        "commit": git_commit(),
    }
    kept = {failure.clip_id for failure in failures}
    written: list[str] = []
    file, sha256, size, checksums = "", "", 0, None
    if expected := [clip.clip_id for clip in wanted.clips if clip.clip_id not in kept]:
        with ShardWriter(store.stem(wanted.shard), store.columns(layout, widths), expected, attributes) as writer:
            if state.copy and state.receipt:
                old = MappedShard(store.folder / state.receipt.file, store.columns(layout), store.remedy)
                for clip_id in state.copy:
                    writer.write(clip_id, {name: array[old.rows[clip_id]] for name, array in old.items()})
            for row in rows:
                if isinstance(row, Failure):
                    failures.append(row)
                else:
                    writer.write(row["clip_id"], row)
                tick()
            check()
            if written := writer.clip_ids:
                path, sha256 = writer.seal()
                file, size, checksums = path.name, writer.size, writer.checksums
    check()
    before = state.receipt if state.copy else None
    store.commit(
        Receipt(
            shard=wanted.shard,
            fingerprint=store.recipe.fingerprint,
            rows_sha256=rows_hash(wanted.hashes.values()),
            clips={clip_id: wanted.hashes[clip_id] for clip_id in written},
            failed={failure.clip_id: wanted.failure_hashes[failure.clip_id] for failure in failures},
            failures=tuple(sorted(failures, key=lambda failure: failure.clip_id)),
            videos=state.videos,
            file=file,
            sha256=sha256,
            bytes=size,
            checksums=checksums,
            computed=(computed if state.todo or not state.receipt else state.receipt.computed) or {},
            estimated=len(state.todo) + (before.estimated if before else 0),
            seconds=_added(seconds() if state.todo else {}, before.seconds if before else {}),
        )
    )


def _added(seconds: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: round(seconds.get(name, 0.0) + before.get(name, 0.0), 3) for name in {**before, **seconds}}
