"""What an extraction has to do: the data set, the videos and the store compared, shard by shard. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.cache.store import Receipt, Store, row_hash, rows_hash, shard_of
from pipeline.errors import PosebridgeError
from pipeline.extract.ground_truth import GroundTruth
from pipeline.extract.stream import BoxSource, detected, full_frame
from pipeline.files.hashing import sha256_file
from pipeline.files.names import place_of
from pipeline.hpe.detector import Detector
from pipeline.hpe.factory import check_backend
from pipeline.hpe.weights import find_detector
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import graph_of
from pipeline.video.identity import VideoRecord, identify


@dataclass
class ShardPlan:
    """What is to be done for one shard."""

    shard: int
    clips: list[Clip]
    hashes: dict[str, str]  # clip_id -> Source.row_hash, all clips of the shard
    failure_hashes: dict[str, str]  # clip_id -> Source.failure_hash
    videos: dict[str, VideoRecord]
    predecessor: Receipt | None
    copy: list[str] = field(default_factory=list)  # unchanged clips, by id
    estimate: list[Clip] = field(default_factory=list)
    keep_failed: list[Failure] = field(default_factory=list)  # failures that are not tried again
    done: bool = False

    def expected(self) -> list[str]:
        """The clips of the new shard, in the order of its file."""
        failed = {failure.clip_id for failure in self.keep_failed}
        return [clip.clip_id for clip in self.clips if clip.clip_id not in failed]


@dataclass(frozen=True)
class Source:
    """Where rows come from: the data set's root, the recipe, and the ground truth where the recipe uses it."""

    root: Path
    recipe: Recipe
    truth: GroundTruth | None

    @property
    def needs_videos(self) -> bool:
        """Whether videos are opened at all."""
        return self.recipe.needs_videos

    def row_hash(self, clip: Clip) -> str:
        """See `store.row_hash`; ground truth counts where it is used."""
        return row_hash(clip, self.truth.content_hash(clip.clip_id) if self.truth else "")

    def failure_hash(self, clip: Clip) -> str:
        """As `row_hash`, with what ingest saw of the video: a failure is tried again when that has changed."""
        return row_hash(clip, str([self.row_hash(clip), clip.sha256, clip.fps, clip.frames, clip.height, clip.width]))

    def boxes(self) -> BoxSource:
        """Where the persons are. Raises PosebridgeError where the recipe's detector is missing or none."""
        if self.recipe.boxes == "detector":
            return detected(Detector(find_detector(self.recipe).path), self.recipe)
        if self.truth is None:
            return full_frame
        truth = self.truth
        return lambda clip, position, frame: (truth.box(clip.clip_id, position)[None], np.ones(1))


def check_recipe(recipe: Recipe) -> None:
    """Raise PosebridgeError for a recipe that no extraction can follow."""
    if recipe.backend == "import":
        raise PosebridgeError(
            "A recipe with `backend: import` has no videos to extract; fill it with `posebridge cache import FILE`."
        )
    if recipe.needs_videos:
        check_backend(recipe)
    if recipe.boxes not in ("full_frame", "manifest", "detector"):
        raise PosebridgeError(f"The recipe's boxes {recipe.boxes!r} are unknown; use full_frame, manifest or detector.")
    if recipe.cues not in ("refined", "levels", "none"):
        raise PosebridgeError(f"The recipe's cues {recipe.cues!r} are unknown; use refined, levels or none.")
    graph_of(recipe.layout)
    if recipe.cues != "none" and recipe.layout != "coco17":
        raise PosebridgeError(
            f"The anchors of cues are made of the joints of coco17, and the recipe's layout is {recipe.layout!r}; set "
            "`cues: none`."
        )
    if recipe.backend == "ground_truth" and recipe.cues != "none":
        raise PosebridgeError("A recipe with `backend: ground_truth` has no cues; set `cues: none` in params.yaml.")


def open_ground_truth(root: Path, recipe: Recipe) -> GroundTruth | None:
    """The ground truth of a data set where the recipe takes boxes or skeletons from it, else None."""
    wanted = recipe.backend == "ground_truth" or recipe.boxes == "manifest"
    return GroundTruth(root / "ground_truth.h5") if wanted else None


def plan_shards(
    clips: list[Clip], shards: int, store: Store, source: Source, retry_failed: bool
) -> Iterator[ShardPlan]:
    """Compare what is asked for with what the receipts say is there."""
    by_shard: dict[int, list[Clip]] = {shard: [] for shard in range(shards)}
    for clip in sorted(clips, key=lambda clip: (clip.path, clip.clip_id)):
        by_shard[shard_of(clip.path, shards)].append(clip)
    for shard, members in by_shard.items():
        yield _plan(shard, members, store, source, retry_failed)


def _plan(shard: int, clips: list[Clip], store: Store, source: Source, retry_failed: bool) -> ShardPlan:
    receipt = store.receipt(shard)
    known = receipt.videos if receipt else {}
    videos = _records(clips, source, known) if source.needs_videos else {}
    plan = ShardPlan(
        shard,
        clips,
        {clip.clip_id: source.row_hash(clip) for clip in clips},
        {clip.clip_id: source.failure_hash(clip) for clip in clips},
        videos,
        receipt,
    )
    there, failed, reasons = {}, {}, {}
    if receipt:
        there = receipt.clips if store.has_file(receipt) else {}
        failed = {} if retry_failed else receipt.failed
        reasons = {failure.clip_id: failure for failure in receipt.failures}
    for clip in clips:
        same_video = not videos or (clip.path in known and known[clip.path].identity == videos[clip.path].identity)
        if same_video and there.get(clip.clip_id) == plan.hashes[clip.clip_id]:
            plan.copy.append(clip.clip_id)
        elif same_video and failed.get(clip.clip_id) == plan.failure_hashes[clip.clip_id]:
            plan.keep_failed.append(reasons[clip.clip_id])
        else:
            plan.estimate.append(clip)
    if receipt and store.has_file(receipt) and receipt.rows_sha256 == rows_hash(plan.hashes.values()):
        plan.done = not plan.estimate
    if receipt and plan.copy and not plan.done and not _is_sound(store.folder / receipt.file, receipt.sha256):
        plan.estimate = [clip for clip in clips if clip in plan.estimate or clip.clip_id in plan.copy]
        plan.copy = []  # a damaged shard is no source of copies
    return plan


def _is_sound(path: Path, sha256: str) -> bool:
    try:
        return sha256_file(path) == sha256
    except OSError:  # a bad sector, say
        return False


def _records(clips: list[Clip], source: Source, known: dict[str, VideoRecord]) -> dict[str, VideoRecord]:
    """The videos as they are now. What the cache has of a video outlives it: one that is gone, or cannot be read at
    the moment, keeps its record.
    """
    records = {}
    for path in sorted({clip.path for clip in clips}):
        record, former = identify(place_of(source.root, path), known.get(path)), known.get(path)
        records[path] = former if former and former.identity and not record.identity else record
    return records
