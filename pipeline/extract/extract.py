"""Stage one: every clip of a data set through the pose model, once, into the cache.

Reads manifests/<dataset>/clips.csv and the videos. Writes the shards and receipts of cache/store/<dataset>/... and
cache/<dataset>/<recipe>/index.json. Killed and started again, it goes on at the first shard without a valid receipt.
A variant of the test clips (pipeline/manifest/variants.py) has a store and an index of its own.
    posebridge extract --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cache.imported import require_no_import
from pipeline.cache.index import index_path, write_index
from pipeline.cache.lease import POLL, Watch, clear_dead
from pipeline.errors import PosebridgeError
from pipeline.executors.base import Executor, Outcome, build_executor
from pipeline.extract.progress import Tally, listening
from pipeline.extract.share import Share
from pipeline.extract.survey import survey
from pipeline.extract.work import ExtractJob, ShardMaker, ShardReport, refuse_small_disk
from pipeline.hpe.base import Estimator
from pipeline.manifest.failure import Failure
from pipeline.manifest.variants import of_variant
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe

MOST_FAILED = 3  # shards, one after another: then something is wrong that ends the run
SEEN_SECONDS = 90.0  # until a network disk shows everywhere what another machine has written


@dataclass(frozen=True)
class Extraction:
    """What a run did. `failures` are all that the index lists, those of earlier runs included.

    `few_frames` are the clips estimated now whose T samples show less than a quarter of the frames that they could
    have shown: a pause, or time stamps that are wrong. Where a share was asked for and shards of others are not sealed
    yet, the run is not `complete`: it has written no index, and `clips` and `failures` are those of its share.
    """

    index: Path
    store: Path
    clips: int
    estimated: int
    copied: int
    failures: tuple[Failure, ...]
    changed: bool
    seconds: float
    few_frames: tuple[str, ...] = ()
    complete: bool = True


def extract(
    dataset: str,
    recipe_name: str,
    recipe: Recipe,
    root: Path,
    *,
    params: ExtractParams,
    build_estimator: Callable[[Recipe], Estimator],
    manifests: Path = Path("manifests"),
    cache: Path = Path("cache"),
    cache_root: Path | None = None,
    variant: str = "",
    retry_failed: bool = False,
    executor: Executor | None = None,
    share: Share = (0, 1),
    finish: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Bring the cache of one (data set, recipe), or of a variant of its test clips, up to date.

    Args:
        recipe: with `weights_sha256` filled in, since it names the store.
        root: the folder that the paths of clips.csv are relative to.
        build_estimator: called once a process, and only if something is to be estimated.
        cache_root: holds the store instead of `<cache>/store`: a lab's shared disk.
        params: `max_failures` bounds only how many videos may be gone before a run is refused; failures
            themselves are rows of the index, and the caller judges their number.
        retry_failed: try the failures of earlier runs again, although nothing about them has changed.
        executor: runs the shards; by default this process, one after another.
        share: (i, N), only the shards whose number leaves i when divided by N; the index is then written by whoever
            finds all others sealed too.
        finish: make no shard, and write the index.
        progress: told (clips done, clips to do) after every clip, or every few seconds where others make the shards.

    Raises:
        PosebridgeError: no clips, videos gone, disk too small, a name of imported features; nothing has been written
            then. Or shards failed, the disk among the reasons: sealed shards stay then.
    """
    begun = time.monotonic()
    index, changed = index_path(cache, dataset, of_variant(recipe_name, variant)), False
    require_no_import(index)
    stores = cache_root or cache / "store"
    job = ExtractJob(dataset, variant, recipe, root, stores, manifests, params, retry_failed, build_estimator)
    maker = ShardMaker(job)
    mine = range(share[0], maker.shards, share[1])
    found = survey(maker, mine)
    reports: list[ShardReport] = []
    if found.todo and finish:
        raise PosebridgeError(
            f"{len(found.todo)} of {maker.shards} shards in {maker.store.folder} are not sealed yet, first shard "
            f"{next(iter(found.todo))}; make them with `posebridge extract` without --finish."
        )
    if found.todo:
        executor = executor or build_executor("local")
        maker.job = replace(job, shards=maker.shards, gone=len(found.gone))
        if executor.here or maker.layout:  # else the workers, who know the widths of a new store, look before a shard
            refuse_small_disk(found.rows, len(found.todo), maker.store, maker.layout_to_be())
        reports = sorted(_make_all(maker, found.todo, executor, progress), key=lambda report: report.shard)
        _await_receipts(maker, found.todo, 0 if executor.here else SEEN_SECONDS)
    clear_dead(maker.store.folder)  # of whoever was killed after sealing a shard, before giving its lease back
    complete, layout = _are_sealed(maker, set(range(maker.shards)) - set(mine)), maker.store.layout()
    counted = range(maker.shards) if complete else mine
    receipts = [receipt for shard in counted if (receipt := maker.store.receipt(shard))]
    if complete and layout is not None:
        changed = write_index(index, of_variant(dataset, variant), maker.store, layout, receipts)
    return Extraction(
        index=index,
        store=maker.store.folder,
        clips=sum(len(receipt.clips) for receipt in receipts),
        estimated=sum(report.estimated for report in reports),
        copied=sum(report.copied for report in reports),
        failures=tuple(failure for receipt in receipts for failure in receipt.failures),
        changed=changed,
        seconds=time.monotonic() - begun,
        few_frames=tuple(clip_id for report in reports for clip_id in report.few_frames),
        complete=complete,
    )


def _are_sealed(maker: ShardMaker, shards: Collection[int]) -> bool:
    """Whether shards are as they should be; first by the names of files, since each task of a cluster asks it."""
    receipts = (maker.store.stem(shard).with_suffix(".json") for shard in shards)
    return all(path.is_file() for path in receipts) and all(maker.state(shard, glance=True).done for shard in shards)


def _await_receipts(maker: ShardMaker, shards: Collection[int], seconds: float) -> None:
    """Wait until shards that others have made are seen here too. Raises PosebridgeError where they are not: an index
    would lack their clips.
    """
    deadline = time.monotonic() + seconds
    while unseen := [shard for shard in shards if not maker.store.stem(shard).with_suffix(".json").is_file()]:
        if time.monotonic() > deadline:
            raise PosebridgeError(
                f"{len(unseen)} shards that were made are not in {maker.store.folder}, first shard {unseen[0]}: the "
                "machine that made them sees another disk there; name one that all machines see with --cache-root."
            )
        time.sleep(POLL)
        with suppress(OSError), os.scandir(maker.store.folder):  # has NFS ask its server for what is there
            pass


def _make_all(
    maker: ShardMaker, todo: dict[int, int], executor: Executor, progress: Callable[[int, int], None]
) -> list[ShardReport]:
    """Have every shard made: those that other workers have are asked for again when their leases are given back, or
    expire. Raises PosebridgeError where shards failed; the others are made first, unless all seem to fail.
    """
    tally, watch = Tally(todo, progress), Watch()
    work = functools.partial(maker.make, told=tally.told) if executor.here else maker.job
    reports: list[ShardReport] = []
    failed: list[Outcome] = []
    leased: set[int] = set()
    waiting, in_a_row = _turned(list(todo)), 0
    try:
        with nullcontext() if executor.here else listening(tally, maker.store):
            while waiting:
                with closing(executor.run(work, waiting)) as outcomes:
                    for outcome in outcomes:
                        if outcome.error:
                            failed.append(outcome)
                            in_a_row += 1
                            if in_a_row == MOST_FAILED:
                                raise _failure(failed)
                        elif outcome.value.leased:
                            leased.add(outcome.unit)
                        else:
                            in_a_row = 0
                            reports.append(outcome.value)
                            tally.ended(outcome.unit, outcome.value.estimated)
                waiting = _given_back(maker, leased, watch, tally)
    finally:
        clear_dead(maker.store.folder)
    if failed:
        raise _failure(failed)
    return reports


def _turned(shards: list[int]) -> list[int]:
    """The same, from anywhere on: workers that start together do not all ask for the same shard."""
    first = secrets.randbelow(len(shards))
    return shards[first:] + shards[:first]


def _given_back(maker: ShardMaker, leased: set[int], watch: Watch, tally: Tally) -> list[int]:
    """Wait for leases of others; the shards that are to be made after all. They are taken out of `leased`, and so are
    those that are sealed.
    """
    free: list[int] = []
    while leased and not free:
        for shard in sorted(leased):
            if watch.is_free(maker.store.lease(shard)):
                leased.remove(shard)
                if maker.state(shard, glance=True).done:
                    tally.ended(shard, 0)
                else:
                    free.append(shard)
        if leased and not free:
            time.sleep(POLL)
    return free


def _failure(failed: Sequence[Outcome]) -> PosebridgeError:
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    log = f"; its log is {first.log}" if first.log else ""
    return PosebridgeError(
        f"Shard {first.unit}{more} failed{first.place}: {first.error}{log}; put this right and run the same "
        "command again: sealed shards stay."
    )
