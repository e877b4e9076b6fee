"""Several workers beside one on the same machine, the pose model single-threaded in all of them, and what it costs to
hand out a shard.

Reads a data set's videos; writes to a temporary folder only.
    posebridge bench workers --dataset skelgap-mini --recipe refined --workers 2
    posebridge bench workers --dataset skelgap-mini --recipe refined --executor ray
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.executors.base import Executor
from pipeline.executors.local import LocalExecutor
from pipeline.extract.work import ExtractJob, ShardMaker, ShardReport
from pipeline.hpe.base import Estimator
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe

CLIPS_PER_SHARD = 3  # few, so that all workers are busy nearly to the end


@dataclass(frozen=True)
class WorkersBench:
    """Clips a second while all workers were busy, each with its second shard or a later one; `speedup` is that of many
    over that of one. `overhead_seconds` is the time of one worker for a shard in which nothing is to be done: handing
    it out, its lease, asking the store. `start_seconds` passed until each worker had made its first shard.
    """

    workers: int
    clips: int
    one_clips_per_second: float
    many_clips_per_second: float
    speedup: float
    overhead_seconds: float
    start_seconds: float


def bench_workers(
    clips: Sequence[Clip],
    root: Path,
    recipe: Recipe,
    build_estimator: Callable[[Recipe], Estimator],
    folder: Path,
    params: ExtractParams,
    workers: int,
    build_executor: Callable[[int, Path], Executor] = LocalExecutor,
) -> WorkersBench:
    """Extract the same clips by one worker and by many, into stores of their own under the empty `folder`;
    `build_executor` makes one of so many workers, with a folder for its logs.

    Raises PosebridgeError where there are too few clips to keep the workers busy, and where a shard fails.
    """
    if len(clips) < (least := 4 * workers * CLIPS_PER_SHARD):
        raise PosebridgeError(f"{len(clips)} clips keep no {workers} workers busy; list {least}, or name more --clips.")
    write_clips(folder / "bench" / "clips.csv", list(clips))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        one, many = (
            _run(
                number,
                folder,
                root,
                recipe,
                build_estimator,
                replace(params, clips_per_shard=CLIPS_PER_SHARD),
                build_executor,
            )
            for number in (1, workers)
        )
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return WorkersBench(workers, len(clips), one[0], many[0], many[0] / one[0], one[1], many[2])


def _run(
    workers: int,
    folder: Path,
    root: Path,
    recipe: Recipe,
    build_estimator: Callable[[Recipe], Estimator],
    params: ExtractParams,
    build_executor: Callable[[int, Path], Executor],
) -> tuple[float, float, float]:
    """Clips a second, seconds a shard that is sealed already, and seconds until each worker had made one."""
    stores = folder / f"{workers}-workers"
    job = ExtractJob("bench", "", recipe, root, stores, folder, params, False, build_estimator)
    shards = range(ShardMaker(job).shards)
    executor = build_executor(workers, folder / "logs")
    executor.here = False  # one worker is a process of its own too
    ready = stores / "ready"
    ready.mkdir(parents=True)
    first, rest = range(workers), shards[workers:]
    begun = time.perf_counter()
    ends: list[tuple[float, int]] = []  # of shards, with their clips
    for outcome in executor.run(Together(job, ready, workers), [*(~shard for shard in first), *rest, *shards]):
        if outcome.error:
            raise PosebridgeError(f"Shard {outcome.unit} failed: {outcome.error}.")
        report: ShardReport = outcome.value
        ends.append((time.perf_counter(), report.estimated))
    start, made = ends[workers - 1][0], ends[workers : len(shards)]
    last = made[-workers][0]  # then the first of them has nothing left
    overhead = (ends[-1][0] - made[-1][0]) * workers / len(shards)
    return sum(clips for end, clips in made if end <= last) / (last - start), overhead, start - begun


@dataclass(frozen=True)
class Together:
    """A job whose workers go on together: each begins with one of the shards ~0, ~1, ..., and waits for the others."""

    job: ExtractJob
    ready: Path  # an empty folder
    workers: int

    def __call__(self, unit: int) -> ShardReport:
        if unit >= 0:
            return self.job(unit)
        report = self.job(~unit)
        (self.ready / str(unit)).touch()
        while len(list(self.ready.iterdir())) < self.workers:
            time.sleep(0.01)
        return report
