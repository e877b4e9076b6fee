"""Stage one: every clip of a data set through the pose model, once, into the cache.

Reads manifests/<dataset>/clips.csv and the videos. Writes the shards and receipts of cache/store/<dataset>/... and
cache/<dataset>/<recipe>/index.json. Killed and started again, it goes on at the first shard without a valid receipt.
A variant of the test clips (pipeline/manifest/variants.py) has a store and an index of its own.
    posebridge extract --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cache.index import index_path, write_index
from pipeline.cache.shard import ShardState, make_shard, shard_state, wanted_shards
from pipeline.cache.store import Layout, Store, plan_layout
from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import box_source
from pipeline.extract.ground_truth import ground_truth_rows
from pipeline.extract.plan import Source, check_recipe, open_ground_truth
from pipeline.extract.stream import PoseStream
from pipeline.files.names import check_name
from pipeline.hpe.base import Estimator
from pipeline.hpe.joints import check_joints
from pipeline.manifest.clips import read_clips
from pipeline.manifest.failure import Failure
from pipeline.manifest.variants import of_variant, variant_clips, variant_root
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import graph_of
from pipeline.video.identity import GONE
from pipeline.video.record import shows_few

FILE_OVERHEAD = 64 << 10  # bytes of HDF5 headers and a receipt, generously


@dataclass(frozen=True)
class Extraction:
    """What a run did. `failures` are all that the index lists, those of earlier runs included.

    `few_frames` are the clips estimated now whose T samples show less than a quarter of the frames that they could
    have shown: a pause, or time stamps that are wrong.
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Bring the cache of one (data set, recipe), or of a variant of its test clips, up to date.

    Args:
        recipe: with `weights_sha256` filled in, since it names the store.
        root: the folder that the paths of clips.csv are relative to.
        build_estimator: called once, and only if something is to be estimated.
        cache_root: holds the store instead of `<cache>/store`: a lab's shared disk.
        params: `max_failures` bounds only how many videos may be gone before a run is refused; failures
            themselves are rows of the index, and the caller judges their number.
        retry_failed: try the failures of earlier runs again, although nothing about them has changed.
        progress: told (clips done, clips to do) after every clip.

    Raises:
        PosebridgeError: no clips, videos gone, disk too small; nothing has been written then. Or the disk filled up
            or failed: sealed shards stay then.
    """
    begun = time.monotonic()
    check_recipe(recipe)
    clips = read_clips(manifests / check_name(dataset, "data set") / "clips.csv")
    if not clips:
        raise PosebridgeError(
            f"{manifests / dataset / 'clips.csv'} lists no clips; fill it with `posebridge ingest --dataset {dataset}`."
        )
    if variant:
        clips, root = variant_clips(clips, dataset, root, variant), variant_root(root, variant)
    source = Source(root, recipe, open_ground_truth(root, recipe))
    store = Store(cache_root or cache / "store", of_variant(dataset, variant), recipe)
    existing = store.layout()
    layout = existing or plan_layout(len(clips), params.clips_per_shard)
    look = source.look if recipe.needs_videos else None
    wanted = wanted_shards(clips, layout.shards, source.row_hash, source.failure_hash, look, retry_failed)
    todo = [state for each in wanted if not (state := shard_state(store, each)).done]
    estimator = None
    if todo or existing is None:
        if recipe.needs_videos:
            _refuse_gone(todo, source, dataset, params.max_failures)
            estimator = build_estimator(recipe)
            check_joints(recipe, estimator)
        joints, cue_width = _widths(estimator, source)
        _refuse_small_disk(todo, store, replace(layout, joints=joints, cue_width=cue_width))
        layout = store.create(len(clips), params.clips_per_shard, joints, cue_width)
    stream = None
    if estimator is not None:
        boxes = box_source(recipe, source.truth)
        stream = PoseStream(recipe, estimator, boxes, params.batch_size, params.max_lost_frames)
    planned, estimated, copied = sum(len(state.todo) for state in todo), 0, 0
    few_frames: list[str] = []

    def tick() -> None:
        nonlocal estimated
        estimated += 1
        progress(estimated, planned)

    for former in todo:
        state = shard_state(store, former.wanted, former)  # another worker may have sealed it meanwhile
        planned += len(state.todo) - len(former.todo)
        if not state.done:
            rows = _watched(_rows(state, source, stream), recipe.frames, few_frames)
            make_shard(store, layout, state, rows, tick)
            copied += len(state.copy)
    receipts = store.receipts(layout)
    index = index_path(cache, dataset, of_variant(recipe_name, variant))
    changed = write_index(index, of_variant(dataset, variant), store, layout, receipts)
    return Extraction(
        index=index,
        store=store.folder,
        clips=sum(len(receipt.clips) for receipt in receipts),
        estimated=estimated,
        copied=copied,
        failures=tuple(failure for receipt in receipts for failure in receipt.failures),
        changed=changed,
        seconds=time.monotonic() - begun,
        few_frames=tuple(few_frames),
    )


def _refuse_gone(todo: Sequence[ShardState], source: Source, dataset: str, max_failures: int) -> None:
    gone = [clip for state in todo for clip in state.todo if state.videos[clip.path] == GONE]
    if len(gone) > max_failures:
        raise PosebridgeError(
            f"{len(gone)} clips of {dataset} have lost their video since ingest, first {gone[0].clip_id!r} "
            f"({source.root}/{gone[0].path}); bring it back, or run `posebridge ingest --dataset {dataset}` again."
        )


def _refuse_small_disk(todo: Sequence[ShardState], store: Store, layout: Layout) -> None:
    """The need: every new shard, beside what is there."""
    row_bytes = sum(column.row_bytes for column in store.columns(layout))
    need = sum((len(state.copy) + len(state.todo)) * row_bytes + FILE_OVERHEAD for state in todo)
    place = store.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise PosebridgeError(
            f"The run needs {need / 1e9:.3f} GB in {store.folder} but only {free / 1e9:.3f} GB are free; "
            "make room or name another disk with --cache-root."
        )


def _widths(estimator: Estimator | None, source: Source) -> tuple[int, int]:
    """(V, D) of the run."""
    if estimator is not None:
        return estimator.joints, estimator.cue_width
    assert source.truth is not None
    if source.truth.joints != (wanted := len(graph_of(source.recipe.layout).joints)):
        raise PosebridgeError(
            f"{source.root / 'ground_truth.h5'} has {source.truth.joints} joints, but the recipe's layout "
            f"{source.recipe.layout} has {wanted}; name its layout in the recipe."
        )
    return source.truth.joints, 0


def _rows(state: ShardState, source: Source, stream: PoseStream | None) -> Iterable[dict[str, Any] | Failure]:
    if stream is not None:
        return stream.run(state.todo, source.root, state.videos)
    assert source.truth is not None
    return ground_truth_rows(state.todo, source.truth, source.recipe)


def _watched(
    rows: Iterable[dict[str, Any] | Failure], frames: int, few_frames: list[str]
) -> Iterator[dict[str, Any] | Failure]:
    """The same rows; clips that show few of their frames are added to `few_frames`."""
    for row in rows:
        if not isinstance(row, Failure) and shows_few(row["video_record"], frames):
            few_frames.append(row["clip_id"])
        yield row
