"""Which test clips repeat a train clip: looked up before training, in the cache that is trained on.

Reads an extraction and clips.csv, writes nothing. Nothing of a test clip but its name leaves this file.
Command: posebridge train --dataset skelgap-mini --protocol compositional_18_6 --run posebridge --duplicates fail
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.dataset import Dataset
from pipeline.protocol.duplicates import Signatures, near_duplicates, same_videos
from pipeline.skeleton.graph import graph_of

BATCH = 256


@dataclass(frozen=True)
class Duplicate:
    """A test clip and the train clip that it repeats. `distance` is 0 for the same video."""

    test: str
    train: str
    kind: str  # "same video" or "near-duplicate"
    distance: float


def find_duplicates(dataset: Dataset, recipe: str, limit: float | None = None) -> list[Duplicate]:
    """Test clips of the extraction by `recipe` that repeat one of its train clips: same videos, then by distance.

    A video is the same by the sha256 of clips.csv and by the identity that the cache noted; `limit` is that of
    `near_duplicates`. Raises PosebridgeError as the reader of the extraction does.
    """
    with dataset.reader(recipe) as reader:
        there = set(reader.clip_ids)
        parts = {
            part: [clip for clip in dataset.clips if clip.part == part and clip.clip_id in there]
            for part in ("train", "test")
        }
        ids = {part: [clip.clip_id for clip in clips] for part, clips in parts.items()}
        identities = {part: {clip_id: _identity(reader, clip_id) for clip_id in ids[part]} for part in ids}
        hashes = {part: {clip.clip_id: clip.sha256 for clip in clips} for part, clips in parts.items()}
        same = same_videos(hashes["train"], hashes["test"]) | same_videos(identities["train"], identities["test"])
        found = [Duplicate(test, train, "same video", 0.0) for test, train in same.items()]
        if ids["train"] and ids["test"]:
            train, test = (_signatures(reader, ids[part]) for part in ("train", "test"))
            for row, nearest, distance in near_duplicates(train, test, limit):
                if ids["test"][row] not in same:
                    pair = ids["test"][row], ids["train"][nearest]
                    found.append(Duplicate(*pair, "near-duplicate", round(distance, 4)))
    return found


def _identity(reader: CacheReader, clip_id: str) -> str:
    shard = reader.shard(clip_id)
    return shard.arrays["video_identity"][shard.rows[clip_id]].decode()


def _signatures(reader: CacheReader, clip_ids: Sequence[str]) -> Signatures:
    """Batch by batch, since the cues of a large data set do not fit into memory."""
    names = [name for name in ("keypoints", "scores", "person_valid", "cues", "cue_scores") if name in reader.names]
    graph, batches = graph_of(reader.recipe.layout), []
    for first in range(0, len(clip_ids), BATCH):
        batches.append(Signatures.of(**reader.read(clip_ids[first : first + BATCH], names), graph=graph))
    cues = [batch.cues for batch in batches if batch.cues is not None]
    return Signatures(
        np.concatenate([batch.skeletons for batch in batches]),
        np.concatenate(cues) if cues else None,
        np.concatenate([batch.seen for batch in batches]),
    )
