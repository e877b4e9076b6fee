"""The unit of stage one's work: one shard, made by whichever worker takes it, in this process or in another one."""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cache.lease import Lease, LeaseLost, holder
from pipeline.cache.provenance import versions
from pipeline.cache.shard import ShardState, clips_of_shards, make_shard, shard_state, wanted_shard
from pipeline.cache.store import Layout, Store, plan_layout
from pipeline.errors import PosebridgeError
from pipeline.executors.base import enter
from pipeline.extract.boxes import box_source
from pipeline.extract.ground_truth import ground_truth_rows
from pipeline.extract.plan import Source, check_recipe, open_ground_truth
from pipeline.extract.stopwatch import Stopwatch
from pipeline.extract.stream import PoseStream
from pipeline.files.durable import make_folder
from pipeline.files.shipped import dataset_file
from pipeline.hpe.base import Estimator, device_of
from pipeline.hpe.joints import check_joints
from pipeline.manifest.clips import read_clips
from pipeline.manifest.failure import Failure
from pipeline.manifest.variants import of_variant, variant_clips, variant_root
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import graph_of
from pipeline.video.record import shows_few

FILE_OVERHEAD = 64 << 10  # bytes of HDF5 headers and a receipt, generously


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard. One that is `leased` is another worker's, and may have to be asked for again; one of
    which nothing was estimated or copied was sealed already.
    """

    shard: int
    estimated: int = 0
    copied: int = 0
    few_frames: tuple[str, ...] = ()
    leased: bool = False


@dataclass(frozen=True)
class ExtractJob:
    """All that a process needs to make shards of one store: picklable, and called with the number of a shard.

    `shards` and `gone` are what the plan has seen: the number of shards, and of clips whose video is gone.
    `key` tells this run from others in a process that serves several, `folder` is what relative paths start from.
    """

    dataset: str
    variant: str
    recipe: Recipe
    root: Path
    stores: Path
    manifests: Path
    params: ExtractParams
    retry_failed: bool
    build_estimator: Callable[[Recipe], Estimator]
    shards: int = 0
    gone: int = 0
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self, shard: int) -> ShardReport:
        enter(self.folder)
        return _maker(self).make(shard)


_makers: dict[str, ShardMaker] = {}  # of this process, by the job's key; one at most


def _maker(job: ExtractJob) -> ShardMaker:
    if job.key not in _makers:
        _makers.clear()
        _makers[job.key] = ShardMaker(job)
    return _makers[job.key]


class ShardMaker:
    """Makes shards in this process, one after another: clips, store and pose model are opened once, and the pose model
    only when something is to be estimated.

    Raises PosebridgeError where there are no clips, or where the recipe or what it needs is not as it should be.
    """

    def __init__(self, job: ExtractJob):
        check_recipe(job.recipe)
        path = dataset_file(job.manifests, job.dataset, "clips.csv")
        clips, root = read_clips(path), job.root
        if not clips:
            raise PosebridgeError(f"{path} lists no clips; fill it with `posebridge ingest --dataset {job.dataset}`.")
        if job.variant:
            clips, root = variant_clips(clips, job.dataset, root, job.variant), variant_root(root, job.variant)
        self.job, self.clips = job, len(clips)
        self.source = Source(root, job.recipe, open_ground_truth(root, job.recipe))
        self.store = Store(job.stores, of_variant(job.dataset, job.variant), job.recipe)
        self.layout = self.store.layout()  # None while there is no store
        layout = self.layout or plan_layout(len(clips), job.params.clips_per_shard)
        refuse_other_layout(layout, job.shards or layout.shards, self.store)
        self.shards = layout.shards
        self._members = clips_of_shards(clips, layout.shards)
        self._estimator: Estimator | None = None
        self._stream: PoseStream | None = None
        self._watch = Stopwatch()
        self._opened = False

    def state(self, shard: int, glance: bool = False) -> ShardState:
        """What is there of a shard, and what is to be done; at a glance no video and no shard is read whole, see
        `Source.glance` and `shard_state`.
        """
        look = None
        if self.job.recipe.needs_videos:
            look = self.source.glance if glance else self.source.look
        members, hashes = self._members[shard], (self.source.row_hash, self.source.failure_hash)
        wanted = wanted_shard(shard, members, *hashes, look, self.job.retry_failed)
        return shard_state(self.store, wanted, check=not glance)

    def widths(self) -> tuple[int, int]:
        """(V, D) of the run; loads the pose model."""
        recipe, truth = self.job.recipe, self.source.truth
        if recipe.needs_videos:
            if self._estimator is None:
                self._estimator = self.job.build_estimator(recipe)
                check_joints(recipe, self._estimator)
            return self._estimator.joints, self._estimator.cue_width
        assert truth is not None
        if truth.joints != (wanted := len(graph_of(recipe.layout).joints)):
            raise PosebridgeError(
                f"{self.source.root / 'ground_truth.h5'} has {truth.joints} joints, but the recipe's layout "
                f"{recipe.layout} has {wanted}; name its layout in the recipe."
            )
        return truth.joints, 0

    def layout_to_be(self) -> Layout:
        """The store's layout, or that of the store that is to be made; loads the pose model for that."""
        if self.layout is not None:
            return self.layout
        joints, cue_width = self.widths()
        return Layout(self.shards, joints, cue_width)

    def make(self, shard: int, told: Callable[[int, int, int], None] = lambda shard, done, todo: None) -> ShardReport:
        """Make a shard, unless it is sealed or another worker has it. Asks the store again, under the lease.

        `told` is told (shard, clips done, clips to do) after every clip. Raises PosebridgeError where videos or room
        are missing here.
        """
        make_folder(self.store.folder)
        with Lease(self.store.lease(shard)) as lease:
            if not lease.take():
                refuse_other_version(holder(lease.path).version, self.store)
                return ShardReport(shard, leased=True)
            state = self.state(shard)
            if state.done:
                return ShardReport(shard)
            try:
                return self._make(state, lease, told)
            except LeaseLost:
                return ShardReport(shard, leased=True)

    def _make(self, state: ShardState, lease: Lease, told: Callable[[int, int, int], None]) -> ShardReport:
        self._refuse_unseen(state)
        layout = self._open()
        refuse_small_disk(len(state.copy) + len(state.todo), 1, self.store, layout)
        few_frames: list[str] = []
        rows, done = _watched(self._rows(state), self.job.recipe.frames, few_frames), 0

        def tick() -> None:
            nonlocal done
            done += 1
            lease.told = (done, len(state.todo))
            told(state.wanted.shard, *lease.told)

        computed = self._stream.computed if self._stream else None
        self._watch.restart()  # loading the pose model is once a run
        make_shard(self.store, layout, state, rows, tick, lease.check, computed, self._watch.read)
        return ShardReport(state.wanted.shard, len(state.todo), len(state.copy), tuple(few_frames))

    def _open(self) -> Layout:
        """The store, made now where there is none, and the stream of rows: once."""
        if not self._opened:
            job = self.job
            self.layout = self.store.create(self.clips, job.params.clips_per_shard, *self.widths())
            refuse_other_layout(self.layout, self.shards, self.store)
            if self._estimator is not None:
                boxes = box_source(job.recipe, self.source.truth, device_of(self._estimator))
                knobs = job.params.batch_size, job.params.max_lost_frames, job.params.decoders, self._watch
                self._stream = PoseStream(job.recipe, self._estimator, boxes, *knobs)
            self._opened = True
        assert self.layout is not None
        return self.layout

    def _rows(self, state: ShardState) -> Iterable[dict[str, Any] | Failure]:
        if self._stream is not None:
            return self._stream.run(state.todo, self.source.root, state.videos)
        assert self.source.truth is not None
        return ground_truth_rows(state.todo, self.source.truth, self.job.recipe)

    def _refuse_unseen(self, state: ShardState) -> None:
        """Its clips are no failures where the plan has seen their videos: this machine has not got them."""
        gone = state.gone
        unseen = len(gone) == len(state.todo) and len(gone) > self.job.gone
        if gone and (unseen or not self.source.root.is_dir()):
            raise PosebridgeError(
                f"{socket.gethostname()} sees no video of shard {state.wanted.shard}, first {gone[0].path!r} in "
                f"{self.source.root}; mount that folder on this machine, or leave the machine out."
            )


def refuse_small_disk(clips: int, shards: int, store: Store, layout: Layout) -> None:
    """Raise PosebridgeError where so many clips in so many new shards have no room beside what is there."""
    row_bytes = sum(column.row_bytes for column in store.columns(layout))
    need = clips * row_bytes + shards * FILE_OVERHEAD
    place = store.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise PosebridgeError(
            f"The run needs {need / 1e9:.3f} GB in {store.folder} but only {free / 1e9:.3f} GB are free; "
            "make room or name another disk with --cache-root."
        )


def refuse_other_layout(layout: Layout, shards: int, store: Store) -> None:
    """Raise PosebridgeError where another run has made the store, of other clips, since this one looked."""
    if layout.shards != shards:
        raise PosebridgeError(
            f"{store.folder} has been made with {layout.shards} shards by another run meanwhile, for {shards}; run the "
            "same command again."
        )


def refuse_other_version(version: str, store: Store) -> None:
    """Raise PosebridgeError where `version` of this program, which works or has worked on the store, is another."""
    own = versions().get("posebridge", "")
    if version and own and version != own:
        raise PosebridgeError(
            f"{store.folder} is the work of posebridge {version}, and this is {own}; install {version} here, or delete "
            "the folder and extract again."
        )


def _watched(
    rows: Iterable[dict[str, Any] | Failure], frames: int, few_frames: list[str]
) -> Iterator[dict[str, Any] | Failure]:
    """The same rows; clips that show few of their frames are added to `few_frames`."""
    for row in rows:
        if not isinstance(row, Failure) and shows_few(row["video_record"], frames):
            few_frames.append(row["clip_id"])
        yield row
