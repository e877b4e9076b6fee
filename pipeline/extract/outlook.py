"""How far an extraction is, over all its workers: what `posebridge extract --plan` tells. Reads only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.cache.lease import is_taken
from pipeline.extract.share import MOST_TASKS, array_of
from pipeline.extract.work import ExtractJob, ShardMaker


@dataclass(frozen=True)
class Outlook:
    """Shards and clips of a store: `done` are sealed as they should be (`failed` of them hold failed clips), `leased`
    being made now, `missing` neither.

    `hours_left` is by the median time from one sealed shard to the next, whoever sealed them; None before there are
    three. `array` are the tasks with shards missing, of `tasks` that each make their share.
    """

    store: Path
    shards: int
    done: int
    leased: int
    missing: int
    failed: int
    clips: int
    clips_left: int
    clips_failed: int
    hours_left: float | None
    tasks: int
    array: str


def look_ahead(dataset: str, variant: str, **rest: Any) -> Outlook:
    """Look at every shard, its videos and its lease; `rest` as `ExtractJob` takes it."""
    maker = ShardMaker(ExtractJob(dataset, variant, **rest))
    tasks = min(maker.shards, MOST_TASKS)
    sealed: list[float] = []
    missing: list[int] = []
    leased = failed = clips_left = clips_failed = 0
    for shard in range(maker.shards):
        state = maker.state(shard, glance=True)
        if state.receipt is not None:
            with suppress(ValueError, OverflowError):  # a receipt is a file of others too
                sealed.append(datetime.fromisoformat(state.receipt.time).timestamp())
        if state.done:
            failed += bool(state.failed)
            clips_failed += len(state.failed)
            continue
        clips_left += len(state.todo)
        if is_taken(maker.store.lease(shard)):
            leased += 1
        else:
            missing.append(shard)
    left = leased + len(missing)
    pace = median(later - earlier for earlier, later in pairwise(sorted(sealed))) if len(sealed) > 2 else None
    return Outlook(
        store=maker.store.folder,
        shards=maker.shards,
        done=maker.shards - left,
        leased=leased,
        missing=len(missing),
        failed=failed,
        clips=maker.clips,
        clips_left=clips_left,
        clips_failed=clips_failed,
        hours_left=0.0 if not left else None if pace is None else left * pace / 3600,
        tasks=tasks,
        array=array_of({shard % tasks for shard in missing}),
    )
