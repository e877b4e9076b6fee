"""Which test clips repeat a train clip: looked up when a data set has been extracted, known before anything is trained.

Reads an extraction and clips.csv; writes cache/<dataset>/<recipe>/duplicates.json, names of clips, which training
reads where it may not open a test clip. Command: posebridge extract --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.dataset import fingerprint
from pipeline.manifest import Clip
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


def note_duplicates(index: Path, clips: Sequence[Clip], store_root: Path | None = None) -> list[Duplicate]:
    """The duplicates in the extraction of `index`, noted beside it; looked for only if it or a part has changed.

    Raises PosebridgeError as the reader of the extraction does.
    """
    known = noted_duplicates(index, clips)
    if known is not None:
        return known
    with CacheReader(index, store_root) as reader:
        found = find_duplicates(reader, clips)
    values = {"of": _state(index, clips), "duplicates": [asdict(pair) for pair in found]}
    draft = _path(index).with_name(f".duplicates.{os.getpid()}")
    draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draft.replace(_path(index))
    return found


def noted_duplicates(index: Path, clips: Sequence[Clip]) -> list[Duplicate] | None:
    """What `note_duplicates` noted; None where it has not looked at this extraction with these parts, or its note is
    damaged.
    """
    try:
        values = json.loads(_path(index).read_text(encoding="utf-8"))
        return [Duplicate(**pair) for pair in values["duplicates"]] if values["of"] == _state(index, clips) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def find_duplicates(reader: CacheReader, clips: Sequence[Clip], limit: float | None = None) -> list[Duplicate]:
    """Test clips that repeat a train clip: same videos, then by distance.

    A video is the same by the sha256 of clips.csv and by the identity that the cache noted; `limit` is that of
    `near_duplicates`.
    """
    there = set(reader.clip_ids)
    parts = {
        part: [clip for clip in clips if clip.part == part and clip.clip_id in there] for part in ("train", "test")
    }
    ids = {part: [clip.clip_id for clip in members] for part, members in parts.items()}
    if not (ids["train"] and ids["test"]):
        return []
    identities = {part: {clip_id: _identity(reader, clip_id) for clip_id in ids[part]} for part in ids}
    hashes = {part: {clip.clip_id: clip.sha256 for clip in members} for part, members in parts.items()}
    same = same_videos(hashes["train"], hashes["test"]) | same_videos(identities["train"], identities["test"])
    found = [Duplicate(test, train, "same video", 0.0) for test, train in same.items()]
    train, test = (_signatures(reader, ids[part]) for part in ("train", "test"))
    for row, nearest, distance in near_duplicates(train, test, limit):
        if ids["test"][row] not in same:
            pair = ids["test"][row], ids["train"][nearest]
            found.append(Duplicate(*pair, "near-duplicate", round(distance, 4)))
    return found


def _path(index: Path) -> Path:
    return index.with_name("duplicates.json")


def _state(index: Path, clips: Sequence[Clip]) -> str:
    """A hash of all that the list depends on: the extraction, and which clips are train and which are test."""
    content = index.read_text(encoding="utf-8") if index.is_file() else ""
    return fingerprint(content, [(clip.clip_id, clip.part, clip.sha256) for clip in clips])


def _identity(reader: CacheReader, clip_id: str) -> str:
    shard = reader.shard(clip_id)
    return shard["video_identity"][shard.rows[clip_id]].decode()


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
