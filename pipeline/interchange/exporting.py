"""The cache's skeletons as a PYSKL / MMAction2 pickle, for the programs of others.

Reads cache/<dataset>/<recipe>/index.json, its shards and manifests/<dataset>/clips.csv; writes one file.
    posebridge cache export skeletons.pkl --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.interchange.annotations import Annotation, write_pickle
from pipeline.manifest.clips import Clip

NAMES = ("keypoints", "scores", "person_valid", "video_height", "video_width")


def export_skeletons(reader: CacheReader, clips: list[Clip], path: Path) -> int:
    """Write the extracted ones of `clips`, with their labels (-1 where unknown) and parts; returns their number.

    What is written are the sampled frames; a person who is never there is left out, one who is not there in a frame
    has scores 0 in it. Raises PosebridgeError where none of `clips` was extracted.
    """
    extracted = set(reader.clip_ids)
    clips = [clip for clip in clips if clip.clip_id in extracted]
    if not clips:
        raise PosebridgeError(f"{path} is not written, as no clip of clips.csv is extracted; run `posebridge extract`.")
    splits = {part: [clip.clip_id for clip in clips if clip.part == part] for part in ("train", "test")}
    return write_pickle(path, _annotations(reader, clips), {part: ids for part, ids in splits.items() if ids})


def _annotations(reader: CacheReader, clips: list[Clip]) -> Iterator[Annotation]:
    for clip in clips:
        row = {name: array[0] for name, array in reader.read([clip.clip_id], NAMES).items()}
        there = row["person_valid"].any(1)  # [M]
        there[0] = True
        yield Annotation(
            clip_id=clip.clip_id,
            label=-1 if clip.label is None else clip.label,
            keypoints=row["keypoints"][there],
            scores=np.where(row["person_valid"][..., None], row["scores"], 0)[there],
            height=int(row["video_height"]),
            width=int(row["video_width"]),
        )
