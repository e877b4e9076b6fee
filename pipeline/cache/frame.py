"""All clips of an extraction as one pandas table: a row a clip, for notebooks and for `cache stats`.

The table's index is the clip_id: the extracted clips in the reader's order, then the failed ones. Its columns are
    stage, reason              why the clip failed; empty where it was extracted, and all that follows 0, "" or False
                               where it was not
    seen                       of the T sampled frames those that show the first person
    joints, score              joints of all persons that are seen, and the sum of their scores
    anchors                    anchors of the first person that are seen, over the S cue frames
    frames, fps, height, width of the video
    video                      whether a video was read; the next ones are of it
    few_frames                 whether the T frames show few different ones
    container, track, ...      the fields of ClipRecord (pipeline/video/record.py)
and with a manifest, from clips.csv and classes.csv, empty for a clip that is not listed there,
    class, part, subject, camera
Counts and sums and no shares, so that those of any group of clips add up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cache.reader import CacheReader, MappedShard
from pipeline.manifest.clips import COLUMNS, read_classes, read_clips
from pipeline.video.record import ClipRecord

MEASURED = {"seen": 0, "joints": 0, "score": 0.0, "anchors": 0}
VIDEO = {"frames": 0, "fps": 0.0, "height": 0, "width": 0}
RECORD: dict[str, Any] = {"video": False, "few_frames": False, **vars(ClipRecord())}


def frame(reader: CacheReader, manifest: Path | None = None) -> pd.DataFrame:
    """The table of all clips. Raises PosebridgeError for a damaged shard or record, and for an odd manifest."""
    tables = [of_shard(reader, shard) for shard in reader.shards()]
    extracted = pd.concat(tables).loc[reader.clip_ids] if tables else pd.DataFrame()
    failed = pd.DataFrame(reader.failures, columns=["clip_id", "stage", "reason"]).set_index("clip_id")
    found = pd.concat([extracted, failed.assign(**MEASURED, **VIDEO, **RECORD)])
    return found if manifest is None else found.join(_listed(manifest).reindex(found.index, fill_value=""))


def of_shard(reader: CacheReader, shard: MappedShard) -> pd.DataFrame:
    """The extracted clips of one shard; each different record is parsed once."""
    ids = list(shard.rows)
    _, first, which = np.unique(shard["video_record"], return_index=True, return_inverse=True)
    records = [reader.record(ids[row]) for row in first]
    t = reader.recipe.frames
    rows = [
        RECORD | vars(record) | {"video": True, "few_frames": record.shows_few(t)} if record else RECORD
        for record in records
    ]
    index = pd.Index(ids, name="clip_id")
    measured: dict[str, Any] = dict(MEASURED)
    if "cue_scores" in shard:
        measured["anchors"] = (shard["cue_scores"][:, 0] > 0).sum((1, 2))
    if "scores" in shard:  # imported features have no joints
        valid, scores = shard["person_valid"], shard["scores"]  # [N, M, T], [N, M, T, V]
        measured |= {
            "seen": valid[:, 0].sum(1),
            "joints": valid.sum((1, 2)) * scores.shape[-1],
            "score": scores.sum((1, 2, 3), where=valid[..., None], dtype=np.float64),
        }
    video = {name: shard[f"video_{name}"] for name in VIDEO}
    told = pd.DataFrame(rows).iloc[which].set_axis(index)
    return pd.DataFrame({"stage": "", "reason": "", **measured, **video}, index=index).join(told)


def _listed(manifest: Path) -> pd.DataFrame:
    """What people say of the clips, by clip_id."""
    classes = read_classes(manifest / "classes.csv")
    rows = map(vars, read_clips(manifest / "clips.csv", len(classes)))
    clips = pd.DataFrame(rows, columns=COLUMNS).set_index("clip_id")
    named = clips["label"].map(dict(enumerate(classes))).fillna("")
    return clips[["part", "subject", "camera"]].assign(**{"class": named})[["class", "part", "subject", "camera"]]
