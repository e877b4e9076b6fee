"""What an extraction will cost on this machine: hours and bytes, from a short probe.

Decoding and the pose model are timed apart, on a generated video or on some videos of a data set, and put together by
the number of frames and crops. Writes nothing.
    posebridge cache estimate --recipe refined
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cache.schema import columns
from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import lanes
from pipeline.hpe.base import Estimator
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.video.decode import VideoError
from pipeline.video.image_folder import open_video
from pipeline.video.sampling import cue_positions

TEXT_BYTES = {"clip_id": 40, "video_path": 60, "video_identity": 48}


@dataclass(frozen=True)
class Corpus:
    """A data set as it is to be extracted: frames a clip that must be decoded, in the size as it is distributed."""

    name: str
    clips: int
    frames: int
    width: int
    height: int
    note: str


CORPORA = (
    Corpus("ntu60", 56_880, 85, 1920, 1080, "clips of about 2.8 s at 30 fps"),
    Corpus("ntu120", 114_480, 80, 1920, 1080, "clips of about 2.7 s at 30 fps"),
    Corpus("pku_mmd", 20_000, 270, 1920, 1080, "1,076 videos of 3 to 4 minutes, decoded once, shared out to segments"),
    Corpus("kinetics200", 120_000, 300, 340, 256, "taken as half of Kinetics-400"),
    Corpus("kinetics400", 240_000, 300, 340, 256, "train and val, 10 s at 30 fps, kept with a short side of 256"),
)


@dataclass(frozen=True)
class Probe:
    """Speeds of this machine, now: megapixels decoded and crops estimated in a second."""

    decoded_megapixels_per_second: float
    crops_per_second: float
    joints: int
    cue_width: int


@dataclass(frozen=True)
class Estimate:
    """What one data set needs. Decoding and the pose model overlap at best; `hours`, their sum, is cautious."""

    name: str
    clips: int
    hours: float
    decode_hours: float
    pose_hours: float
    bytes: int
    bytes_per_clip: int
    note: str


def corpus_of(name: str, clips: Sequence[Clip]) -> Corpus:
    """An ingested data set, with the mean frames and size that `ingest` noted of its videos."""
    known = [clip for clip in clips if clip.frames and clip.width and clip.height]
    if not known:
        raise PosebridgeError(
            f"The clips of {name} have no frames noted; run `posebridge ingest --dataset {name} --probe`."
        )
    by_path = {clip.path: clip for clip in known}.values()  # a video of many segments is decoded once
    frames, width, height = (
        round(sum(getattr(clip, key) or 0 for clip in by_path) / len(by_path)) for key in ("frames", "width", "height")
    )
    return Corpus(name, len(clips), round(frames * len(by_path) / len(known)), width, height, "as ingested")


def probe(
    recipe: Recipe, estimator: Estimator, videos: Sequence[Path], seconds: float = 4.0, batch_size: int = 16
) -> Probe:
    """Time decoding of `videos` and the pose model on grey crops, each for about `seconds`/2.

    Raises PosebridgeError for a video that cannot be read.
    """
    pixels, begun = 0, time.perf_counter()
    for path in itertools.cycle(videos):
        if pixels and time.perf_counter() - begun > seconds / 2:
            break
        try:
            with open_video(path) as video:
                wanted = np.unique(video.sample(recipe.frames)).tolist()
                sizes = [frame.shape[0] * frame.shape[1] for *_, frame in video.frames(wanted)]  # all the same
                pixels += sizes[0] * (wanted[-1] + 1)
        except VideoError as error:
            raise PosebridgeError(f"{path} cannot be probed ({error}); name another data set.") from None
    megapixels = pixels / 1e6 / (time.perf_counter() - begun)

    width, height = estimator.crop_size
    crops = np.full((batch_size, height, width, 3), 128, np.uint8)
    share = len(cue_positions(recipe.frames, recipe.cue_frames)) / recipe.frames
    cue_rows = np.arange(batch_size) < (share * batch_size if estimator.cue_width else 0)
    estimator.estimate(crops, cue_rows)  # warm up
    done, begun = 0, time.perf_counter()
    while not done or time.perf_counter() - begun < seconds / 2:
        estimator.estimate(crops, cue_rows)
        done += batch_size
    return Probe(megapixels, done / (time.perf_counter() - begun), estimator.joints, estimator.cue_width)


def estimate(corpus: Corpus, recipe: Recipe, measured: Probe) -> Estimate:
    """The cost of one data set: every frame decoded once, T frames of every person estimated."""
    row_bytes = sum(c.row_bytes for c in columns(recipe, measured.joints, measured.cue_width, TEXT_BYTES))
    megapixels = corpus.frames * corpus.width * corpus.height / 1e6
    decode = corpus.clips * megapixels / measured.decoded_megapixels_per_second / 3600
    pose = corpus.clips * recipe.frames * lanes(recipe) / measured.crops_per_second / 3600
    return Estimate(
        name=corpus.name,
        clips=corpus.clips,
        hours=decode + pose,
        decode_hours=decode,
        pose_hours=pose,
        bytes=corpus.clips * row_bytes,
        bytes_per_clip=row_bytes,
        note=corpus.note,
    )
