"""Extraction beside its parts: decoding, detector and pose model, each alone.

Reads a data set's videos; writes to a temporary folder only. Every figure of a ratio is measured in the same run on the
same clips.
    posebridge bench extract --dataset skelgap-mini --recipe refined --clips 16
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.bench.memory import peak_rss_mb
from pipeline.bench.timing import seconds_of
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


@dataclass(frozen=True)
class ExtractBench:
    """Seconds on the same clips. `ratio` is wall / (decode + boxes + forward); below 1 where they overlap.

    `boxes` is the detector, with as many threads as in the extraction; `forward` the bare graph where the pose model
    is one (its input prepared, no cues), else the whole estimator with its decoding and pooling. `cues_share` is what
    the cues, refinement and pooling, take in the estimator on top of all else that it does.
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
    decode, boxes, forward, with_cues, without, wall = [], [], [], [], [], []
    for repeat in range(repeats):
        decode.append(seconds_of(lambda: sum(1 for _ in _frames(clips, source))))
        boxes.append(_boxes_seconds(clips, source, device_of(estimator)))
        forward.append(sum(seconds_of(_forward(estimator, *batch)) for batch in batches))
        with_cues.append(sum(seconds_of(partial(estimator.estimate, *batch)) for batch in batches))
        without.append(sum(seconds_of(partial(estimator.estimate, b, np.zeros(len(b), bool))) for b, _ in batches))
        place = folder / str(repeat)
        write_clips(place / "bench" / "clips.csv", clips)
        run = partial(extract, "bench", "bench", recipe, root, params=params, manifests=place, cache=place)
        wall.append(seconds_of(partial(run, build_estimator=lambda recipe: estimator)))
    d, b, f, w = (float(np.median(times)) for times in (decode, boxes, forward, wall))
    cues = float(np.median(with_cues) / np.median(without)) - 1
    return ExtractBench(len(clips), crops, d, b, f, w, w / (d + b + f), cues, crops / w, peak_rss_mb())


def _boxes_seconds(clips: list[Clip], source: Source, device: torch.device) -> float:
    """What the detector takes for the sampled frames; 0 for boxes that nobody has to look for."""
    if source.recipe.boxes != "detector":
        return 0.0
    boxes = box_source(source.recipe, source.truth, device)
    return sum(seconds_of(partial(_boxes, boxes, *frame)) for frame in _frames(clips, source))


def _boxes(boxes: BoxSource, clip: Clip, position: int, frame: np.ndarray) -> np.ndarray:
    """Those of one frame, [K, 4]."""
    return boxes.find([(boxes.prepare(frame), position, [clip])])[0][0][0]


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


def _batches(
    clips: list[Clip], source: Source, estimator: Estimator, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The crops and cue rows that the extraction of these clips gives to the pose model."""
    boxes = box_source(source.recipe, source.truth, device_of(estimator))
    crops, cue_rows, last, slot = [], [], None, 0
    cue_slots = (
        set(cue_positions(source.recipe.frames, source.recipe.cue_frames).tolist()) if estimator.cue_width else set()
    )
    for clip, position, frame in _frames(clips, source):
        slot, last = (slot + 1 if clip == last else 0), clip
        for box in _boxes(boxes, clip, position, frame)[: lanes(source.recipe)]:
            crops.append(crop(frame, crop_matrix(box, estimator.crop_size), estimator.crop_size))
            cue_rows.append(slot in cue_slots)
        if len(crops) >= batch_size:
            yield np.stack(crops[:batch_size]), np.array(cue_rows[:batch_size])
            crops, cue_rows = crops[batch_size:], cue_rows[batch_size:]
    if crops:
        yield np.stack(crops), np.array(cue_rows)
