"""Extraction beside its parts: decoding, detector and pose model, each alone.

Reads a data set's videos; writes to a temporary folder only. Every figure of a ratio is measured in the same run on the
same clips.
    posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pipeline.bench.memory import peak_rss_mb
from pipeline.bench.timing import NO_TIME, Times, times_of
from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import BoxSource, box_source, lanes
from pipeline.extract.extract import extract
from pipeline.extract.plan import Source, open_ground_truth
from pipeline.hpe.base import Estimator, device_of
from pipeline.hpe.crops import crop, crop_matrix
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video
from pipeline.video.sampling import cue_positions

Batch = tuple[np.ndarray, np.ndarray]  # crops [N, H, W, 3] and which of them cues are wanted of, [N]


@dataclass(frozen=True)
class ExtractBench:
    """Seconds on the same clips, the medians of `rounds`. `ratio` is wall / (decode + boxes + forward), in the same
    round and the median of all; below 1 where they overlap. `cpu_ratio` is the same of CPU seconds, over all threads,
    which a busy machine disturbs less.

    `boxes` is the detector, with as many threads as in the extraction; `forward` the bare graph where the pose model
    is one (its input prepared, no cues), else the whole estimator with its decoding and pooling. `cues_share` is what
    the cues, refinement and pooling, take in the estimator on top of all else that it does, `cues_cpu_share` that of
    CPU seconds; a map that an ONNX file refines itself is among all else. `*_least` and `*_most` are of single rounds:
    how far the figures are to be trusted. `of_slowest` is the whole's speed beside its slowest part alone: on a GPU all
    others run beside it.
    """

    clips: int
    crops: int
    decode_seconds: float
    boxes_seconds: float
    forward_seconds: float
    wall_seconds: float
    ratio: float
    cues_share: float
    crops_per_second: float
    peak_rss_mb: float
    rounds: int
    ratio_least: float
    ratio_most: float
    cpu_ratio: float
    cues_least: float
    cues_most: float
    of_slowest: float
    cues_cpu_share: float


def bench_extract(
    clips: list[Clip],
    root: Path,
    recipe: Recipe,
    estimator: Estimator,
    folder: Path,
    params: ExtractParams,
    rounds: int = 7,
) -> ExtractBench:
    """Time decoding alone, the detector alone, the pose model alone and the real extraction, in every round; parts and
    whole take turns in being the first, and so do a batch with cues and the same without.

    `folder` is an empty temporary folder for the extractions. Raises PosebridgeError without clips, and for one whose
    video cannot be read.
    """
    if not clips:
        raise PosebridgeError("There is no clip to measure; list some with `posebridge ingest`.")
    source = Source(root, recipe, open_ground_truth(root, recipe))
    batches = list(batches_of(clips, source, estimator, params.batch_size))
    run = partial(extract, "bench", "bench", recipe, root, params=params, build_estimator=lambda recipe: estimator)

    def whole(count: int, name: str) -> Times:
        place = folder / name
        write_clips(place / "bench" / "clips.csv", clips[:count])
        return times_of(partial(run, manifests=place, cache=place))

    def parts() -> list[Times]:
        decode = times_of(lambda: sum(1 for _ in _frames(clips, source)))
        forward = sum((times_of(_forward(estimator, *batch)) for batch in batches), NO_TIME)
        return [decode, _boxes_times(clips, source, device_of(estimator)), forward]

    whole(1, "first")  # what is imported and allocated once
    rows, cues = [], []
    for number in range(rounds):
        before = whole(len(clips), str(number)) if number % 2 else None
        alone = parts()
        cues.append(_cues_times(estimator, batches, number))
        rows.append([*alone, whole(len(clips), str(number)) if before is None else before])
    times, with_and_without = np.array(rows), np.array(cues)  # [rounds, 4, 2] and [rounds, 2, batches, 2]: wall, CPU
    d, b, f, w = np.median(times[..., 0], 0).tolist()
    ratios = times[:, 3] / times[:, :3].sum(1)  # [rounds, wall and CPU]
    totals = with_and_without[..., 0].sum(-1)  # [rounds, 2]
    shares = totals[:, 0] / totals[:, 1] - 1
    with_cues, without = np.median(with_and_without, 0).sum(1)  # a round that was disturbed spoils one of its batches
    share, cpu_share = (with_cues / without - 1).tolist()
    return ExtractBench(
        clips=len(clips), crops=sum(len(cue_rows) for _, cue_rows in batches), decode_seconds=d, boxes_seconds=b,
        forward_seconds=f, wall_seconds=w, ratio=float(np.median(ratios[:, 0])),
        cues_share=share, crops_per_second=sum(len(rows) for _, rows in batches) / w,
        peak_rss_mb=peak_rss_mb(), rounds=rounds, ratio_least=float(ratios[:, 0].min()),
        ratio_most=float(ratios[:, 0].max()), cpu_ratio=float(np.median(ratios[:, 1])),
        cues_least=float(shares.min()), cues_most=float(shares.max()), of_slowest=max(d, b, f) / w,
        cues_cpu_share=cpu_share,
    )  # fmt: skip


def _cues_times(estimator: Estimator, batches: list[Batch], number: int) -> list[list[Times]]:
    """The estimator's with cues and without, for each batch; one right after the other, in turns the first."""
    found: list[list[Times]] = [[], []]
    for place, (crops, cue_rows) in enumerate(batches):
        masks = cue_rows, np.zeros(len(cue_rows), bool)
        for kind in (0, 1) if (place + number) % 2 else (1, 0):
            found[kind].append(times_of(partial(estimator.estimate, crops, masks[kind])))
    return found


def _boxes_times(clips: list[Clip], source: Source, device: torch.device) -> Times:
    """What the detector takes for the sampled frames; 0 for boxes that nobody has to look for."""
    if source.recipe.boxes != "detector":
        return NO_TIME
    boxes = box_source(source.recipe, source.truth, device)
    frames, total = _frames(clips, source), NO_TIME
    while some := list(islice(frames, boxes.together)):
        total = total + times_of(partial(_boxes, boxes, some))
    return total


def _boxes(boxes: BoxSource, frames: Sequence[tuple[Clip, int, np.ndarray]]) -> list[np.ndarray]:
    """Those of each frame, [K, 4]."""
    asked = [(boxes.prepare(frame), position, [clip]) for clip, position, frame in frames]
    return [found[0][0] for found in boxes.find(asked)]


def _forward(estimator: Estimator, crops: np.ndarray, cue_rows: np.ndarray) -> Callable[[], object]:
    """The pose model on a batch, as bare as it can be had."""
    bare = getattr(estimator, "bare", None)
    return bare(crops) if bare else partial(estimator.estimate, crops, cue_rows)


def _frames(clips: list[Clip], source: Source) -> Iterator[tuple[Clip, int, np.ndarray]]:
    """Decode the sampled frames of every clip, and do nothing else."""
    for clip in clips:
        try:
            with open_video(clip.file(source.root), image_fps=clip.image_fps) as video:
                positions = video.sample(source.recipe.frames, clip.start, clip.end)
                for position, _, frame in video.frames(np.unique(positions).tolist()):
                    yield clip, position, frame
        except VideoError as error:
            raise PosebridgeError(
                f"The clip {clip.clip_id} cannot be measured ({error}); bring its video, or measure fewer --clips."
            ) from None


def batches_of(clips: list[Clip], source: Source, estimator: Estimator, batch_size: int) -> Iterator[Batch]:
    """The crops and cue rows that the extraction of these clips gives to the pose model."""
    boxes = box_source(source.recipe, source.truth, device_of(estimator))
    crops, cue_rows, last, slot = [], [], None, 0
    cue_slots = (
        set(cue_positions(source.recipe.frames, source.recipe.cue_frames).tolist()) if estimator.cue_width else set()
    )
    for clip, position, frame in _frames(clips, source):
        slot, last = (slot + 1 if clip == last else 0), clip
        for box in _boxes(boxes, [(clip, position, frame)])[0][: lanes(source.recipe)]:
            matrix = crop_matrix(box, estimator.crop_size)
            crops.append(crop(frame, matrix, estimator.crop_size, source.recipe.light))
            cue_rows.append(slot in cue_slots)
        if len(crops) >= batch_size:
            yield np.stack(crops[:batch_size]), np.array(cue_rows[:batch_size])
            crops, cue_rows = crops[batch_size:], cue_rows[batch_size:]
    if crops:
        yield np.stack(crops), np.array(cue_rows)
