"""Which test clips repeat a train clip: looked up when a data set has been extracted, known before anything is trained.

Reads an extraction and clips.csv; writes cache/<dataset>/<recipe>/duplicates.json, names of clips, which training
reads where it may not open a test clip. Command: posebridge extract --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from pipeline.cache.reader import CacheReader
from pipeline.cache.sealed import read_sealed, seal, typed
from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_durably
from pipeline.files.hashing import fingerprint
from pipeline.manifest.clips import Clip
from pipeline.protocol import films
from pipeline.protocol.films import Film
from pipeline.protocol.neighbours import nearest
from pipeline.skeleton.graph import graph_of

HOW = "thumbnails"  # what is noted by another way of looking is looked for anew
BATCH = 256
CANDIDATES = 5  # train clips that a test clip is compared with, and as many that its mirror image is


@dataclass(frozen=True)
class Duplicate:
    """A test clip and the train clip that it repeats. `distance` is 0 for the same video; else as films.py measures it,
    or, of skeletons without pictures, signatures.py. Labels are class indices, None where unknown.
    """

    test: str
    train: str
    kind: str  # "same video" or "near-duplicate"
    distance: float
    test_label: int | None = None
    train_label: int | None = None


@dataclass(frozen=True)
class Note:
    """duplicates.json."""

    of: str  # the `_state` that was looked at
    duplicates: list[Duplicate]


NOTE = TypeAdapter(Note)


def count_told(found: Sequence[Duplicate]) -> str:
    """`1 test clip repeats a train clip`, `3 test clips repeat train clips`."""
    return "1 test clip repeats a train clip" if len(found) == 1 else f"{len(found)} test clips repeat train clips"


def note_duplicates(index: Path, clips: Sequence[Clip], store_root: Path | None = None) -> list[Duplicate]:
    """The duplicates in the extraction of `index`, noted beside it; looked for only if it or a part has changed.

    Raises PosebridgeError as the reader of the extraction does.
    """
    known = noted_duplicates(index, clips)
    if known is not None:
        return known
    with CacheReader(index, store_root) as reader:
        found = find_duplicates(reader, clips)
    values = seal({"of": _state(index, clips), "duplicates": [asdict(pair) for pair in found]})
    write_durably(_path(index), (json.dumps(values, indent=1) + "\n").encode())
    return found


def noted_duplicates(index: Path, clips: Sequence[Clip]) -> list[Duplicate] | None:
    """What `note_duplicates` noted; None where it has not looked at this extraction with these parts, or its note is
    damaged.
    """
    path, remedy = _path(index), "it is made again"
    try:
        note = typed(NOTE, read_sealed(path, remedy), path, remedy)
    except PosebridgeError:
        return None
    return note.duplicates if note.of == _state(index, clips) else None


def find_duplicates(reader: CacheReader, clips: Sequence[Clip], limit: float | None = None) -> list[Duplicate]:
    """Test clips that repeat a train clip: same videos, then by distance.

    A video is the same by the sha256 of clips.csv and by the identity that the cache noted. Near ones are found by the
    thumbnails of their frames, or by skeletons where no video was opened. `limit` is the distance of a duplicate, by
    default that of films.py or signatures.py. Clips of the part `both` are not looked at: whether two of them are train
    and test is for a protocol to say, and that of gym keeps equal photos together.
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
    label = {clip.clip_id: clip.label for members in parts.values() for clip in members}
    found = [Duplicate(test, train, "same video", 0.0, label[test], label[train]) for test, train in same.items()]
    others = [clip_id for clip_id in ids["test"] if clip_id not in same]
    if "thumbnail" in reader.names:
        near = _by_films(reader, ids["train"], others, films.LIMIT if limit is None else limit)
    elif "keypoints" not in reader.names:  # imported features: equal ones have one identity
        near = []
    else:  # of all test clips: the limit goes by how near most of them are
        near = _by_skeletons(reader, ids["train"], ids["test"], limit)
    for test_id, train_id, distance in near:
        if test_id not in same:
            labels = label[test_id], label[train_id]
            found.append(Duplicate(test_id, train_id, "near-duplicate", round(distance, 4), *labels))
    return found


def same_videos(train: Mapping[str, str], test: Mapping[str, str]) -> dict[str, str]:
    """Test clip -> a train clip of the same content. Both clip_id -> hash; an empty hash is like no other."""
    first: dict[str, str] = {}
    for clip_id, content in train.items():
        if content:
            first.setdefault(content, clip_id)
    return {clip_id: first[content] for clip_id, content in test.items() if content in first}


def _path(index: Path) -> Path:
    return index.with_name("duplicates.json")


def _state(index: Path, clips: Sequence[Clip]) -> str:
    """A hash of all that the list depends on: the extraction, and which clips are train and which are test."""
    content = index.read_bytes().decode(errors="replace") if index.is_file() else ""
    return fingerprint(HOW, content, [(clip.clip_id, clip.part, clip.label, clip.sha256) for clip in clips])


def _identity(reader: CacheReader, clip_id: str) -> str:
    shard = reader.shard(clip_id)
    return shard["video_identity"][shard.rows[clip_id]].decode()


def _by_films(
    reader: CacheReader, train: Sequence[str], test: Sequence[str], limit: float
) -> list[tuple[str, str, float]]:
    """(test clip, train clip, distance) below the limit, the nearest first. In memory are a signature of every train
    clip, 512 bytes each, and the pictures of one batch.
    """
    known = np.concatenate([
        np.stack([films.signature(film) for film in batch]) for _, batch in _film_batches(reader, train)
    ])  # fmt: skip
    found = []
    for clip_ids, batch in _film_batches(reader, test):
        best: dict[str, tuple[float, str]] = {}
        for seen in (batch, [film.mirrored() for film in batch]):
            _, rows = nearest(known, np.stack([films.signature(film) for film in seen]), CANDIDATES)
            for clip_id, film, candidates in zip(clip_ids, seen, rows, strict=True):
                for other in (train[row] for row in candidates):
                    (candidate,) = _films(reader, [other])
                    best[clip_id] = min(best.get(clip_id, (np.inf, "")), (films.distance(candidate, film), other))
        found += [(clip_id, other, distance) for clip_id, (distance, other) in best.items() if distance < limit]
    return sorted(found, key=lambda pair: pair[2])


def _film_batches(reader: CacheReader, clip_ids: Sequence[str]) -> Iterator[tuple[Sequence[str], list[Film]]]:
    for first in range(0, len(clip_ids), BATCH):
        batch = clip_ids[first : first + BATCH]
        yield batch, _films(reader, batch)


def _films(reader: CacheReader, clip_ids: Sequence[str]) -> list[Film]:
    arrays = reader.read(clip_ids, ("thumbnail", "timestamp"))
    return [Film.of(*pair) for pair in zip(arrays["thumbnail"], arrays["timestamp"], strict=True)]


def _by_skeletons(
    reader: CacheReader, train: Sequence[str], test: Sequence[str], limit: float | None
) -> list[tuple[str, str, float]]:
    """(test clip, train clip, distance) below the limit, the nearest first. Batch by batch, since the skeletons of a
    large data set do not fit into memory.
    """
    from pipeline.protocol.signatures import Signatures, near_duplicates  # late: PyTorch, which a note is read without

    names, graph = ("keypoints", "scores", "person_valid"), graph_of(reader.recipe.layout)

    def signatures(clip_ids: Sequence[str]) -> Signatures:
        starts = range(0, len(clip_ids), BATCH)
        batches = [Signatures.of(**reader.read(clip_ids[s : s + BATCH], names), graph=graph) for s in starts]
        return Signatures(
            np.concatenate([batch.skeletons for batch in batches]), np.concatenate([batch.seen for batch in batches])
        )

    pairs = near_duplicates(signatures(train), signatures(test), limit)
    return [(test[row], train[other], distance) for row, other, distance in pairs]
