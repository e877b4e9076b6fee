"""What the records of a cache's clips say, summed up: which clips came from odd videos, and of which kind."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.cache.reader import CacheReader
from pipeline.video.record import ClipRecord

NAMED = 5  # clips that are named where many are counted


def sum_up(reader: CacheReader) -> dict[str, Any]:
    """Counts of clips by what their records say, and of what they lost; clips without a video are not counted.

    `few_frames` are clips whose T samples show less than a quarter of the frames that they could have shown; the first
    are named. Raises PosebridgeError where a record is damaged.
    """
    totals = ["lost_packets", "lost_joints", "lost_cues", "few_frames"]
    counts = Counter(dict.fromkeys([name for name, _ in _traits(ClipRecord())] + totals, 0))
    kinds: dict[str, Counter[str]] = {name: Counter() for name, _ in _kinds(ClipRecord())}
    few: list[str] = []
    for clip_id in reader.clip_ids:
        record = reader.record(clip_id)
        if record is None:
            continue
        counts.update(name for name, holds in _traits(record) if holds)
        counts.update(lost_packets=record.lost, lost_joints=record.joints_lost, lost_cues=record.cues_lost)
        for name, kind in _kinds(record):
            kinds[name][kind] += bool(kind)
        if record.shows_few(reader.recipe.frames):
            counts["few_frames"] += 1
            few += [clip_id] if len(few) < NAMED else []
    return {
        **counts,
        **{name: {kind: counter[kind] for kind in sorted(counter) if kind} for name, counter in kinds.items()},
        "few_frames_first": few,
    }


def _traits(record: ClipRecord) -> list[tuple[str, bool]]:
    return [
        ("clips_of_videos", True),
        ("several_tracks", record.tracks > 1),
        ("mirrored_or_turned", bool(record.orientation)),
        ("pixels_not_square", record.pixel_aspect != 1),
        ("size_changes", record.size_changes > 0),
        ("packets_lost", record.lost > 0),
        ("transparent", record.alpha),
        ("interlaced", record.interlaced),
        ("joints_without_numbers", record.joints_lost > 0),
        ("cues_without_numbers", record.cues_lost > 0),
    ]


def _kinds(record: ClipRecord) -> list[tuple[str, str]]:
    return [
        ("containers", record.container),
        ("orientations", record.orientation),
        ("timing", record.timing if record.timing != "stamps" else ""),
        ("tone", record.tone),
    ]
