"""Measurements of stage one: extraction beside its parts, memory against length, reads from the cache.

Reads a data set's videos and an extraction; writes to a temporary folder only. Every figure of a ratio is measured in
the same run on the same clips.
    posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import box_source, lanes
from pipeline.extract.extract import extract
from pipeline.extract.plan import Source, open_ground_truth
from pipeline.hpe.base import Estimator
from pipeline.hpe.crops import crop, crop_matrix
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.video.decode import Video, VideoError
from pipeline.video.noise import write_noise
from pipeline.video.sampling import cue_positions


@dataclass(frozen=True)
class ExtractBench:
    """Seconds on the same clips. `ratio` is wall / (decode + boxes + forward); below 1 where they overlap.

    `boxes` is the detector, with as many threads as in the extraction; `forward` the bare graph where the pose model
    is one (its input prepared, no cues), else the whole estimator with its decoding and pooling.
    """

    clips: int
    crops: int
    decode_seconds: float
    boxes_seconds: float
    forward_seconds: float
    wall_seconds: float
    ratio: float
    crops_per_second: float
    peak_rss_mb: float


def bench_extract(
    clips: list[Clip],
    root: Path,
    recipe: Recipe,
    estimator: Estimator,
    folder: Path,
    params: ExtractParams,
    repeats: int = 3,
) -> ExtractBench:
    """Time decoding alone, the detector alone, the pose model alone and the real extraction; the medians of `repeats`
    alternating rounds.

    `folder` is an empty temporary folder for the extractions. Raises PosebridgeError without clips, and for one whose
    video cannot be read.
    """
    if not clips:
        raise PosebridgeError("There is no clip to measure; list some with `posebridge ingest`.")
    source = Source(root, recipe, open_ground_truth(root, recipe))
    batches = list(_batches(clips, source, estimator, params.batch_size))
    estimator.estimate(*batches[0])  # warm up
    crops = sum(len(cue_rows) for _, cue_rows in batches)
    decode, boxes, forward, wall = [], [], [], []
    for repeat in range(repeats):
        decode.append(_timed(lambda: sum(1 for _ in _frames(clips, source))))
        boxes.append(_boxes_seconds(clips, source))
        forward.append(sum(_timed(_forward(estimator, *batch)) for batch in batches))
        place = folder / str(repeat)
        write_clips(place / "bench" / "clips.csv", clips)
        run = partial(extract, "bench", "bench", recipe, root, params=params, manifests=place, cache=place)
        wall.append(_timed(partial(run, build_estimator=lambda recipe: estimator)))
    d, b, f, w = (float(np.median(times)) for times in (decode, boxes, forward, wall))
    return ExtractBench(len(clips), crops, d, b, f, w, w / (d + b + f), crops / w, peak_rss_mb())


def _boxes_seconds(clips: list[Clip], source: Source) -> float:
    """What the detector takes for the sampled frames; 0 for boxes that nobody has to look for."""
    if source.recipe.boxes != "detector":
        return 0.0
    boxes = box_source(source.recipe, source.truth)
    return sum(_timed(partial(boxes, *frame)) for frame in _frames(clips, source))


def _forward(estimator: Estimator, crops: np.ndarray, cue_rows: np.ndarray) -> Callable[[], object]:
    """The pose model on a batch, as bare as it can be had."""
    bare = getattr(estimator, "bare", None)
    return bare(crops) if bare else partial(estimator.estimate, crops, cue_rows)


def _frames(clips: list[Clip], source: Source) -> Iterator[tuple[Clip, int, np.ndarray]]:
    """Decode the sampled frames of every clip, and do nothing else."""
    for clip in clips:
        try:
            with Video(clip.file(source.root)) as video:
                positions = video.sample(source.recipe.frames, clip.start, clip.end)
                for position, _, frame in video.frames(np.unique(positions).tolist()):
                    yield clip, position, frame
        except VideoError as error:
            raise PosebridgeError(
                f"The clip {clip.clip_id} cannot be measured ({error}); bring its video, or measure fewer --clips."
            ) from None


def _batches(
    clips: list[Clip], source: Source, estimator: Estimator, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The crops and cue rows that the extraction of these clips gives to the pose model."""
    boxes = box_source(source.recipe, source.truth)
    crops, cue_rows, last, slot = [], [], None, 0
    cue_slots = (
        set(cue_positions(source.recipe.frames, source.recipe.cue_frames).tolist()) if estimator.cue_width else set()
    )
    for clip, position, frame in _frames(clips, source):
        slot, last = (slot + 1 if clip == last else 0), clip
        for box in boxes(clip, position, frame)[0][: lanes(source.recipe)]:
            crops.append(crop(frame, crop_matrix(box, estimator.crop_size), estimator.crop_size))
            cue_rows.append(slot in cue_slots)
        if len(crops) >= batch_size:
            yield np.stack(crops[:batch_size]), np.array(cue_rows[:batch_size])
            crops, cue_rows = crops[batch_size:], cue_rows[batch_size:]
    if crops:
        yield np.stack(crops), np.array(cue_rows)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


@dataclass(frozen=True)
class MemoryBench:
    """Peak resident memory of a process that samples frames from a short and from a long video, in MB."""

    short_frames: int
    long_frames: int
    short_mb: float
    long_mb: float
    ratio: float


_SAMPLE = """
import sys
from pathlib import Path
from pipeline.bench.stage_one import peak_rss_mb
from pipeline.video.decode import Video
from pipeline.video.noise import write_noise
with Video(Path(sys.argv[1])) as video:
    for _ in video.frames(sorted(set(video.sample(int(sys.argv[2])).tolist()))):
        pass
print(peak_rss_mb())
"""


def bench_memory(folder: Path, frames: int = 300, factor: int = 10, sampled: int = 64) -> MemoryBench:
    """Measure a video of `frames` frames and one `factor` times as long, each in a process of its own."""
    peaks = []
    for count in (frames, frames * factor):
        path = folder / f"{count}.mp4"
        write_noise(path, count)
        command = [sys.executable, "-c", _SAMPLE, str(path), str(sampled)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if done.returncode:
            raise PosebridgeError(f"The measurement of {path.name} failed: {done.stderr.strip().splitlines()[-1]}.")
        peaks.append(float(done.stdout))
    return MemoryBench(frames, frames * factor, peaks[0], peaks[1], peaks[1] / peaks[0])


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
    """Read every clip in batches, in order and at random; medians of `rounds`, with warm files."""
    with CacheReader(index, store_root) as reader:
        if not reader.clip_ids:
            raise PosebridgeError(f"{index} has no clip to read; see why they failed with `posebridge cache stats`.")
        names: list[str] = [name for name in reader.names if name in ("keypoints", "scores", "cues", "cue_scores")]
        ordered = np.array(reader.clip_ids)
        places = {clip_id: _bare_rows(reader, clip_id, names) for clip_id in reader.clip_ids}
        size = sum(view.nbytes for view in places[reader.clip_ids[0]])

        def rate(read: Callable[[list[str]], object], order: np.ndarray) -> float:
            parts = [order[i : i + batch].tolist() for i in range(0, len(order), batch)]
            seconds = [_timed(lambda: [read(part) for part in parts]) for _ in range(rounds + 1)]
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
